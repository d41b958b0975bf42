"""twisted.web Request with a streaming body and responses from files.

It inherits everything that a twisted.web Resource knows of a Request. The difference is when it
runs: a Resource marked :class:`~twisted_registry.http.interfaces.IStreamingResource` is rendered
when the head is complete; others when the whole body is in ``content``, as in twisted.web.

twisted.web's constructors cost more than a short response. They are not called: the attributes that
they set are set here, or made on first use. A test compares the two.
"""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, fail
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
from twisted_registry.http.framing import NO_BODY
from twisted_registry.http.interfaces import IStreamingRequest, IStreamingResource
from twisted_registry.http.output import FileProducer
from twisted_registry.http.proxies import FORWARDING_HEADERS, socket_hops
from twisted_registry.http.redaction import describe_request
from twisted_registry.http.request_id import REQUEST_ID_FIELD, choose_request_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_registry.http.connection import HTTPConnection
    from twisted_registry.http.parser import RequestHead
    from twisted_registry.http.proxies import ClientInfo
    from twisted_registry.http.site import HTTPSite

log = Logger()


@implementer(IStreamingRequest, IConsumer)
class StreamingRequest(Request):
    """One request of an :class:`~twisted_registry.http.connection.HTTPConnection`.

    :ivar head: as it was parsed.
    :ivar user: the authenticated user's name as bytes, set by the application for the access log.
    :ivar started_at: when the head was complete, in seconds of the site's clock.
    :ivar trace_id: the id of the trace that the request is part of, set by the application for the
        access log; empty without one.
    """

    channel: Any = None  # also after the request has ended
    site: HTTPSite
    queued = False
    trace_id = ""
    sitepath: list[bytes]
    _resource: Any = None
    _client_info: ClientInfo | None = None
    _request_id = ""

    def __init__(self, channel: HTTPConnection, head: RequestHead) -> None:
        self.channel = channel
        self.site = channel.site
        self.transport = channel.transport
        self._direct_client = channel.direct_client
        self.client = channel.peer
        self.host = channel.host
        self.notifications = []
        self.received_cookies = {}
        self.cookies = []
        self._adapterCache: dict[Any, Any] = {}
        self.head = head
        self.method = head.method
        self.uri = head.target
        self.clientproto = head.version
        self.path = head.target.partition(b"?")[0]
        self.started_at = channel.clock.seconds()
        if b"cookie" in head.fields:
            self.parseCookies()

    # Attributes that are made on first use

    @cached_property
    def requestHeaders(self) -> Headers:  # type: ignore[override]
        """Header fields of the request."""
        headers = Headers()
        for name, value in self.head.headers:
            headers.addRawHeader(name, value)
        return headers

    @cached_property
    def responseHeaders(self) -> Headers:  # type: ignore[override]
        """Header fields of the response; at first only Date."""
        return Headers({b"Date": [self.site.date()]})

    @cached_property
    def args(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        """The parameters of the URL and of a form."""
        query = self.uri.partition(b"?")[2]
        return parse_qs(query, True) if query else {}

    @property
    def received_bytes(self) -> int:
        """Bytes of the body that were received so far."""
        return self.head.body_bytes_read

    @cached_property
    def content(self) -> BytesIO:  # type: ignore[override]
        """The body, for a Resource that does not stream."""
        return BytesIO()

    @cached_property
    def body(self) -> IncomingBody:
        """The body, for a Resource that streams."""
        length = self.head.length
        return IncomingBody(
            UNKNOWN_LENGTH if length is None else length,
            self.channel.process_events,
            # No consumer can fail on an empty body; a bound method would make a reference cycle.
            _ignore if length == 0 else self.processingFailed,
            finished=length == 0,
        )

    @property
    def request_id(self) -> str:
        """The id of the request, which its response has in the header ``X-Request-Id``."""
        found = self._request_id
        if not found:
            found = self._request_id = choose_request_id(self.head.fields.get(b"x-request-id"))
        return found

    @property
    def client_info(self) -> ClientInfo:
        """What connection and trusted proxies say about the client."""
        # Not a cached_property, which takes a lock in Python 3.11.
        info = self._client_info
        if info is None:
            has_headers = not FORWARDING_HEADERS.isdisjoint(self.head.fields)
            info = self._read_client_info() if has_headers else self._direct_client
            self._client_info = info
        return info

    def _read_client_info(self) -> ClientInfo:
        site, hops = self.site, socket_hops(self.transport)
        info = site.trusted_proxies.describe_client(hops, self.headerFields, self.getHeaderValues)
        if not site.trusted_proxies.trusts(info.peer):
            site.headers_ignored(info.peer)
        return info

    @property
    def client_address(self) -> str:
        """The IP address of the client; empty for one on a Unix socket.

        In a chain of trusted proxies, that of the client of the first one.
        """
        return self.client_info.address

    @property
    def headerFields(self) -> Mapping[bytes, bytes]:
        """The last value of each header, by its name in lower case."""
        # A Resource that wraps this one may have changed ``requestHeaders``.
        return self.getAllHeaders() if "requestHeaders" in vars(self) else self.head.fields

    def getHeaderValues(self, name: bytes) -> Sequence[bytes]:
        """Return all values of a header, in order."""
        head = self.head
        if "requestHeaders" in vars(self) or len(head.fields) != len(head.headers):
            values: Sequence[bytes] = self.requestHeaders.getRawHeaders(name, ())
            return values
        value = head.fields.get(name)
        return () if value is None else (value,)

    @property
    def _parsePOSTFormSubmission(self) -> bool:  # type: ignore[override]
        # Twisted 24.11 always parses forms, and its Site has no such attribute.
        return getattr(self.site, "_parsePOSTFormSubmission", True)

    @property
    def duration(self) -> float:
        """Seconds since the head was complete."""
        seconds: float = self.site.clock.seconds() - self.started_at
        return seconds

    # Running

    def begin(self) -> None:
        """Find the Resource, and run it now or when the whole body has been received."""
        self.prepath = []
        parts = self.path[1:].split(b"/")
        self.postpath = [unquote_to_bytes(part) for part in parts] if b"%" in self.path else parts
        # "*" means the server as a whole (RFC 9110 section 9.3.7).
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
        """Render the Resource."""
        resource = self._resource
        if resource is None:
            self.setResponseCode(204)
            self.finish()
            return
        try:
            if isinstance(resource, EncodingResourceWrapper):
                self._encoder = resource.getEncoder(self)
            self.render(resource)
        except Exception:  # noqa: BLE001 (a Resource may raise anything)
            self.processingFailed(Failure())

    def _collect(self) -> None:
        length = self.body.length
        if length is not UNKNOWN_LENGTH and length > self.site.limits.content_bytes:
            self.channel.refuse_request(413)
            return
        done = self.body.startProducing(_ContentCollector(self))
        # If the body is aborted, the connection fails the request as well.
        done.addCallbacks(self._collected, _ignore)

    def _collected(self, _: None) -> None:
        try:
            # Decodes forms, then calls ``process``, which raises nothing.
            self.requestReceived(self.method, self.uri, self.clientproto)
        except Exception:  # noqa: BLE001 (twisted.web lets any exception of its form parsers out)
            self.channel.refuse_request(400)

    def processingFailed(self, reason: Failure) -> None:
        """Log a failure, and respond 500 without details; reset if a response has begun."""
        fields: dict[str, Any] = {REQUEST_ID_FIELD: self.request_id}
        log.failure("{request} failed", reason, request=describe_request(self), **fields)
        if self._disconnected or self.finished:
            return
        if self.startedWriting:
            self.channel.abort()
            return
        if self.producer is not None:
            self.unregisterProducer()
        content_type, body = self.site.make_error_body(500, "internal error")
        self.sendResponse(500, b"Content-Type: %b\r\n" % content_type, body)

    # Responding

    def write(self, data: bytes) -> None:
        """Send a part of the response; the head is sent together with the first part."""
        channel, is_first = self.channel, not self.startedWriting
        super().write(data)
        if is_first and channel is not None:
            channel.flush_head()

    def sendResponse(
        self, status: int, fields: bytes, body: bytes, length: int | None = None
    ) -> None:
        """Send a complete response in one piece, and finish."""
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
        """Send a head and bytes of a file, and finish."""
        channel = self.channel
        if self._disconnected:
            return fail(ConnectionLost())
        self.code, self.code_message = status, RESPONSES.get(status, b"Unknown Status")
        self.startedWriting = 1
        head = channel.make_response_head(status, self.code_message, fields, length)
        if not channel.output.supports_direct_io:
            channel.output.write(head)
            producer = FileProducer(
                self, self.site.read_file, channel.abort, descriptor, offset, length
            )
            return producer.start().addCallback(self._response_sent)
        self.sentLength = length
        sent: Deferred[None] | None = channel.send_file(head, descriptor, offset, length)
        if sent is not None:
            return sent.addCallback(self._response_sent)
        self._response_sent(None)
        return None

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Let ``producer`` write the response."""
        if self._disconnected:
            producer.stopProducing()
            return
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Detach the producer."""
        if self._disconnected:
            self.producer = None
            return
        super().unregisterProducer()

    def connectionLost(self, reason: Failure) -> None:
        """Fail the request: the response cannot be sent any more."""
        if not self.startedWriting and self.code == 200:
            # For the access log: the client did not wait.
            self.setResponseCode(499, b"Client Closed Request")
        self.site.log(self)
        self.producer = None
        super().connectionLost(reason)

    def _response_sent(self, _: None) -> None:
        """Finish, after a response was written completely without ``finish``."""
        if self.site.access_log is not None:
            self.site.log(self)
        self.finished = 1
        self._cleanup()

    def _cleanup(self) -> None:
        # Replaces twisted.web's method, which would make ``content`` only to close it.
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


def _ignore(_: Failure) -> None:
    """Do nothing."""


class _ContentCollector:
    """A consumer that collects a body in ``content``, up to the limit ``content_bytes``."""

    def __init__(self, request: StreamingRequest) -> None:
        self._request = request
        self._content: Any = request.content

    def write(self, piece: bytes) -> None:
        request = self._request
        if self._content.tell() + len(piece) > request.site.limits.content_bytes:
            request.channel.refuse_request(413)
        else:
            self._content.write(piece)
