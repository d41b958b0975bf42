"""The certificate that a client has shown, and that one of our authorities vouches for.

What a connection over TLS that has its socket for itself offers beyond Twisted's transports.
"""

from __future__ import annotations

from attrs import frozen
from zope.interface import Attribute, Interface


@frozen
class ClientCertificate:
    """What a verified certificate says of its holder.

    :ivar subject: the distinguished name (RFC 4514): ``CN=ci,O=Example``.
    :ivar cn: the common names in it.
    :ivar organizations: the organizations in it.
    :ivar dns: host names among the alternative names (RFC 5280 section 4.2.1.6).
    :ivar email: e-mail addresses among them.
    :ivar uri: URIs among them, as the SPIFFE id of a workload.
    """

    subject: str
    cn: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()


class IClientCertificateTransport(Interface):
    """A transport that knows whose certificate its peer has shown."""

    certificate: ClientCertificate | None = Attribute(
        "The peer's, once the handshake is over; None if it has shown none that was verified."
    )


# zope.interface methods take no self.
# ruff: noqa: N805


class IBlockingTLSConnection(Interface):
    """A connection in the hands of a thread: what is read and sent is in the clear.

    Of ``send`` and ``recv_into`` a thread calls one at a time. ``send`` raises BlockingIOError when
    nothing can be sent now: the next call of it, by whomever, must be of the same bytes. Both
    raise OSError once the connection is lost, or is to be.
    """

    def fileno() -> int:
        """The descriptor to poll when one of the others raised BlockingIOError."""

    def send(octets: memoryview) -> int:
        """Send the beginning of ``octets``, and answer how many that were."""

    def recv_into(room: memoryview) -> int:
        """Fill the beginning of ``room``, and answer how far; with nothing if nothing follows."""

    def close() -> None:
        """Give the connection back. Called by the reactor's thread, and once."""


class ITLSConnection(Interface):
    """A connection over TLS that can be lent."""

    bufferSize: int = Attribute("How many bytes are read at most before they are delivered.")
    lendable: bool = Attribute("Whether nothing waits to be sent, and the connection is up.")

    def borrow() -> IBlockingTLSConnection:
        """Lend the connection, if it is lendable: until it is given back nothing else uses it.

        What is written meanwhile is sent afterwards. An abort waits for the return, and makes the
        calls of the borrower fail.
        """

    def whenWritable() -> object:
        """A Deferred that fires with None when nothing waits, and the socket takes bytes again.

        It fails if the connection is lost. There is one at a time.
        """

    def hangUp() -> None:
        """Close now, and not when the peer has said goodbye, too."""
