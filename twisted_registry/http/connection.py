"""HTTP/1.1 connection of a server: requests in order, one at a time, and a definite end.

The parser (:mod:`twisted_registry.http.parser`) turns bytes into events. They wait in a queue until
the connection can act on them, and the socket is not read while events wait: this is the only
back-pressure. The connection starts requests, passes their bodies on, frames their responses,
keeps deadlines and closes. An output (:mod:`twisted_registry.http.output`) sends.

A response is complete or visibly broken: if its Content-Length cannot be kept, or anything fails
after its first byte, the connection is reset. If the end of a request is in doubt, so is everything
after it, and the connection closes. A peer that still sends then can read the response first
(RFC 9112 section 9.6). A request whose connection is lost, stalls or breaks the framing fails once:
in ``notifyFinish``, in the Deferred of its body and in that of a file being sent.
"""

from __future__ import annotations

import math
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import fail
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.body import DirectRead
from twisted_registry.http.deadlines import (
    IDLE_WAITS,
    LIMITS_BY_WAIT,
    WAIT_BODY,
    WAIT_CLOSE,
    WAIT_HALF_CLOSED,
    WAIT_HEAD,
    WAIT_IDLE,
    WAIT_NONE,
    WAIT_OUTPUT,
    MinimumRate,
    timeouts,
)
from twisted_registry.http.framing import CONTINUE, ResponseHead, error_response, response_head
from twisted_registry.http.interfaces import BodyAborted, ITLSConnection
from twisted_registry.http.outputs import make_output
from twisted_registry.http.parser import END_OF_BODY, ParseError, RequestHead, RequestParser
from twisted_registry.http.proxies import ClientInfo, host_of, socket_hops
from twisted_registry.http.redaction import describe_request
from twisted_registry.http.request import StreamingRequest
from twisted_registry.http.request_id import REQUEST_ID_FIELD, choose_request_id, request_id_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred
    from twisted.web.http_headers import Headers

    from twisted_registry.http.body import IncomingBody
    from twisted_registry.http.output import Output
    from twisted_registry.http.site import HTTPSite

log = Logger()

# Size of a read of heads and of bodies up to this length. Twisted allocates that much for each read
# and shrinks it to what has arrived: what is kept of many reads would leave large gaps in memory.
_HEAD_READ_BYTES = 8 * 1024
# Size of a read of longer bodies, and their largest length.
_SMALL_BODY_BYTES = 64 * 1024
# Size of a read of large bodies: fewer calls, and pieces that are worth a hop to a thread.
_BODY_READ_BYTES = 1024 * 1024
# A read of this size shows a fast sender, whose body a thread may read directly from the socket.
DIRECT_READ_MIN_BYTES = 256 * 1024


@implementer(IHalfCloseableProtocol)
class HTTPConnection(Protocol):
    """One connection of an :class:`~twisted_registry.http.site.HTTPSite`.

    :ivar site: the factory, by the name that twisted.web's Request uses; ``factory`` is the same.
    :ivar clock: the site's IReactorTime.
    :ivar peer: the client's address.
    :ivar host: the server's address.
    :ivar secure: whether the transport is TLS.
    :ivar output: sends bytes and files.
    :ivar request: the request that is being answered, or None.
    :ivar deadline: when :meth:`deadline_expired` is due, in seconds of the clock.
    :ivar closing: whether no further request is started.
    """

    # Set when the connection is made.
    peer: Any
    host: Any
    secure: bool
    output: Output
    _transport: Any  # ``transport``, which is None before that

    def __init__(self, site: HTTPSite) -> None:
        self.site = self.factory = site
        self.clock = site.clock
        self._limits = site.limits
        # Requests
        self._parser = RequestParser(site.limits, site.head_cache)
        self._events = self._parser.events
        self._processing_events = False
        self.request: StreamingRequest | None = None
        self._head: RequestHead | None = None  # of the last request that was started
        # The body of a request
        self._body: IncomingBody | None = None
        self._body_rate: MinimumRate | None = None
        self._expects_continue = False
        self._reading = True
        self._read_bytes = 0  # the size of a read
        self._last_read_was_large = False
        self._direct_read: DirectRead | None = None  # a thread reads the socket
        self._discarded_bytes = 0  # received after the last request
        # The response
        self._keep_alive = True
        self._unsent_head = b""  # sent together with the first part of the body
        self._unsent_body_bytes: int | None = None  # of the declared length; None if not declared
        self._self_delimited = True  # or else it ends where the connection ends
        # The deadline
        self.deadline = math.inf
        self._waiting_for = WAIT_NONE
        self._timeouts_s: tuple[float, ...] = ()
        # Closing. The last four become true in this order; ``abort`` sets all but the last.
        self._read_closed = False  # the peer has closed its sending side
        self._linger = False  # the peer may still send: it gets time to read the response
        self.closing = False
        self._close_requested = False  # close when everything written has been sent
        self._write_closed = False  # everything has been sent
        self._disconnecting = False  # the transport is closing

    # Called by the transport

    def connectionMade(self) -> None:
        """Set up the output, and wait for a request."""
        transport: Any = self.transport
        self._transport = transport
        self.peer = transport.getPeer()
        self.host = transport.getHost()
        self.secure = ISSLTransport.providedBy(transport)
        on_ip = isinstance(self.peer, IPv4Address | IPv6Address)
        if on_ip and ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self.output = make_output(
            transport, self.clock, self._progressed, self._drained, self.site.tls_send_slots
        )
        self._set_read_size(_HEAD_READ_BYTES)
        self._timeouts_s = timeouts(self._limits, is_plain_socket=self.output.is_plain_socket)
        self._update_deadline()
        self.site.connection_opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Parse everything, then act on it."""
        if self._parser.stopped:
            self._discard(len(data))
            return
        self._last_read_was_large = len(data) >= DIRECT_READ_MIN_BYTES
        self._parser.feed(data)
        self.process_events()

    def readConnectionLost(self) -> None:
        """Handle the end of the peer's data: it may wait for a response, or have left."""
        self._read_closed = True
        body, head = self._body, self._head
        if self.closing:
            if self._write_closed:
                self._transport.loseConnection()
        elif self.output.is_peer_gone() or (
            body is not None and head is not None and not head.complete
        ):
            self.abort()
        else:
            self.process_events()

    def writeConnectionLost(self) -> None:
        """Do nothing: this side has closed its sending side itself."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the request, its body and its files, and leave the site."""
        if self.transport is None:
            # A TLS handshake can fail before ``connectionMade``.
            return
        self.closing = True
        self.deadline = math.inf
        self._parser.close()
        self.site.connection_closed(self)
        self._fail_request(reason)
        self.output.connection_lost(reason)

    # Requests

    def process_events(self) -> None:
        """Act on all waiting events that can be acted on now."""
        if self._processing_events:
            return
        self._processing_events = True
        progressed = False
        try:
            while self._events and self._process_event(self._events[0]):
                progressed = True
        finally:
            self._processing_events = False
        if self.closing:
            return
        if self._read_closed and self.request is None and not self.output.pending:
            self._close_when_sent(linger=False)
            return
        if self._body is not None:
            self._prepare_for_body()
            if self._last_read_was_large:
                self._start_direct_read()
        self._update_reading()
        self._update_deadline(progressed=progressed)

    def _process_event(self, event: RequestHead | bytes | ParseError | object) -> bool:
        """Act on the first event. Returns False if it has to wait."""
        body = self._body
        if isinstance(event, bytes):
            if self.request is None:
                # Answered without its body; ``_can_keep_alive`` has checked that the rest is small.
                self._events.popleft()
            elif body is not None and body.accepts_data:
                self._events.popleft()
                body.deliver(event)
            else:
                return False
        elif event is END_OF_BODY:
            self._events.popleft()
            self._body = self._body_rate = None
            self._set_read_size(_HEAD_READ_BYTES)
            if body is not None:
                body.end()
        elif isinstance(event, ParseError) and self.request is not None and body is not None:
            # The framing broke inside the body of this request.
            self._count_limit(event.limit)
            self.refuse_request(event.status)
        elif self.request is not None or self.output.pending:
            return False
        elif isinstance(event, ParseError):
            self._count_limit(event.limit)
            self._refuse(event.status)
        else:
            self._begin_request(self._events.popleft())
        return True

    def _begin_request(self, head: Any) -> None:
        if self._read_closed and not head.complete:
            self._close_when_sent(linger=False)
            return
        self._head = head
        request = self.request = StreamingRequest(self, head)
        self._expects_continue = head.expects_continue
        if head.length != 0:
            self._body = request.body
            if limit := self._limits.body_bytes_per_second:
                self._body_rate = MinimumRate(limit, self._limits.body_seconds)
        self.site.begin_request(request)

    def requestDone(self, request: StreamingRequest) -> None:
        """Begin the next request or close, after a response was written completely."""
        if request is not self.request:
            return
        self.request = None
        head, body = self._head, self._body
        assert head is not None
        if self._unsent_body_bytes:
            log.error(
                "Response shorter than its length: request={request}",
                request=describe_request(request),
            )
            self.abort()
        elif not self._keep_alive or self.site.draining:
            self._close_when_sent(
                linger=not head.complete or bool(self._events or self._discarded_bytes)
            )
        if body is not None:
            body.abort(Failure(BodyAborted("the request has been answered")))
        if not self._processing_events:
            self.process_events()

    def refuse_request(self, status: int) -> None:
        """Answer the current request with an error and close. The request fails."""
        request = self.request
        if request is None:
            return
        request.setResponseCode(status)
        self._stop_parsing()
        self._fail_request(Failure(BodyAborted("the request was refused")))
        if request.startedWriting:
            self.abort()
        else:
            self._refuse(status, request.method, request.request_id)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Called by twisted.web's Request if a form cannot be decoded.
        self.refuse_request(HTTPStatus.BAD_REQUEST)

    def _refuse(self, status: int, method: bytes = b"", request_id: str = "") -> None:
        """Respond without a request, or in place of one, and close."""
        if not request_id:
            request_id = choose_request_id(None)
            log.debug(
                "refused what is not a valid request: status={status}",
                status=int(status),
                **{REQUEST_ID_FIELD: request_id, "http.request.remoteaddr": host_of(self.peer)},
            )
        self.output.write(
            error_response(method, status, self.site.date(), request_id, self.site.make_error_body)
        )
        self._close_when_sent(linger=True)

    def _count_limit(self, name: str | None) -> None:
        if name is not None:
            self.site.on_limit(name)

    def _fail_request(self, reason: Failure) -> None:
        """Fail the current request, if there is one, and its body."""
        request, self.request = self.request, None
        body, self._body = self._body, None
        self._body_rate = None
        if request is not None:
            request.connectionLost(reason)
        if body is not None:
            body.abort(Failure(BodyAborted("the client left before the end of the body")))

    # The body of a request

    def _prepare_for_body(self) -> None:
        """Send ``100 Continue`` and enlarge reads for a body that the application wants."""
        body, head = self._body, self._head
        if body is None or head is None or not body.accepts_data:
            return
        if self._expects_continue:
            self._expects_continue = False
            request = self.request
            if head.body_bytes_read == 0 and request is not None and not request.startedWriting:
                self.output.write(CONTINUE)
        if head.length is None or head.length > _SMALL_BODY_BYTES:
            self._set_read_size(_BODY_READ_BYTES)
        elif head.length > _HEAD_READ_BYTES:
            self._set_read_size(_SMALL_BODY_BYTES)

    def _set_read_size(self, size: int) -> None:
        if size != self._read_bytes and self.output.supports_direct_io:
            self._read_bytes = size
            # TLS allocates what a record has; few records in a read would only be slower.
            is_plain = self.output.is_plain_socket
            self._transport.bufferSize = size if is_plain else max(size, _SMALL_BODY_BYTES)

    def _start_direct_read(self) -> None:
        """Let the consumer of the body read from the socket, if that is worth a thread."""
        body, head = self._body, self._head
        if (
            body is None
            or head is None
            or head.length is None
            or not self.output.supports_direct_io
            or self._direct_read is not None
            or self._events
            or not body.accepts_data
            or (left := head.length - head.body_bytes_read) < DIRECT_READ_MIN_BYTES
        ):
            return
        self._last_read_was_large = False
        append_from = body.append_from
        if append_from is None:
            return
        source = self.output.open_direct_read()
        if source is None:
            return
        direct_read = DirectRead(source, left)
        ended = append_from(direct_read)
        if ended is None:
            direct_read.close()
            return
        self._direct_read = direct_read
        ended.addCallback(self._direct_read_ended, direct_read)

    def _direct_read_ended(self, _: None, direct_read: DirectRead) -> None:
        self._direct_read = None
        direct_read.close()
        if not self._parser.stopped:
            self._parser.skip_body(direct_read.bytes_read)
            self._update_deadline(progressed=True)
            self.process_events()

    def _update_reading(self) -> None:
        """Read the socket, or stop reading it."""
        body = self._body
        paused = body is not None and body.started and not (body.finished or body.accepts_data)
        should_read = (
            not (self._events or paused or self._read_closed or self._direct_read is not None)
            and self._discarded_bytes <= self._limits.linger_bytes
        )
        if should_read is not self._reading:
            self._reading = should_read
            if should_read:
                self._transport.resumeProducing()
            else:
                self._transport.pauseProducing()

    def _discard(self, amount: int) -> None:
        """Count bytes that were received after the last request."""
        self._discarded_bytes += amount
        if self._discarded_bytes <= self._limits.linger_bytes:
            return
        if self._write_closed:
            self._transport.loseConnection()
        else:
            self._update_reading()

    # Responses, as twisted.web's Request and StreamingRequest write them

    def isSecure(self) -> bool:
        """Return whether the transport is TLS."""
        return self.secure

    @cached_property
    def direct_client(self) -> ClientInfo:
        """The client of requests without headers of proxies."""
        hops = socket_hops(self._transport)
        return self.site.trusted_proxies.describe_client(hops, {}, lambda _: ())

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers | Iterable[Any]
    ) -> None:
        """Take the head of a response, and decide whether another may follow."""
        del version
        request = self.request
        assert request is not None
        head = ResponseHead(request.method, code, reason, headers, request.request_id)
        self._unsent_body_bytes = head.length
        self._self_delimited = head.framed or bool(request.chunked)
        self._keep_alive = self._can_keep_alive() and not head.close
        self._unsent_head = head.render(closing=not self._keep_alive)

    def flush_head(self) -> None:
        """Send the head if no part of the body follows for now."""
        if self._unsent_head:
            self.write(b"")

    def write(self, data: bytes) -> None:
        """Send a part of the body of a response."""
        if self._count_sent(len(data)) and not self.closing:
            head, self._unsent_head = self._unsent_head, b""
            self.output.write(head + data)

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Send several parts of the body of a response."""
        self.write(b"".join(parts))

    def make_response_head(self, status: int, reason: bytes, fields: bytes, length: int) -> bytes:
        """Return the head of a complete response, and decide whether another may follow.

        :param fields: encoded header fields, each with its line break.
        :param length: Content-Length; bytes that are written afterwards are checked against it.
        """
        self._unsent_body_bytes, self._self_delimited = length, True
        self._keep_alive = self._can_keep_alive()
        request = self.request
        assert request is not None
        fields += request_id_field(request.request_id)
        return response_head(
            status, reason, self.site.date(), fields, length, closing=not self._keep_alive
        )

    def send_response(
        self, status: int, reason: bytes, fields: bytes, body: bytes, length: int | None
    ) -> None:
        """Send a complete response, head and body in one piece.

        :param fields: encoded header fields, each with its line break.
        :param length: Content-Length of a response without a body; None for that of ``body``.
        """
        head = self.make_response_head(
            status, reason, fields, len(body) if length is None else length
        )
        self._unsent_body_bytes = None
        if not self.closing:
            self.output.write(head + body)

    def send_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send the result of :meth:`make_response_head`, and all of its body from a file.

        Only on an output with ``supports_direct_io``.

        :returns: None if everything has been sent; otherwise a Deferred that fires then.
        """
        if self.closing:
            return fail(ConnectionAborted())
        self._unsent_body_bytes = None
        output: Any = self.output
        sent: Deferred[None] | None = output.send_file(head, descriptor, offset, length)
        return sent

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Pause and resume ``producer`` as the peer accepts data."""
        self.output.register_producer(producer, streaming=streaming)

    def unregisterProducer(self) -> None:
        """Detach the producer."""
        self.output.unregister_producer()

    def _can_keep_alive(self) -> bool:
        """Return whether another request can follow the response that begins now."""
        head = self._head
        assert head is not None
        if self.site.draining or not head.keep_alive or (self._read_closed and not self._events):
            return False
        if head.complete:
            return True
        if head.length is None or (self._expects_continue and head.body_bytes_read == 0):
            # The length of the rest is unknown, or the client may or may not send the body.
            return False
        return head.length - head.body_bytes_read <= self._limits.linger_bytes

    def _count_sent(self, amount: int) -> bool:
        """Return whether so many bytes fit into the declared length, or abort."""
        if self._unsent_body_bytes is not None:
            self._unsent_body_bytes -= amount
            if self._unsent_body_bytes < 0:
                log.error(
                    "Response longer than its length: request={request}",
                    request=self.request,
                )
                self._unsent_body_bytes = None
                self.abort()
                return False
        return True

    # Called by the output

    def _progressed(self) -> None:
        self._update_deadline(progressed=True)

    def _drained(self) -> None:
        if not self.closing:
            self.process_events()
        elif self._close_requested and not self._write_closed:
            self._close_write_side()

    # The deadline

    def _current_wait(self) -> int:
        if self._write_closed:
            return WAIT_CLOSE
        if self.output.pending:
            return WAIT_OUTPUT
        request, body = self.request, self._body
        if (
            body is not None
            and self._direct_read is None
            and (request is None or body.accepts_data)
        ):
            return WAIT_BODY
        if request is None:
            return WAIT_HEAD if self._parser.in_head else WAIT_IDLE
        return WAIT_HALF_CLOSED if self._read_closed and not request.startedWriting else WAIT_NONE

    def _update_deadline(self, *, progressed: bool = False) -> None:
        """Set the deadline anew if there is progress, or something else to wait for."""
        waiting = self._current_wait()
        if progressed or waiting != self._waiting_for:
            self._waiting_for = waiting
            now = self.clock.seconds()
            self.deadline = now + self._timeouts_s[waiting]
            rate, head = self._body_rate, self._head
            if rate is not None and head is not None:
                left = rate.update(now, head.body_bytes_read, waiting=waiting == WAIT_BODY)
                if waiting == WAIT_BODY:
                    self.deadline = min(self.deadline, now + left)

    def deadline_expired(self) -> None:
        """Give up waiting. Called by the site once the deadline has passed."""
        waiting, self._waiting_for = self._waiting_for, WAIT_NONE
        self.deadline = math.inf
        self._count_limit(LIMITS_BY_WAIT.get(waiting))
        if waiting == WAIT_HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif waiting == WAIT_BODY and self.request is not None:
            self.refuse_request(HTTPStatus.REQUEST_TIMEOUT)
        elif waiting == WAIT_IDLE:
            self._close_when_sent(linger=False)
        elif waiting == WAIT_CLOSE and not self._disconnecting:
            self._disconnecting = True
            self._transport.loseConnection()
            self._update_deadline()
        else:
            self.abort()

    # Closing

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered, or its response is being sent."""
        return not self._write_closed and (
            self.request is not None
            or self.output.pending
            or self._parser.in_head
            or bool(self._events)
        )

    @property
    def is_new(self) -> bool:
        """Whether no byte of a first request has arrived."""
        return self._head is None and self._waiting_for == WAIT_IDLE and not self._write_closed

    @property
    def idle_since(self) -> float:
        """When the connection began to wait for a request, for the rest of its head, or to close.

        In seconds of the clock; infinite while a request is answered.
        """
        waiting = self._waiting_for
        if waiting in IDLE_WAITS and (waiting != WAIT_CLOSE or self._disconnecting):
            return self.deadline - self._timeouts_s[waiting]
        return math.inf

    def evict(self) -> None:
        """Close an idle connection now, without waiting for the peer."""
        self.close_if_idle()
        self.disconnect()

    def close_if_idle(self) -> None:
        """Close unless the connection is busy; then it closes after its response."""
        if not self.busy:
            self._close_when_sent(linger=self._body is not None)

    def loseConnection(self) -> None:
        """Close once everything written has been sent."""
        request = self.request
        if request is not None and request.startedWriting and not self._self_delimited:
            self.abort()
        else:
            self._close_when_sent(linger=False)

    def abort(self) -> None:
        """Reset the connection, so that the client does not take a part for the whole."""
        self._stop_parsing()
        self._close_requested = self._write_closed = True
        self._transport.abortConnection()
        self.site.connection_idle()

    def disconnect(self) -> None:
        """Close now. Complete responses still reach the client; other ones are reset."""
        if not self._write_closed:
            self.abort()
        elif self._linger and not self._disconnecting:
            pass  # closing now would keep a client that still sends from reading the response
        elif self.output.is_plain_socket:
            self._transport.loseConnection()
        else:
            # The transport below TLS has everything, and does not wait for the peer's close_notify.
            secure = ITLSConnection(self._transport, None)
            below = getattr(self._transport, "transport", None) or self._transport
            (below.loseConnection if secure is None else secure.hangUp)()

    def _stop_parsing(self) -> None:
        self.closing = True
        self._parser.stopped = True
        self._parser.in_head = False
        self._events.clear()

    def _close_when_sent(self, *, linger: bool) -> None:
        """Start no further request, and close when everything written has been sent.

        :param linger: whether the client may still send, and must be able to read the response.
        """
        if self._close_requested:
            return
        self._stop_parsing()
        self._close_requested = True
        self._linger = linger
        if self.output.pending:
            self._update_deadline()
        else:
            self._close_write_side()

    def _close_write_side(self) -> None:
        """Close the sending side after everything was sent, and wait for the peer to close."""
        self._write_closed = True
        self.output.close()
        if not self._reading and not self._read_closed:
            self._reading = True
            self._transport.resumeProducing()
        if self._linger and self.output.is_plain_socket and not self._read_closed:
            self._transport.loseWriteConnection()
        else:
            # Over TLS this sends close_notify, and waits for that of the peer.
            self._disconnecting = True
            self._transport.loseConnection()
        self._update_deadline()
        self.site.connection_idle()
