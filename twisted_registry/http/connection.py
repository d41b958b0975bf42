"""What a connection waits for, how long, and how it ends.

A peer that still sends when we close gets to read our answer first (RFC 9112 section 9.6). A
request whose connection is lost, stalls or breaks the framing hears of it once, in
``notifyFinish``, in its body's Deferred and in that of a file being sent.

How a connection sends an answer, and knows whether another may follow.

An answer is complete or visibly broken: if its Content-Length can not be kept, or anything
fails after its first byte, the connection is reset.

Which output fits a transport.

One HTTP/1.1 connection: requests in order, one at a time, and a definite end.

The parser (:mod:`twisted_registry.http.parser`) turns bytes into events, which wait here until
their turn comes; the socket is not read while some wait, which is all the back-pressure there
is. The output (:mod:`twisted_registry.http.output`) sends. Between them stands this module: it
starts requests and hands them their bodies. It rests on two others, in one object because each
call between objects would be felt: :mod:`twisted_registry.http.connection` frames answers, and
:mod:`twisted_registry.http.connection` keeps the times, and closes.

Where the end of a request is in doubt, so is all that follows: the connection closes.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import fail
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IReactorThreads,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.body import DIRECT_READ_MIN_BYTES, DirectRead
from twisted_registry.http.framing import CONTINUE, ResponseHead, error_response, response_head
from twisted_registry.http.interfaces import BodyAborted
from twisted_registry.http.output import Output, TransportOutput
from twisted_registry.http.parser import (
    END_OF_BODY,
    ParseError,
    RequestHead,
    RequestParser,
    ShownHead,
)
from twisted_registry.http.request import ShowingRequest, StreamingRequest
from twisted_registry.http.socket_output import SocketOutput
from twisted_registry.http.tls_output import TLSOutput
from twisted_registry.tls.interfaces import ITLSConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred, DeferredSemaphore
    from twisted.internet.interfaces import IReactorTime
    from twisted.web.http_headers import Headers

    from twisted_registry.http.body import IncomingBody
    from twisted_registry.http.site import HTTPSite

# Who is waited for: nobody but the application, or the peer, to send or to take something.
_WAIT_NONE, _WAIT_HEAD, _WAIT_IDLE, _WAIT_BODY, _WAIT_OUTPUT, _WAIT_HALF_CLOSED, _WAIT_CLOSE = (
    range(7)
)


class MortalConnection(Protocol):
    """See the module. What :class:`~twisted_registry.http.connection.HTTPConnection` rests on.

    :ivar site: the factory, under the name that twisted.web's Request uses.
    :ivar request: the request that is being answered, or None.
    :ivar deadline: when :meth:`deadline_expired` is due, in seconds of the clock.
    :ivar closing: whether no further request is started.
    """

    output: Output
    _transport: Any

    def __init__(self, site: HTTPSite) -> None:
        self.site = self.factory = site
        self.clock = site.clock
        self.request: StreamingRequest | None = None
        self.deadline = math.inf
        self.closing = False
        self._limits = site.limits
        self._parser = RequestParser(site.limits, site.heads)
        self._events = self._parser.events
        self._head: RequestHead | None = None
        self._body: IncomingBody | None = None
        self._direct_read: DirectRead | None = None  # who has it reads the socket, and we do not
        self._waiting_for = _WAIT_NONE
        self._timeouts_s: tuple[float, ...] = ()
        self._reading = True
        self._read_closed = False  # the peer sends no more
        self._close_requested = False  # after what has been written, nothing will be
        self._linger = False
        self._write_closed = False  # and it has been sent, and the peer been told
        self._disconnecting = False

    def _set_timeouts(self) -> None:
        """Know how long to wait for each, now that there is an output."""
        limits = self._limits
        self._timeouts_s = (
            math.inf,
            limits.header_seconds,
            limits.idle_seconds,
            limits.body_seconds,
            limits.body_seconds,
            limits.half_closed_seconds,
            # What a socket has taken it delivers without us; other transports still need us.
            limits.linger_seconds if self.output.is_plain_socket else limits.body_seconds,
        )

    def _update_deadline(self, *, progressed: bool = False) -> None:
        """Set the deadline, if what is waited for has changed or moved."""
        waiting = self._current_wait()
        if progressed or waiting != self._waiting_for:
            self._waiting_for = waiting
            self.deadline = self.clock.seconds() + self._timeouts_s[waiting]

    def _current_wait(self) -> int:
        if self._write_closed:
            return _WAIT_CLOSE
        if self.output.pending:
            return _WAIT_OUTPUT
        request, body = self.request, self._body
        if body is not None and self._direct_read is None and (request is None or body.wanted):
            return _WAIT_BODY
        if request is None:
            return _WAIT_HEAD if self._parser.in_head else _WAIT_IDLE
        return _WAIT_HALF_CLOSED if self._read_closed and not request.startedWriting else _WAIT_NONE

    def deadline_expired(self) -> None:
        """The deadline has passed."""
        waiting, self._waiting_for = self._waiting_for, _WAIT_NONE
        self.deadline = math.inf
        if waiting == _WAIT_HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif waiting == _WAIT_BODY and self.request is not None:
            self.refuse_request(HTTPStatus.REQUEST_TIMEOUT)
        elif waiting == _WAIT_IDLE:
            self._close_when_sent(linger=False)
        elif waiting == _WAIT_CLOSE and not self._disconnecting:
            self._disconnecting = True
            self._transport.loseConnection()
            self._update_deadline()
        else:
            self.abort()

    # What the site calls

    @property
    def busy(self) -> bool:
        """Whether an answer is owed, or on its way."""
        return not self._write_closed and (
            self.request is not None
            or self.output.pending
            or self._parser.in_head
            or bool(self._events)
        )

    def drain(self) -> None:
        """No further request is wanted: close now if none is under way."""
        if not self.busy:
            self._close_when_sent(linger=self._body is not None)

    def disconnect(self) -> None:
        """The server ends: what has been answered reaches its client, and all else is reset."""
        if not self._write_closed:
            self.abort()
        elif self._linger and not self._disconnecting:
            pass  # the peer still sends, and would not read our answer if we closed
        elif self.output.is_plain_socket:
            self._transport.loseConnection()
        else:
            # What is below TLS has all of it, and does not wait for the peer to say goodbye.
            secure = ITLSConnection(self._transport, None)
            below = getattr(self._transport, "transport", None) or self._transport
            (below.loseConnection if secure is None else secure.hangUp)()

    # What a Request calls

    def refuse_request(self, status: int) -> None:
        """Take the answer out of the request's hands. It hears that its client is gone."""
        request = self.request
        if request is None:
            return
        request.setResponseCode(status)
        self._stop_parsing()
        self._fail_request(Failure(BodyAborted("the request was refused")))
        if request.startedWriting:
            self.abort()
        else:
            self._refuse(status, request.method)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # twisted.web's Request calls this when a form can not be decoded
        self.refuse_request(HTTPStatus.BAD_REQUEST)

    def abort(self) -> None:
        """Reset the connection: what was sent must not be taken for the whole."""
        self._stop_parsing()
        self._close_requested = self._write_closed = True
        self.output.take_corked()
        self._transport.abortConnection()
        self.site.connection_idle()

    # Steps

    def _refuse(self, status: int, method: bytes = b"") -> None:
        """Answer what is not, or no longer, a request; then close."""
        self.output.write(error_response(method, status, self.site.date()))
        self._close_when_sent(linger=True)

    def _fail_request(self, reason: Failure) -> None:
        """Tell the request, if there is one, that nobody waits for it any more."""
        request, self.request = self.request, None
        body, self._body = self._body, None
        if request is not None:
            request.connectionLost(reason)
        if body is not None:
            body.abort(Failure(BodyAborted("the client left before the end of the body")))

    def _stop_parsing(self) -> None:
        self.closing = True
        self._parser.stopped = True
        self._parser.in_head = False
        self._events.clear()

    def _close_when_sent(self, *, linger: bool) -> None:
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
        """Everything has been sent: say so, and wait for the peer to take note."""
        self._write_closed = True
        self.output.close()
        if not self._reading and not self._read_closed:
            self._reading = True
            self._transport.resumeProducing()
        if self._linger and self.output.is_plain_socket and not self._read_closed:
            self._transport.loseWriteConnection()
        else:
            # over TLS this closes our side only, and waits for the peer's
            self._disconnecting = True
            self._transport.loseConnection()
        self._update_deadline()
        self.site.connection_idle()


log = Logger()


class AnsweringConnection(MortalConnection):
    """What a Request calls to send its answer; see the module."""

    def __init__(self, site: HTTPSite) -> None:
        super().__init__(site)
        self._keep_alive = True
        self._unsent_body_bytes: int | None = None  # bytes of the answer still to come
        self._self_delimited = True
        self._expects_continue = False

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers | Iterable[Any]
    ) -> None:
        """Send the head of an answer, and decide whether another may follow."""
        del version
        request = self.request
        assert request is not None
        head = ResponseHead(request.method, code, reason, headers)
        self._unsent_body_bytes = head.length
        # Or else only the end of the connection says where the answer ends.
        self._self_delimited = head.framed or bool(request.chunked)
        self._keep_alive = self._can_keep_alive() and not head.close
        if not self.closing:
            self.output.write(head.render(closing=not self._keep_alive))

    def write(self, data: bytes) -> None:
        """Send a part of an answer's body."""
        if self._count_sent(len(data)) and not self.closing:
            self.output.write(data)

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Send several parts."""
        self.write(b"".join(parts))

    def send_response(
        self, status: int, reason: bytes, fields: bytes, body: bytes, length: int | None
    ) -> None:
        """Send a whole answer, head and body in one piece.

        :param length: Content-Length of an answer without a body; None for that of ``body``.
        """
        said = len(body) if length is None else length
        head = self.make_response_head(status, reason, fields, said)
        self._unsent_body_bytes = None
        if not self.closing:
            self.output.write(head + body)

    def make_response_head(self, status: int, reason: bytes, fields: bytes, length: int) -> bytes:
        """The head of an answer whose fields are ready, and decide whether another may follow."""
        self._unsent_body_bytes, self._self_delimited = length, True
        self._keep_alive = self._can_keep_alive()
        return response_head(
            status, reason, self.site.date(), fields, length, closing=not self._keep_alive
        )

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send a range of a file. Only on an output that sends files."""
        output: Any = self.output
        assert output.sends_files
        if self.closing or not self._count_sent(length):
            return fail(ConnectionAborted())
        sent: Deferred[None] = output.send_file(descriptor, offset, length)
        return sent

    def send_head_and_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send what :meth:`make_response_head` made, and a range of a file.

        Only on an output that sends files.

        :returns: None if all has been sent.
        """
        if self.closing:
            return fail(ConnectionAborted())
        output: Any = self.output
        assert output.sends_files
        self._unsent_body_bytes = None
        sent: Deferred[None] | None = output.send_head_and_file(head, descriptor, offset, length)
        return sent

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Pause and resume ``producer`` as the peer takes what it writes."""
        self.output.register_producer(producer, streaming=streaming)

    def unregisterProducer(self) -> None:
        """The producer has written everything."""
        self.output.unregister_producer()

    def loseConnection(self) -> None:
        """Close once everything written has been sent."""
        request = self.request
        if request is not None and request.startedWriting and not self._self_delimited:
            self.abort()
        else:
            self._close_when_sent(linger=False)

    def _can_keep_alive(self) -> bool:
        """Whether another request can follow the answer that begins now."""
        head = self._head
        assert head is not None
        if self.site.draining or not head.keep_alive or (self._read_closed and not self._events):
            return False
        if head.complete:
            return True
        if head.length is None or (self._expects_continue and head.body_bytes_read == 0):
            # The end is not in sight; or the client may or may not send the body.
            return False
        return head.length - head.body_bytes_read <= self._limits.linger_bytes

    def _count_sent(self, amount: int) -> bool:
        """Whether that much still fits into what the head said."""
        if self._unsent_body_bytes is not None:
            self._unsent_body_bytes -= amount
            if self._unsent_body_bytes < 0:
                log.error("{request} was answered with more than it said", request=self.request)
                self._unsent_body_bytes = None
                self.abort()
                return False
        return True


def make_output(
    transport: Any,
    clock: IReactorTime,
    progressed: Callable[[], None],
    drained: Callable[[], None],
    tls_send_slots: DeferredSemaphore,
) -> Output:
    """The output that fits a transport.

    A wrapped transport hands out the socket below it, which is not where its bytes belong: only
    Twisted's own connections are sent to directly.

    :param turns: of the threads that send files over TLS.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return SocketOutput(transport, clock, progressed, drained)
    if ITLSConnection.providedBy(transport) and IReactorThreads.providedBy(clock):
        return TLSOutput(transport, clock, progressed, drained, tls_send_slots)
    return TransportOutput(transport, clock, progressed, drained)


# A large body comes in large reads: fewer calls, and pieces that are worth a thread's while.
_BODY_READ_BYTES = 1024 * 1024


@implementer(IHalfCloseableProtocol)
class HTTPConnection(AnsweringConnection):
    """See the module. Built by :class:`~twisted_registry.http.site.HTTPSite`.

    :ivar peer: the client's address.
    :ivar here: our address.
    :ivar secure: whether the transport is TLS.
    """

    def __init__(self, site: HTTPSite) -> None:
        super().__init__(site)
        self._large_reads = False
        self._last_read_large = False  # the last read was large: there is more where it came from
        self._processing_events = False
        self._discarded_bytes = 0

    # What the transport calls

    def connectionMade(self) -> None:
        """Begin to wait for a request."""
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
        self._set_timeouts()
        self.site.connection_opened(self)
        self._update_deadline()

    def dataReceived(self, data: bytes) -> None:
        """Read everything, then act on it."""
        if self._parser.stopped:
            self._discard(len(data))
            return
        self._last_read_large = len(data) >= DIRECT_READ_MIN_BYTES
        self._parser.feed(data)
        self.process_events()

    def readConnectionLost(self) -> None:
        """The peer will send no more; it may be waiting for an answer, or be gone."""
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
        """We have said that we will send no more."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Everybody who waits for something from this connection hears that it is gone."""
        if self.transport is None:
            # TLS can fail before there is a connection to speak of.
            return
        self.closing = True
        self.deadline = math.inf
        self._parser.close()
        self.site.connection_closed(self)
        self._fail_request(reason)
        self.output.connection_lost(reason)

    # What a Request asks and tells

    def getPeer(self) -> Any:
        """The client's address."""
        return self.peer

    def getHost(self) -> Any:
        """Our address."""
        return self.host

    def isSecure(self) -> bool:
        """Whether the transport is TLS."""
        return self.secure

    def requestDone(self, request: StreamingRequest) -> None:
        """The answer has been written to its end: go on to the next request, or close."""
        if request is not self.request:
            return
        self.request = None
        head, body = self._head, self._body
        assert head is not None
        if self._unsent_body_bytes:
            log.error("{request} was answered with less than it said", request=request)
            self.abort()
        elif not self._keep_alive or self.site.draining:
            self._close_when_sent(
                linger=not head.complete or bool(self._events or self._discarded_bytes)
            )
        if body is not None:
            body.abort(Failure(BodyAborted("the request has been answered")))
        if not self._processing_events:
            self.process_events()

    # Order

    def process_events(self) -> None:
        """Do whatever can be done with the events that wait."""
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
            if self._last_read_large:
                self._start_direct_read()
        self._update_reading()
        self._update_deadline(progressed=progressed)

    def _process_event(self, event: RequestHead | ShownHead | bytes | ParseError | object) -> bool:
        """Act on the first event, unless it has to wait."""
        body = self._body
        if isinstance(event, bytes):
            if self.request is None:
                # Answered without it: _may_keep knows that the rest is small.
                self._events.popleft()
            elif body is not None and body.wanted:
                self._events.popleft()
                body.deliver(event)
            else:
                return False
        elif event is END_OF_BODY:
            self._events.popleft()
            self._body = None
            self._set_large_reads(large=False)
            if body is not None:
                body.end()
        elif isinstance(event, ParseError) and self.request is not None and body is not None:
            # The framing broke in the middle of this request's body.
            self.refuse_request(event.status)
        elif self.request is not None or self.output.pending:
            return False
        elif isinstance(event, ParseError):
            self._refuse(event.status)
        else:
            self._begin_request(self._events.popleft())
        return True

    def _begin_request(self, event: Any) -> None:
        showing = event if isinstance(event, ShownHead) else None
        head: RequestHead = event if showing is None else showing.head
        if self._read_closed and not head.complete:
            self._close_when_sent(linger=False)
            return
        self._head = head
        kind = StreamingRequest if showing is None else ShowingRequest
        request = self.request = kind(self, head, showing)
        self._expects_continue = head.expects_continue
        if head.length != 0:
            self._body = request.body
        request.begin()

    # Reading

    def _prepare_for_body(self) -> None:
        """Prepare for a body that somebody has asked for."""
        body, head = self._body, self._head
        if body is None or head is None or not body.wanted:
            return
        if self._expects_continue:
            self._expects_continue = False
            request = self.request
            if head.body_bytes_read == 0 and request is not None and not request.startedWriting:
                self.output.write(CONTINUE)
        if head.length is None or head.length > _BODY_READ_BYTES // 16:
            self._set_large_reads(large=True)

    def _set_large_reads(self, *, large: bool) -> None:
        if large is not self._large_reads and self.output.supports_direct_read:
            self._large_reads = large
            self._transport.bufferSize = (
                _BODY_READ_BYTES if large else type(self._transport).bufferSize
            )

    def _start_direct_read(self) -> None:
        """Let the body's consumer read the socket by itself, if that is worth a thread."""
        body, head = self._body, self._head
        if (
            body is None
            or head is None
            or head.length is None
            or not self.output.supports_direct_read
        ):
            return
        left = head.length - head.body_bytes_read
        if (
            self._direct_read is not None
            or self._events
            or not body.wanted
            or left < DIRECT_READ_MIN_BYTES
        ):
            return
        self._last_read_large = False
        append_from = body.append_from()
        if append_from is None:
            return
        source = self.output.borrow()
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
            self._parser.skip_body(direct_read.taken)
            self._update_deadline(progressed=True)
            self.process_events()

    def _update_reading(self) -> None:
        body = self._body
        paused = body is not None and body.taken and not (body.over or body.wanted)
        wanted = (
            not (self._events or paused or self._read_closed or self._direct_read is not None)
            and self._discarded_bytes <= self._limits.linger_bytes
        )
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resumeProducing()
            else:
                self._transport.pauseProducing()

    def _discard(self, amount: int) -> None:
        """Bytes after the last request that we read."""
        self._discarded_bytes += amount
        if self._discarded_bytes <= self._limits.linger_bytes:
            return
        if self._write_closed:
            self._transport.loseConnection()
        else:
            self._update_reading()

    # What the output tells

    def _progressed(self) -> None:
        self._update_deadline(progressed=True)

    def _drained(self) -> None:
        if not self.closing:
            self.process_events()
        elif self._close_requested and not self._write_closed:
            self._close_write_side()
