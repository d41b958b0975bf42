"""What a connection waits for, how long, and how it ends.

A peer that still sends when we close gets to read our answer first (RFC 9112 section 9.6). A
request whose connection is lost, stalls or breaks the framing hears of it once, in
``notifyFinish``, in its body's Deferred and in that of a file being sent.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from twisted_registry.api.framing import refusal
from twisted_registry.api.interfaces import BodyAborted
from twisted_registry.api.parser import RequestParser
from twisted_registry.securesocket import ISecureSocket

if TYPE_CHECKING:
    from twisted_registry.api.arriving import ArrivingBody
    from twisted_registry.api.head import Head
    from twisted_registry.api.lending import Loan
    from twisted_registry.api.output import Output
    from twisted_registry.api.request import RegistryRequest
    from twisted_registry.api.site import RegistrySite

# Who is waited for: nobody but the application, or the peer, to send or to take something.
_NOBODY, _HEAD, _IDLE, _BODY, _OUTPUT, _HALF_CLOSED, _CLOSING = range(7)


class MortalConnection(Protocol):
    """See the module. What :class:`~twisted_registry.api.channel.RegistryChannel` rests on.

    :ivar site: the factory, under the name that twisted.web's Request uses.
    :ivar request: the request that is being answered, or None.
    :ivar deadline: when :meth:`expired` is due, in seconds of the clock.
    :ivar closing: whether no further request is started.
    """

    output: Output
    _transport: Any

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
        self._loan: Loan | None = None  # who has it reads the socket, and we do not
        self._waiting = _NOBODY
        self._times: tuple[float, ...] = ()
        self._reading = True
        self._ended = False  # the peer sends no more
        self._closed = False  # after what has been written, nothing will be
        self._linger = False
        self._shut = False  # and it has been sent, and the peer been told
        self._final = False

    def _set_times(self) -> None:
        """Know how long to wait for each, now that there is an output."""
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
        if body is not None and self._loan is None and (request is None or body.wanted):
            return _BODY
        if request is None:
            return _HEAD if self._parser.in_head else _IDLE
        return _HALF_CLOSED if self._ended and not request.startedWriting else _NOBODY

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

    def part(self) -> None:
        """The server ends: what has been answered reaches its client, and all else is reset."""
        if not self._shut:
            self.abort()
        elif self._linger and not self._final:
            pass  # the peer still sends, and would not read our answer if we closed
        elif self.output.direct:
            self._transport.loseConnection()
        else:
            # What is below TLS has all of it, and does not wait for the peer to say goodbye.
            secure = ISecureSocket(self._transport, None)
            below = getattr(self._transport, "transport", None) or self._transport
            (below.loseConnection if secure is None else secure.hangUp)()

    # What a Request calls

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

    def abort(self) -> None:
        """Reset the connection: what was sent must not be taken for the whole."""
        self._stop()
        self._closed = self._shut = True
        self.output.take()
        self._transport.abortConnection()
        self.site.settled()

    # Steps

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
