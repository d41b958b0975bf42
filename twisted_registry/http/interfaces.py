"""What our HTTP channel offers to a Resource beyond what twisted.web's own does.

Everything here has a plain fallback (:mod:`twisted_registry.http.body`), so that the same
Resource tree works under a stock :class:`twisted.web.server.Site`.

What one connection may cost before it has proved anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.web.iweb import IBodyProducer
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.auth.interfaces import RawCredentials

# zope's methods have no self.
# ruff: noqa: N805


class BodyAborted(Exception):
    """The body will not come whole: the sender left, stalled, or broke the framing; or whoever
    took it told it to stop.
    """


class IStreamingResource(Interface):
    """A marker on a Resource whose ``render`` wants to run as soon as the headers are in.

    ``request.body`` is then an :class:`IRequestBody`. Without the marker the channel collects a
    small body in ``request.content`` first, as twisted.web does.
    """


class IRequestBody(IBodyProducer):
    """A request's body that is still arriving.

    Before ``startProducing`` no ``100 Continue`` is sent, and no more is read from the socket than
    one read brings: only a socket that is read tells that its peer has left. ``length`` is the
    Content-Length, or ``UNKNOWN_LENGTH`` for a chunked body.

    Unlike an outgoing body, its Deferred always fires: with None after the last byte, or with
    :class:`BodyAborted`, also after ``stopProducing``. Cancelling it is ``stopProducing``. What
    the consumer's ``write`` raises is what it fails with; if nobody handles that, the channel
    answers 500. When the body was aborted from outside, the request is over as well: its
    ``notifyFinish`` fails, and the channel has answered for it or closed.
    """


class IStreamingRequest(Interface):
    """What a request of our channel has beyond IRequest."""

    body: IRequestBody = Attribute("The body on its way in.")
    headerFields: Mapping[bytes, bytes] = Attribute(
        "The last value of each header of the request, by its name in lower case."
    )

    def getHeaderValues(name: bytes) -> Sequence[bytes]:
        """Return all values of a header of the request, in order.

        :param name: in lower case.
        """

    def sendResponse(status: int, fields: bytes, body: bytes, length: int | None = None) -> None:
        """Send a whole answer in one piece, and finish.

        :param fields: header fields that are ready to be sent, each with its line break, without
            Date, Content-Length and Connection, which are added.
        :param body: left out where an answer has none.
        :param length: Content-Length, where it is not that of ``body`` (HEAD).
        """

    def sendFileResponse(
        status: int, fields: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head as :meth:`sendResponse` does, then bytes of a file as :meth:`sendFile` does.

        For answers to a GET that have a body. Finishes when all is sent: None says that it is,
        at once; else the Deferred fires then.
        """

    def sendFile(descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send headers not yet written, then bytes of a file, by kernel copy where possible.

        The caller has set Content-Length and calls ``finish`` after the Deferred fires. The
        descriptor may be closed once this returns: the channel keeps a duplicate as long as it
        needs one. Cancelling stops sending and closes the connection. The Deferred fails when
        the client leaves or the file is shorter than said.
        """


class IShowingRequest(IStreamingRequest):
    """A request with credentials that its connection keeps for the next one.

    ``headerFields`` are without Authorization as long as ``shown`` is not None.
    """

    shown: RawCredentials | None = Attribute(
        "The Authorization header; None if a Resource may have changed it."
    )


MIB = 1024 * 1024


@frozen
class Limits:
    """Sizes in bytes and times in seconds of the HTTP edge.

    :ivar url_bytes: a longer request target is answered 414.
    :ivar header_bytes: header fields of one request together (and its trailer fields); 431.
    :ivar header_count: number of header fields of one request; 431.
    :ivar header_seconds: from the first byte of a request to the end of its head; 408.
    :ivar idle_seconds: between two requests, and before the first.
    :ivar body_seconds: without a byte of a body that is wanted (408), or of an answer taken.
    :ivar content_bytes: a body collected for a Resource that does not stream; 413.
    :ivar linger_bytes: of a body that nobody took, read and dropped so that the sender gets to
        see the answer: more than a chunk that we ask for has (5 MiB, over a bucket).
    :ivar linger_seconds: given to a peer to take note of the end of a connection.
    :ivar half_closed_seconds: a peer that closed its sending side after a whole request may
        have left or may be waiting; an answer that has not begun by then is not waited for.
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
