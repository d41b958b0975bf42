"""One HTTP/1.1 connection: requests in order, one at a time, and a definite end.

The parser (:mod:`twisted_registry.api.parser`) turns bytes into events, which wait here until
their turn comes; the socket is not read while some wait, which is all the back-pressure there
is. The output (:mod:`twisted_registry.api.output`) sends. Between them stands this module: it
starts requests and hands them their bodies. It rests on two others, in one object because each
call between objects would be felt: :mod:`twisted_registry.api.answering` frames answers, and
:mod:`twisted_registry.api.ending` keeps the times, and closes.

Where the end of a request is in doubt, so is all that follows: the connection closes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.api.answering import AnsweringConnection
from twisted_registry.api.framing import CONTINUE
from twisted_registry.api.head import RequestHead, ShownHead
from twisted_registry.api.interfaces import BodyAborted
from twisted_registry.api.lending import DIRECT_READ_MIN_BYTES, DirectRead
from twisted_registry.api.opening import make_output
from twisted_registry.api.parser import END_OF_BODY, ParseError
from twisted_registry.api.request import StreamingRequest, ShowingRequest

if TYPE_CHECKING:
    from twisted_registry.api.site import HTTPSite

log = Logger()

# A large body comes in large reads: fewer calls, and pieces that are worth a thread's while.
_BODY_READ_BYTES = 1024 * 1024


@implementer(IHalfCloseableProtocol)
class HTTPConnection(AnsweringConnection):
    """See the module. Built by :class:`~twisted_registry.api.site.HTTPSite`.

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
        elif self.output.is_peer_gone() or (body is not None and head is not None and not head.complete):
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
            self._close_when_sent(linger=not head.complete or bool(self._events or self._discarded_bytes))
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
            self._transport.bufferSize = _BODY_READ_BYTES if large else type(self._transport).bufferSize

    def _start_direct_read(self) -> None:
        """Let the body's consumer read the socket by itself, if that is worth a thread."""
        body, head = self._body, self._head
        if body is None or head is None or head.length is None or not self.output.supports_direct_read:
            return
        left = head.length - head.body_bytes_read
        if self._direct_read is not None or self._events or not body.wanted or left < DIRECT_READ_MIN_BYTES:
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
