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

from twisted_registry.api.framing import error_response
from twisted_registry.api.interfaces import BodyAborted
from twisted_registry.api.parser import RequestParser
from twisted_registry.securesocket import ITLSConnection

if TYPE_CHECKING:
    from twisted_registry.api.arriving import IncomingBody
    from twisted_registry.api.head import RequestHead
    from twisted_registry.api.lending import DirectRead
    from twisted_registry.api.output import Output
    from twisted_registry.api.request import StreamingRequest
    from twisted_registry.api.site import HTTPSite

# Who is waited for: nobody but the application, or the peer, to send or to take something.
_WAIT_NONE, _WAIT_HEAD, _WAIT_IDLE, _WAIT_BODY, _WAIT_OUTPUT, _WAIT_HALF_CLOSED, _WAIT_CLOSE = range(7)


class MortalConnection(Protocol):
    """See the module. What :class:`~twisted_registry.api.channel.HTTPConnection` rests on.

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
