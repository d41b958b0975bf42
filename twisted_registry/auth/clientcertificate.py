"""The certificate that a client has shown, and that one of our authorities vouches for."""

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
