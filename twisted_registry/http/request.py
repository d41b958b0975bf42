"""One request of our channel: twisted.web's own, with a body that streams and files that fly.

Everything that a twisted.web Resource knows of a Request is inherited. What differs is when it
runs: a Resource marked :class:`~twisted_registry.http.interfaces.IStreamingResource` is rendered
when the head is in; all others when the whole body is in ``content``, as twisted.web does.

A short answer costs less than the objects that twisted.web makes for each request. So its
constructors are not called: the attributes that they would set are set here, or made when
somebody first asks for them. A test compares the two.
"""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, parse_qs
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH
from twisted.web.resource import EncodingResourceWrapper
from twisted.web.server import Request
from zope.interface import implementer

from twisted_registry.http.body import IncomingBody
from twisted_registry.http.framing import NO_BODY, error_body, has_body
from twisted_registry.http.interfaces import IShowingRequest, IStreamingRequest, IStreamingResource
from twisted_registry.http.output import FileProducer
from twisted_registry.oci.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_registry.auth.interfaces import RawCredentials
    from twisted_registry.http.connection import HTTPConnection
    from twisted_registry.http.parser import RequestHead, ShownHead
    from twisted_registry.http.site import HTTPSite

log = Logger()


_INTERNAL_ERROR_BODY = error_body(ErrorCode.UNKNOWN, "internal error")


@implementer(IStreamingRequest, IConsumer)
class StreamingRequest(Request):
    """See the module.

    :ivar body: an IRequestBody; empty if the request has none.
    :ivar showing: the head with the credentials, if the connection keeps them.
    :ivar user: as bytes, set by whoever found out who is asking; the access log names it.
    :ivar started: when the head was in, in seconds of the reactor's clock.
    """

    channel: Any = None  # also when the request is over
    site: HTTPSite
    queued = False
    sitepath: list[bytes]
    _resource: Any = None

    def __init__(  # see the module
        self, channel: HTTPConnection, head: RequestHead, showing: ShownHead | None = None
    ) -> None:
        self.channel = channel
        self.site = channel.site
        self.transport = channel.transport
        self.client = channel.peer
        self.host = channel.host
        self.notifications = []
        self.received_cookies = {}
        self.cookies = []
        self._adapterCache: dict[Any, Any] = {}
        self.head = head
        self.showing = showing
        self.method = head.method
        self.uri = head.target
        self.clientproto = head.version
        self.path = head.target.partition(b"?")[0]
        self.started = channel.clock.seconds()
        if b"cookie" in head.fields:
            self.parseCookies()

    @cached_property
    def requestHeaders(self) -> Headers:  # type: ignore[override]
        """What the client sent."""
        headers = Headers()
        for name, value in (self.showing or self.head).headers:
            headers.addRawHeader(name, value)
        return headers

    @cached_property
    def responseHeaders(self) -> Headers:  # type: ignore[override]
        """What it gets: so far the date."""
        return Headers({b"Date": [self.site.date()]})

    @cached_property
    def args(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        """The parameters of the URL, and of a form."""
        query = self.uri.partition(b"?")[2]
        return parse_qs(query, True) if query else {}

    @cached_property
    def content(self) -> BytesIO:  # type: ignore[override]
        """The body of a request for a Resource that does not stream."""
        return BytesIO()

    @cached_property
    def body(self) -> IncomingBody:
        """The body on its way in."""
        length = self.head.length
        return IncomingBody(
            UNKNOWN_LENGTH if length is None else length,
            self.channel.process_events,
            # An empty body can not be taken badly, and need not tie each request into a cycle.
            _ignore if length == 0 else self.processingFailed,
            over=length == 0,
        )

    @property
    def headerFields(self) -> Mapping[bytes, bytes]:
        """See :class:`~twisted_registry.http.interfaces.IStreamingRequest`."""
        # A Resource in front of ours may have changed what it saw.
        return self.getAllHeaders() if "requestHeaders" in vars(self) else self.head.fields

    def getHeaderValues(self, name: bytes) -> Sequence[bytes]:
        """See :class:`~twisted_registry.http.interfaces.IStreamingRequest`."""
        head = self.head
        if "requestHeaders" in vars(self) or len(head.fields) != len(head.headers):
            values: Sequence[bytes] = self.requestHeaders.getRawHeaders(name, ())
            return values
        value = head.fields.get(name)
        return () if value is None else (value,)

    @property
    def _parsePOSTFormSubmission(self) -> bool:  # type: ignore[override]
        # The oldest Twisted parses forms always.
        return getattr(self.site, "_parsePOSTFormSubmission", True)

    @property
    def duration(self) -> float:
        """Seconds since the head was in."""
        seconds: float = self.site.clock.seconds() - self.started
        return seconds

    def isSecure(self) -> bool:
        """Whether the transport is TLS."""
        channel = self.channel
        return channel is not None and channel.secure

    # Running

    def begin(self) -> None:
        """The head is in: find the Resource, and run it now or when it has the whole body."""
        self.prepath = []
        parts = self.path[1:].split(b"/")
        self.postpath = [unquote_to_bytes(part) for part in parts] if b"%" in self.path else parts
        # "*" asks the server as a whole: RFC 9110 section 9.3.7
        if self.path != b"*":
            try:
                self._resource = self.site.getResourceFor(self)
            except Exception:  # noqa: BLE001 (a Resource may raise anything)
                self.processingFailed(Failure())
                return
        if self.head.length == 0 or IStreamingResource.providedBy(self._resource):
            self.process()
        else:
            self._collect()

    def process(self) -> None:
        """Run the Resource."""
        found = self._resource
        if found is None:
            self.setResponseCode(204)
            self.finish()
            return
        try:
            if isinstance(found, EncodingResourceWrapper):
                self._encoder = found.getEncoder(self)
            self.render(found)
        except Exception:  # noqa: BLE001 (a Resource may raise anything)
            self.processingFailed(Failure())

    def _collect(self) -> None:
        length = self.body.length
        if length is not UNKNOWN_LENGTH and length > self.site.limits.content_bytes:
            self.channel.refuse_request(413)
            return
        done = self.body.startProducing(_ContentCollector(self))
        # A body that is aborted takes its request along: there is nobody left to answer.
        done.addCallbacks(self._collected, lambda _: None)

    def _collected(self, _: None) -> None:
        try:
            # decodes forms, then calls process(), which raises nothing
            self.requestReceived(self.method, self.uri, self.clientproto)
        except Exception:  # noqa: BLE001 (twisted.web has no word for a form that it can not read)
            self.channel.refuse_request(400)

    def processingFailed(self, reason: Failure) -> None:
        """Say that something went wrong, but not what, and only if nothing has been said yet."""
        log.failure("{method} {uri} failed", reason, method=self.method, uri=self.uri)
        if self._disconnected or self.finished:
            return
        if self.startedWriting:
            self.channel.abort()
            return
        for name in [name for name, _ in self.responseHeaders.getAllRawHeaders()]:
            if name != b"Date":
                self.responseHeaders.removeHeader(name)
        self.etag = self.lastModified = None
        self.cookies = []
        self._encoder = None
        self.setResponseCode(500)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(_INTERNAL_ERROR_BODY))
        if self.producer is not None:
            self.unregisterProducer()
        self.write(_INTERNAL_ERROR_BODY)
        self.finish()

    # Answering

    def write(self, data: bytes) -> None:
        """Send a part of the answer; the head leaves together with the first."""
        if self.startedWriting or self._disconnected or self.finished:
            super().write(data)
            return
        output = self.channel.output
        output.cork()
        try:
            super().write(data)
        finally:
            output.uncork()

    def sendResponse(
        self, status: int, fields: bytes, body: bytes, length: int | None = None
    ) -> None:
        """See :class:`~twisted_registry.http.interfaces.IStreamingRequest`."""
        if self._disconnected:
            return
        self.code, self.code_message = status, RESPONSES.get(status, b"Unknown Status")
        self.startedWriting = 1
        if self.method == b"HEAD" or status in NO_BODY:
            length, body = len(body) if length is None else length, b""
        self.sentLength = len(body)
        self.channel.send_response(status, self.code_message, fields, body, length)
        self._response_sent(None)

    def sendFileResponse(
        self, status: int, fields: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """See :class:`~twisted_registry.http.interfaces.IStreamingRequest`."""
        channel = self.channel
        if self._disconnected:
            return fail(ConnectionLost())
        self.code, self.code_message = status, RESPONSES.get(status, b"Unknown Status")
        self.startedWriting = 1
        head = channel.make_response_head(status, self.code_message, fields, length)
        if not channel.output.sends_files:
            channel.output.write(head)
            pump = FileProducer(
                self, self.site.read_file, channel.abort, descriptor, offset, length
            )
            return pump.start().addCallback(self._response_sent)
        self.sentLength = length
        sent: Deferred[None] | None = channel.send_head_and_file(head, descriptor, offset, length)
        if sent is not None:
            return sent.addCallback(self._response_sent)
        self._response_sent(None)
        return None

    def _response_sent(self, _: None) -> None:
        """All has been written that there was to say."""
        if self.site.access_log is not None:
            self.site.log(self)
        self.finished = 1
        self._cleanup()

    def sendFile(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """See :class:`~twisted_registry.http.interfaces.IStreamingRequest`."""
        channel = self.channel
        if self._disconnected:
            return fail(ConnectionLost())
        if not has_body(self.method, self.code):
            self.write(b"")
            return succeed(None)
        if not channel.output.sends_files or (
            self._encoder is not None
            or not (self.startedWriting or self.responseHeaders.hasHeader(b"Content-Length"))
            or self.chunked
        ):
            return FileProducer(
                self, self.site.read_file, channel.abort, descriptor, offset, length
            ).start()
        if not self.startedWriting:
            channel.output.cork()
            super().write(b"")
        self.sentLength += length
        sent: Deferred[None] = channel.send_file(descriptor, offset, length)
        return sent

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Let ``producer`` write this request's answer."""
        if self._disconnected:
            producer.stopProducing()
            return
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has written all, or there is nobody left to write to."""
        if self._disconnected:
            self.producer = None
            return
        super().unregisterProducer()

    def _cleanup(self) -> None:
        # As twisted.web's, which would make what was never asked for in order to close it.
        if self.producer is not None:
            super()._cleanup()
            return
        channel, self.channel = self.channel, None
        channel.requestDone(self)
        made = vars(self)
        if "content" in made:
            made.pop("content").close()
        waiting, self.notifications = self.notifications, []
        for done in waiting:
            done.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """The answer can not be sent any more."""
        if not self.startedWriting and self.code == 200:
            # the access log's way to say that the client did not wait
            self.setResponseCode(499, b"Client Closed Request")
        self.site.log(self)
        self.producer = None
        super().connectionLost(reason)


@implementer(IShowingRequest)
class ShowingRequest(StreamingRequest):
    """A request with credentials that the connection keeps."""

    showing: ShownHead

    @property
    def shown(self) -> RawCredentials | None:
        """See :class:`~twisted_registry.http.interfaces.IShowingRequest`."""
        return None if "requestHeaders" in vars(self) else self.showing.shown

    def getHeaderValues(self, name: bytes) -> Sequence[bytes]:
        """See :class:`~twisted_registry.http.interfaces.IStreamingRequest`."""
        if name == b"authorization":
            values: Sequence[bytes] = self.requestHeaders.getRawHeaders(name, ())
            return values
        return super().getHeaderValues(name)


def _ignore(_: Failure) -> None:
    """Nobody is interested."""


class _ContentCollector:
    """What a body's consumer must have: keeps everything in ``content``, up to the limit."""

    def __init__(self, request: StreamingRequest) -> None:
        self._request = request
        self._content: Any = request.content

    def write(self, piece: bytes) -> None:
        request = self._request
        if self._content.tell() + len(piece) > request.site.limits.content_bytes:
            request.channel.refuse_request(413)
        else:
            self._content.write(piece)
