"""Interfaces of the HTTP engine, and its limits.

A Resource tree that uses them also works under a stock :class:`twisted.web.server.Site`:
:mod:`twisted_registry.http.body` has the fallback for bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen
from twisted.web.iweb import IBodyProducer
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.defer import Deferred
    from twisted.web.server import Request

    from twisted_registry.http.proxies import ClientInfo

# Methods of zope.interface take no self.
# ruff: noqa: N805

MIB = 1024 * 1024

#: Makes the body of an error that no Resource answers: takes the status and a message, returns
#: Content-Type and body.
MakeErrorBody: TypeAlias = Callable[[int, str], tuple[bytes, bytes]]


@frozen
class Limits:
    """Sizes in bytes and times in seconds.

    :ivar url_bytes: of a request target; a longer one is answered 414.
    :ivar header_bytes: of the header fields of one request, and of its trailer fields; 431.
    :ivar header_count: header fields of one request; 431.
    :ivar header_seconds: from the first byte of a request to the end of its head; 408.
    :ivar idle_seconds: between two requests, and before the first.
    :ivar body_seconds: without progress of a body that the application reads (408), or of a
        response that is being sent.
    :ivar body_bytes_per_second: the lowest average rate of a body that the application reads, over
        ``body_seconds``; 408. 0 for none.
    :ivar content_bytes: of a body that is collected for a Resource that does not stream; 413.
    :ivar linger_bytes: of an unread body that are received and discarded so that the sender can
        read the response. More than the largest chunk that the registry asks for (5 MiB, on S3).
    :ivar linger_seconds: for a peer to close after the end of a connection.
    :ivar half_closed_seconds: for a response to begin, after a peer has closed its sending side
        behind a whole request: it may have left or be waiting.
    :ivar connections: open at a time. Above it, the ones that wait longest for a request are
        closed; if none does, new ones are refused. 0 for any number.
    :ivar connections_per_address: of one IPv4 address or IPv6 network of 64 bits, likewise.
    """

    url_bytes: int = 8192
    header_bytes: int = 16384
    header_count: int = 100
    header_seconds: float = 20
    idle_seconds: float = 60
    body_seconds: float = 60
    content_bytes: int = MIB
    linger_bytes: int = 8 * MIB
    linger_seconds: float = 5
    half_closed_seconds: float = 2
    body_bytes_per_second: float = 512
    connections: int = 0
    connections_per_address: int = 0


class BodyAborted(Exception):
    """A request's body ends early: the client left, stalled or broke the framing, or the
    application stopped it.
    """


class IStreamingResource(Interface):
    """A marker on a Resource that is rendered as soon as the head of a request is complete.

    ``request.body`` is then an :class:`IRequestBody`. For a Resource without the marker the body is
    collected in ``request.content`` first, as twisted.web does.
    """


class IRequestBody(IBodyProducer):
    """The body of a request.

    ``length`` is the Content-Length, or ``UNKNOWN_LENGTH`` for a chunked body. Before
    ``startProducing`` no ``100 Continue`` is sent, and at most one read's worth is read from the
    socket: reading is the only way to notice that the peer has left.

    Unlike that of an outgoing body, the Deferred always fires: with None after the last byte, or
    with :class:`BodyAborted`, also after ``stopProducing``. Cancelling it is ``stopProducing``. It
    fails with the exception that the consumer's ``write`` raises; if nothing handles that, the
    response is 500. If the body was aborted by the client or the server, the request has ended as
    well: ``notifyFinish`` fails, and the connection has responded or closed.

    A consumer may have an attribute ``append_from``: None, or a callable that takes a
    :class:`~twisted_registry.http.body.DirectRead` and reads from the socket on a thread. It
    returns a Deferred that fires with None, whatever happens, when it has stopped reading, or None
    to get the body by ``write`` instead.
    """


class IStreamingRequest(Interface):
    """What requests of this engine offer in addition to IRequest."""

    body: IRequestBody = Attribute("The body of the request.")
    headerFields: Mapping[bytes, bytes] = Attribute(
        "The last value of each header of the request, by its name in lower case."
    )

    received_bytes: int = Attribute("Bytes of the body that were received so far.")

    client_info: ClientInfo = Attribute("What connection and trusted proxies say of the client.")
    client_address: str = Attribute("The IP address of the client; empty for a Unix socket.")

    def getHeaderValues(name: bytes) -> Sequence[bytes]:
        """Return all values of a header of the request, in order.

        :param name: in lower case.
        """

    def sendResponse(status: int, fields: bytes, body: bytes, length: int | None = None) -> None:
        """Send a complete response in one piece, and finish.

        :param fields: encoded header fields, each with its line break, without Date, Content-Length
            and Connection, which are added.
        :param body: not sent for HEAD and for a status without a body.
        :param length: Content-Length, if it is not the length of ``body`` (HEAD).
        """

    def sendFileResponse(
        status: int, fields: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head as :meth:`sendResponse` does, then bytes of a file.

        For a response to GET that has a body. The bytes are sent with ``sendfile`` where possible.
        Finishes when everything has been sent. The caller may close the descriptor once this
        returns.

        :returns: None if everything has been sent at once; otherwise a Deferred that fires then. It
            fails if the client leaves or the file is shorter than ``offset + length``. Cancelling
            it stops sending and closes the connection.
        """


class IAccessLog(Interface):
    """Is called for every request when it ends."""

    def log(request: Request) -> None:
        """Log a request that was answered, or whose client left.

        ``code`` is 499 if the client left before the response began, or the status with which the
        server refused the request. ``sentLength``, ``duration`` (seconds), ``user`` and everything
        that the client sent are available as well.
        """


class IBlockingTLSConnection(Interface):
    """A TLS connection for a thread, which sends and receives plain text.

    The thread makes one call at a time. When ``send`` raises BlockingIOError, the next call of
    ``send``, by any caller, must pass the same bytes. ``send`` and ``recv_into`` raise OSError when
    the connection is lost, or is to be closed.
    """

    def fileno() -> int:
        """Return the descriptor to poll after a BlockingIOError."""

    def send(octets: memoryview) -> int:
        """Send the beginning of ``octets`` and return the number of sent bytes."""

    def recv_into(room: memoryview) -> int:
        """Fill the beginning of ``room`` and return the number of bytes; 0 at the end."""

    def close() -> None:
        """Return the connection to the reactor. Called once, in the reactor thread."""


class ITLSConnection(Interface):
    """A TLS connection that a thread can borrow from the reactor."""

    bufferSize: int = Attribute("The maximum number of bytes per delivery.")
    lendable: bool = Attribute("Whether the connection is up and has nothing waiting to be sent.")

    def borrow() -> IBlockingTLSConnection:
        """Lend the connection, if it is lendable. The reactor does not use it until its return.

        Data written meanwhile is sent after the return. Aborting the connection makes the calls
        of the borrower fail, and takes effect after the return.
        """

    def whenWritable() -> object:
        """Return a Deferred that fires with None when the socket accepts data again.

        All data written before has been sent then. The Deferred fails if the connection is lost.
        Only one can be pending.
        """

    def hangUp() -> None:
        """Close the connection without waiting for the close_notify alert of the peer."""
