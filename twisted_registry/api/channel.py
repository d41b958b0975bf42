"""One HTTP/1.1 connection: requests in order, one at a time, and a definite end.

The parser (:mod:`twisted_registry.api.parser`) turns bytes into events, which wait here until
their turn comes; the socket is not read while some wait, which is all the back-pressure there
is. The output (:mod:`twisted_registry.api.output`) sends. Between them stands this module: it
starts requests, hands them their bodies, frames their answers, keeps the times, and closes.

Four rules.

1. An answer is complete or visibly broken: if its Content-Length can not be kept, or anything
   fails after its first byte, the connection is reset.
2. A peer that still sends when we close gets to read our answer first (RFC 9112 section 9.6).
3. Where the end of a request is in doubt, so is all that follows: the connection closes.
4. A request whose connection is lost, stalls or breaks the framing hears of it once, in
   ``notifyFinish``, in its body's Deferred and in that of a file being sent.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.api.framing import CONTINUE, AnswerHead, refusal, whole_head
from twisted_registry.api.interfaces import BodyAborted
from twisted_registry.api.parser import END, Head, Refusal, RequestParser
from twisted_registry.api.request import RegistryRequest
from twisted_registry.api.socketoutput import SocketOutput, open_output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.web.http_headers import Headers

    from twisted_registry.api.arriving import ArrivingBody
    from twisted_registry.api.output import Output
    from twisted_registry.api.site import RegistrySite

log = Logger()

# A large body comes in large reads: fewer calls, and pieces that are worth a thread's while.
_BODY_READ = 1024 * 1024
# Who is waited for: nobody but the application, or the peer, to send or to take something.
_NOBODY, _HEAD, _IDLE, _BODY, _OUTPUT, _HALF_CLOSED, _CLOSING = range(7)


@implementer(IHalfCloseableProtocol)
class RegistryChannel(Protocol):
    """See the module. Built by :class:`~twisted_registry.api.site.RegistrySite`.

    :ivar site: the factory, under the name that twisted.web's Request uses.
    :ivar peer: the client's address.
    :ivar here: our address.
    :ivar secure: whether the transport is TLS.
    :ivar request: the request that is being answered, or None.
    :ivar deadline: when :meth:`expired` is due, in seconds of the clock.
    :ivar closing: whether no further request is started.
    """

    output: Output

    def __init__(self, site: RegistrySite) -> None:
        self.site = self.factory = site
        self.clock = site.clock
        self.request: RegistryRequest | None = None
        self.deadline = math.inf
        self.closing = False
        self._limits = site.limits
        self._parser = RequestParser(site.limits, site.heads)
        self._events = self._parser.events
        self._head: Head | None = None
        self._arriving: ArrivingBody | None = None
        self._keep = True
        self._expected: int | None = None  # bytes of the answer still to come
        self._framed = True
        self._waiting = _NOBODY
        self._reading = True
        self._large_reads = False
        self._expects = False
        self._advancing = False
        self._ended = False  # the peer sends no more
        self._closed = False  # after what has been written, nothing will be
        self._linger = False
        self._shut = False  # and it has been sent, and the peer been told
        self._final = False
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
        self.output = open_output(transport, self.clock, self._moved, self._drained)
        limits = self._limits
        self._times = (
            math.inf,
            limits.header_seconds,
            limits.idle_seconds,
            limits.body_seconds,
            limits.body_seconds,
            limits.half_closed_seconds,
            # What a socket has taken it delivers without us; other transports still need us.
            limits.linger_seconds if self.output.direct else limits.body_seconds,
        )
        self.site.opened(self)
        self._watch()

    def dataReceived(self, data: bytes) -> None:
        """Read everything, then act on it."""
        if self._parser.stopped:
            self._drop(len(data))
            return
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

    # What a Request calls

    def getPeer(self) -> Any:
        """The client's address."""
        return self.peer

    def getHost(self) -> Any:
        """Our address."""
        return self.here

    def isSecure(self) -> bool:
        """Whether the transport is TLS."""
        return self.secure

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers | Iterable[Any]
    ) -> None:
        """Send the head of an answer, and decide whether another may follow."""
        del version
        request = self.request
        assert request is not None
        head = AnswerHead(request.method, code, reason, headers)
        self._expected = head.length
        # Or else only the end of the connection says where the answer ends.
        self._framed = head.framed or bool(request.chunked)
        self._keep = self._may_keep() and not head.close
        if not self.closing:
            self.output.write(head.render(closing=not self._keep))

    def write(self, data: bytes) -> None:
        """Send a part of an answer's body."""
        if self._count(len(data)) and not self.closing:
            self.output.write(data)

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Send several parts."""
        self.write(b"".join(parts))

    def send_whole(
        self, status: int, reason: bytes, fields: bytes, body: bytes, length: int | None
    ) -> None:
        """Send a whole answer, head and body in one piece.

        :param length: Content-Length of an answer without a body; None for that of ``body``.
        """
        said = len(body) if length is None else length
        head = self.ready_head(status, reason, fields, said)
        self._expected = None
        if not self.closing:
            self.output.write(head + body)

    def ready_head(self, status: int, reason: bytes, fields: bytes, length: int) -> bytes:
        """The head of an answer whose fields are ready, and decide whether another may follow."""
        self._expected, self._framed = length, True
        self._keep = self._may_keep()
        return whole_head(status, reason, self.site.date(), fields, length, closing=not self._keep)

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send a range of a file. Only on a direct output."""
        output = self.output
        assert isinstance(output, SocketOutput)
        if self.closing or not self._count(length):
            return fail(ConnectionAborted())
        return output.send_file(descriptor, offset, length)

    def send_headed_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send what :meth:`ready_head` made, and a range of a file. Only on a direct output.

        :returns: None if all has been sent.
        """
        if self.closing:
            return fail(ConnectionAborted())
        output = self.output
        assert isinstance(output, SocketOutput)
        self._expected = None
        return output.send_headed_file(head, descriptor, offset, length)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Pause and resume ``producer`` as the peer takes what it writes."""
        self.output.register(producer, streaming=streaming)

    def unregisterProducer(self) -> None:
        """The producer has written everything."""
        self.output.unregister()

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

    def loseConnection(self) -> None:
        """Close once everything written has been sent."""
        request = self.request
        if request is not None and request.startedWriting and not self._framed:
            self.abort()
        else:
            self._close(linger=False)

    def refuse_request(self, status: int) -> None:
        """Take the answer out of the request's hands. It hears that its client is gone."""
        request = self.request
        if request is None:
            return
        request.setResponseCode(status)
        self._stop()
        self._leave(Failure(BodyAborted("the request was refused")))
        if request.startedWriting:
            self.abort()
        else:
            self._refuse(status, request.method)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # twisted.web's Request calls this when a form can not be decoded
        self.refuse_request(HTTPStatus.BAD_REQUEST)

    # What the site calls

    @property
    def busy(self) -> bool:
        """Whether an answer is owed, or on its way."""
        return not self._shut and (
            self.request is not None
            or self.output.pending
            or self._parser.in_head
            or bool(self._events)
        )

    def drain(self) -> None:
        """No further request is wanted: close now if none is under way."""
        if not self.busy:
            self._close(linger=self._arriving is not None)

    def abort(self) -> None:
        """Reset the connection: what was sent must not be taken for the whole."""
        self._stop()
        self._closed = self._shut = True
        self.output.take()
        self._transport.abortConnection()
        self.site.settled()

    def expired(self) -> None:
        """The deadline has passed."""
        waiting, self._waiting = self._waiting, _NOBODY
        self.deadline = math.inf
        if waiting == _HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif waiting == _BODY and self.request is not None:
            self.refuse_request(HTTPStatus.REQUEST_TIMEOUT)
        elif waiting == _IDLE:
            self._close(linger=False)
        elif waiting == _CLOSING and not self._final:
            self._final = True
            self._transport.loseConnection()
            self._watch()
        else:
            self.abort()

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
        self._read_or_not()
        self._watch(moved=moved)

    def _step(self, event: Head | bytes | Refusal | object) -> bool:
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
        elif isinstance(event, Head):
            self._events.popleft()
            self._begin(event)
        elif isinstance(event, Refusal):
            self._refuse(event.status)
        return True

    def _begin(self, head: Head) -> None:
        if self._ended and not head.complete:
            self._close(linger=False)
            return
        self._head = head
        request = self.request = RegistryRequest(self, head)
        self._expects = head.expects
        if head.length != 0:
            self._arriving = request.body
        request.begin()

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
        if large is not self._large_reads and self.output.direct:
            self._large_reads = large
            self._transport.bufferSize = _BODY_READ if large else type(self._transport).bufferSize

    def _read_or_not(self) -> None:
        body = self._arriving
        paused = body is not None and body.taken and not (body.over or body.wanted)
        wanted = (
            not (self._events or paused or self._ended)
            and self._dropped <= self._limits.linger_bytes
        )
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resumeProducing()
            else:
                self._transport.pauseProducing()

    def _may_keep(self) -> bool:
        """Whether another request can follow the answer that begins now."""
        head = self._head
        assert head is not None
        if self.site.draining or not head.keep or (self._ended and not self._events):
            return False
        if head.complete:
            return True
        if head.length is None or (self._expects and head.arrived == 0):
            # The end is not in sight; or the client may or may not send the body.
            return False
        return head.length - head.arrived <= self._limits.linger_bytes

    # Sending

    def _count(self, amount: int) -> bool:
        """Whether that much still fits into what the head said."""
        if self._expected is not None:
            self._expected -= amount
            if self._expected < 0:
                log.error("{request} was answered with more than it said", request=self.request)
                self._expected = None
                self.abort()
                return False
        return True

    def _moved(self) -> None:
        self._watch(moved=True)

    def _drained(self) -> None:
        if not self.closing:
            self.advance()
        elif self._closed and not self._shut:
            self._finish()

    # Ends

    def _refuse(self, status: int, method: bytes = b"") -> None:
        """Answer what is not, or no longer, a request; then close."""
        self.output.write(refusal(method, status, self.site.date()))
        self._close(linger=True)

    def _leave(self, reason: Failure) -> None:
        """Tell the request, if there is one, that nobody waits for it any more."""
        request, self.request = self.request, None
        body, self._arriving = self._arriving, None
        if request is not None:
            request.connectionLost(reason)
        if body is not None:
            body.abort(Failure(BodyAborted("the client left before the end of the body")))

    def _drop(self, amount: int) -> None:
        """Bytes after the last request that we read."""
        self._dropped += amount
        if self._dropped <= self._limits.linger_bytes:
            return
        if self._shut:
            self._transport.loseConnection()
        else:
            self._read_or_not()

    def _stop(self) -> None:
        self.closing = True
        self._parser.stopped = True
        self._parser.in_head = False
        self._events.clear()

    def _close(self, *, linger: bool) -> None:
        if self._closed:
            return
        self._stop()
        self._closed = True
        self._linger = linger
        if self.output.pending:
            self._watch()
        else:
            self._finish()

    def _finish(self) -> None:
        """Everything has been sent: say so, and wait for the peer to take note."""
        self._shut = True
        self.output.close()
        if not self._reading and not self._ended:
            self._reading = True
            self._transport.resumeProducing()
        if self._linger and self.output.direct and not self._ended:
            self._transport.loseWriteConnection()
        else:
            # over TLS this closes our side only, and waits for the peer's
            self._final = True
            self._transport.loseConnection()
        self._watch()
        self.site.settled()

    def _watch(self, *, moved: bool = False) -> None:
        """Set the deadline, if what is waited for has changed or moved."""
        waiting = self._waits_for()
        if moved or waiting != self._waiting:
            self._waiting = waiting
            self.deadline = self.clock.seconds() + self._times[waiting]

    def _waits_for(self) -> int:
        if self._shut:
            return _CLOSING
        if self.output.pending:
            return _OUTPUT
        request, body = self.request, self._arriving
        if body is not None and (request is None or body.wanted):
            return _BODY
        if request is None:
            return _HEAD if self._parser.in_head else _IDLE
        return _HALF_CLOSED if self._ended and not request.startedWriting else _NOBODY
