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
from twisted_registry.api.head import Head, ShownHead
from twisted_registry.api.interfaces import BodyAborted
from twisted_registry.api.lending import PLENTY, Loan
from twisted_registry.api.opening import open_output
from twisted_registry.api.parser import END, Refusal
from twisted_registry.api.request import RegistryRequest, ShowingRequest

if TYPE_CHECKING:
    from twisted_registry.api.site import RegistrySite

log = Logger()

# A large body comes in large reads: fewer calls, and pieces that are worth a thread's while.
_BODY_READ = 1024 * 1024


@implementer(IHalfCloseableProtocol)
class RegistryChannel(AnsweringConnection):
    """See the module. Built by :class:`~twisted_registry.api.site.RegistrySite`.

    :ivar peer: the client's address.
    :ivar here: our address.
    :ivar secure: whether the transport is TLS.
    """

    def __init__(self, site: RegistrySite) -> None:
        super().__init__(site)
        self._large_reads = False
        self._plenty = False  # the last read was large: there is more where it came from
        self._advancing = False
        self._dropped = 0

    # What the transport calls

    def connectionMade(self) -> None:
        """Begin to wait for a request."""
        transport: Any = self.transport
        self._transport = transport
        self.peer = transport.getPeer()
        self.here = transport.getHost()
        self.secure = ISSLTransport.providedBy(transport)
        on_ip = isinstance(self.peer, IPv4Address | IPv6Address)
        if on_ip and ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self.output = open_output(
            transport, self.clock, self._moved, self._drained, self.site.turns
        )
        self._set_times()
        self.site.opened(self)
        self._watch()

    def dataReceived(self, data: bytes) -> None:
        """Read everything, then act on it."""
        if self._parser.stopped:
            self._drop(len(data))
            return
        self._plenty = len(data) >= PLENTY
        self._parser.feed(data)
        self.advance()

    def readConnectionLost(self) -> None:
        """The peer will send no more; it may be waiting for an answer, or be gone."""
        self._ended = True
        body, head = self._arriving, self._head
        if self.closing:
            if self._shut:
                self._transport.loseConnection()
        elif self.output.deaf() or (body is not None and head is not None and not head.complete):
            self.abort()
        else:
            self.advance()

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
        self.site.closed(self)
        self._leave(reason)
        self.output.lost(reason)

    # What a Request asks and tells

    def getPeer(self) -> Any:
        """The client's address."""
        return self.peer

    def getHost(self) -> Any:
        """Our address."""
        return self.here

    def isSecure(self) -> bool:
        """Whether the transport is TLS."""
        return self.secure

    def requestDone(self, request: RegistryRequest) -> None:
        """The answer has been written to its end: go on to the next request, or close."""
        if request is not self.request:
            return
        self.request = None
        head, body = self._head, self._arriving
        assert head is not None
        if self._expected:
            log.error("{request} was answered with less than it said", request=request)
            self.abort()
        elif not self._keep or self.site.draining:
            self._close(linger=not head.complete or bool(self._events or self._dropped))
        if body is not None:
            body.abort(Failure(BodyAborted("the request has been answered")))
        if not self._advancing:
            self.advance()

    # Order

    def advance(self) -> None:
        """Do whatever can be done with the events that wait."""
        if self._advancing:
            return
        self._advancing = True
        moved = False
        try:
            while self._events and self._step(self._events[0]):
                moved = True
        finally:
            self._advancing = False
        if self.closing:
            return
        if self._ended and self.request is None and not self.output.pending:
            self._close(linger=False)
            return
        if self._arriving is not None:
            self._ask_for_body()
            if self._plenty:
                self._lend()
        self._read_or_not()
        self._watch(moved=moved)

    def _step(self, event: Head | ShownHead | bytes | Refusal | object) -> bool:
        """Act on the first event, unless it has to wait."""
        body = self._arriving
        if isinstance(event, bytes):
            if self.request is None:
                # Answered without it: _may_keep knows that the rest is small.
                self._events.popleft()
            elif body is not None and body.wanted:
                self._events.popleft()
                body.deliver(event)
            else:
                return False
        elif event is END:
            self._events.popleft()
            self._arriving = None
            self._read_large(large=False)
            if body is not None:
                body.end()
        elif isinstance(event, Refusal) and self.request is not None and body is not None:
            # The framing broke in the middle of this request's body.
            self.refuse_request(event.status)
        elif self.request is not None or self.output.pending:
            return False
        elif isinstance(event, Refusal):
            self._refuse(event.status)
        else:
            self._begin(self._events.popleft())
        return True

    def _begin(self, event: Any) -> None:
        showing = event if isinstance(event, ShownHead) else None
        head: Head = event if showing is None else showing.head
        if self._ended and not head.complete:
            self._close(linger=False)
            return
        self._head = head
        kind = RegistryRequest if showing is None else ShowingRequest
        request = self.request = kind(self, head, showing)
        self._expects = head.expects
        if head.length != 0:
            self._arriving = request.body
        request.begin()

    # Reading

    def _ask_for_body(self) -> None:
        """Prepare for a body that somebody has asked for."""
        body, head = self._arriving, self._head
        if body is None or head is None or not body.wanted:
            return
        if self._expects:
            self._expects = False
            request = self.request
            if head.arrived == 0 and request is not None and not request.startedWriting:
                self.output.write(CONTINUE)
        if head.length is None or head.length > _BODY_READ // 16:
            self._read_large(large=True)

    def _read_large(self, *, large: bool) -> None:
        if large is not self._large_reads and self.output.lends:
            self._large_reads = large
            self._transport.bufferSize = _BODY_READ if large else type(self._transport).bufferSize

    def _lend(self) -> None:
        """Let the body's consumer read the socket by itself, if that is worth a thread."""
        body, head = self._arriving, self._head
        if body is None or head is None or head.length is None or not self.output.lends:
            return
        left = head.length - head.arrived
        if self._loan is not None or self._events or not body.wanted or left < PLENTY:
            return
        self._plenty = False
        draw = body.draw()
        if draw is None:
            return
        source = self.output.borrow()
        if source is None:
            return
        loan = Loan(source, left)
        drawn = draw(loan)
        if drawn is None:
            loan.close()
            return
        self._loan = loan
        drawn.addCallback(self._returned, loan)

    def _returned(self, _: None, loan: Loan) -> None:
        self._loan = None
        loan.close()
        if not self._parser.stopped:
            self._parser.passed(loan.taken)
            self._watch(moved=True)
            self.advance()

    def _read_or_not(self) -> None:
        body = self._arriving
        paused = body is not None and body.taken and not (body.over or body.wanted)
        wanted = (
            not (self._events or paused or self._ended or self._loan is not None)
            and self._dropped <= self._limits.linger_bytes
        )
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resumeProducing()
            else:
                self._transport.pauseProducing()

    def _drop(self, amount: int) -> None:
        """Bytes after the last request that we read."""
        self._dropped += amount
        if self._dropped <= self._limits.linger_bytes:
            return
        if self._shut:
            self._transport.loseConnection()
        else:
            self._read_or_not()

    # What the output tells

    def _moved(self) -> None:
        self._watch(moved=True)

    def _drained(self) -> None:
        if not self.closing:
            self.advance()
        elif self._closed and not self._shut:
            self._finish()
