"""Requests whose body arrives, or whose response leaves, with faults."""

from __future__ import annotations

import fcntl
import sys
import termios
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.framing import NO_BODY
from twisted_registry.http.interfaces import IRequestBody, IStreamingRequest
from twisted_registry.http.output import FileProducer, PullToPush

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

    from twisted_registry.api.response import Response

#: The time between two pieces of a throttled response, in seconds.
_TICK_S = 0.05
#: How often it is checked whether everything before a cut was sent, in seconds, and how many times.
_CUT_CHECK_S = 0.01
_MAX_CUT_CHECKS = 500


@define
class FaultPlan:
    """What happens to one request. The faults that apply to it set the attributes.

    :ivar delay_s: seconds to wait before the request is passed on.
    :ivar response: the response, in place of that of the registry.
    :ivar bytes_per_second: the rate of request and response bodies; None for any.
    :ivar cut_after: bytes of the response body after which the connection ends; 0 for no response
        at all, None for no end.
    :ivar cut_received: bytes of the request body after which the connection is reset.
    :ivar resets: whether the connection ends with a reset, rather than orderly.
    :ivar corrupt_at: the offset of a byte of the response body that is changed.
    :ivar dropped_headers: response headers that are left out, in lower case.
    :ivar added_headers: further response headers.
    :ivar replaced_status: statuses of responses, and those to send instead.
    :ivar on_body: called with the status and the body of a response that is sent in one piece.
    """

    delay_s: float = 0
    response: Response | None = None
    bytes_per_second: float | None = None
    cut_after: int | None = None
    cut_received: int | None = None
    resets: bool = False
    corrupt_at: int | None = None
    dropped_headers: set[str] = field(factory=set)
    added_headers: dict[str, str] = field(factory=dict)
    replaced_status: dict[int, int] = field(factory=dict)
    on_body: Callable[[int, bytes], object] | None = None

    @property
    def needs_proxy(self) -> bool:
        """Whether the registry must get a :class:`FaultyRequest`."""
        return (
            self.bytes_per_second is not None
            or self.cut_after is not None
            or self.cut_received is not None
            or self.corrupt_at is not None
            or bool(self.dropped_headers or self.added_headers or self.replaced_status)
            or self.on_body is not None
        )


@implementer(IStreamingRequest, IConsumer)
class FaultyRequest:
    """Stands in for a request of :class:`~twisted_registry.http.site.HTTPSite`.

    Attributes whose names begin with an underscore are those of this object; all others, and
    methods that are not here, are those of the request.
    """

    def __init__(self, request: Any, plan: FaultPlan) -> None:
        self._request = request
        self._plan = plan
        self._clock = request.site.clock
        self._body: Any = None
        self._sent = 0  # bytes of the body of the response
        self._begun = False
        self._finishing = False
        self._cut = False  # nothing more is sent
        self._cut_checks = 0
        self._waiting = bytearray()  # throttled
        self._producer: Any = None
        self._call: IDelayedCall | None = None
        request.notifyFinish().addBoth(lambda _: self._stop())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._request, name, value)

    # The request

    @property
    def body(self) -> Any:
        """The body of the request."""
        if self._body is None:
            plan = self._plan
            self._body = (
                self._request.body
                if plan.bytes_per_second is None and plan.cut_received is None
                else FaultyBody(self._request, plan)
            )
        return self._body

    def render(self, resource: Any) -> None:
        """Render a Resource that responds later, as all of the registry do."""
        resource.render(self)

    # The response

    def sendResponse(
        self, status: int, fields: bytes, body: bytes, length: int | None = None
    ) -> None:
        """Send a complete response, and finish."""
        if self._plan.on_body is not None:
            self._plan.on_body(status, body)
        self._set_head(status, fields, len(body) if length is None else length)
        self.write(b"" if self._request.method == b"HEAD" or status in NO_BODY else body)
        self.finish()

    def sendFileResponse(
        self, status: int, fields: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None]:
        """Send a head and bytes of a file, and finish."""
        self._set_head(status, fields, length)
        producer = FileProducer(
            self, self._request.site.read_file, self._abort, descriptor, offset, length
        )
        return producer.start().addCallback(lambda _: self.finish())

    def write(self, data: bytes) -> None:
        """Send a part of the body; the head is sent with the first part."""
        if self._cut:
            return
        plan = self._plan
        if not self._begun:
            self._begun = True
            self._change_head()
            if plan.cut_after == 0:
                self._start_cut()
                return
            if plan.bytes_per_second is not None:
                self._request.write(b"")
        at = None if plan.corrupt_at is None else plan.corrupt_at - self._sent
        if at is not None and 0 <= at < len(data):
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        left = len(data) if plan.cut_after is None else plan.cut_after - self._sent
        self._sent += len(data)
        if left < len(data):
            self._send(data[:left])
            self._start_cut()
        else:
            self._send(data)

    def finish(self) -> None:
        """End the response when everything was sent."""
        if not self._begun:
            self.write(b"")
        if self._cut:
            return
        self._finishing = True
        if self._call is None:
            self._request.finish()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Let ``producer`` write the body."""
        if self._plan.bytes_per_second is None:
            self._request.registerProducer(producer, streaming)
            return
        self._producer = producer if streaming else PullToPush(producer, self._clock)
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Detach the producer."""
        if self._plan.bytes_per_second is None:
            self._request.unregisterProducer()
            return
        producer, self._producer = self._producer, None
        if isinstance(producer, PullToPush):
            producer.stop()

    def _change_head(self) -> None:
        request, plan = self._request, self._plan
        for name in plan.dropped_headers:
            request.responseHeaders.removeHeader(name)
        for name, value in plan.added_headers.items():
            request.responseHeaders.setRawHeaders(name, [value])
        if request.code in plan.replaced_status:
            request.setResponseCode(plan.replaced_status[request.code])

    def _set_head(self, status: int, fields: bytes, length: int) -> None:
        request = self._request
        request.setResponseCode(status)
        request.defaultContentType = None
        for line in fields.split(b"\r\n"):
            if line:
                name, _, value = line.partition(b": ")
                request.responseHeaders.addRawHeader(name, value)
        if status not in NO_BODY:
            request.setHeader(b"Content-Length", b"%d" % length)

    def _send(self, data: bytes) -> None:
        if self._plan.bytes_per_second is None:
            self._request.write(data)
            return
        self._waiting += data
        if self._waiting and self._call is None:
            if self._producer is not None:
                self._producer.pauseProducing()
            self._send_piece()

    def _send_piece(self) -> None:
        self._call = None
        rate = self._plan.bytes_per_second
        assert rate is not None
        size = max(1, int(rate * _TICK_S))
        piece = bytes(self._waiting[:size])
        del self._waiting[:size]
        if piece:
            self._request.write(piece)
            self._call = self._clock.callLater(len(piece) / rate, self._send_piece)
        elif self._cut:
            self._end_when_sent()
        elif self._finishing:
            self._request.finish()
        elif self._producer is not None:
            self._producer.resumeProducing()

    def _start_cut(self) -> None:
        self._cut = True
        if self._call is None:
            self._end_when_sent()

    def _end_when_sent(self) -> None:
        """End the connection once everything before the cut was sent, or after some seconds."""
        self._call = None
        channel = self._request.channel
        if channel is None:
            return
        self._cut_checks += 1
        if self._cut_checks <= _MAX_CUT_CHECKS and (
            channel.output.pending or (self._plan.resets and _unsent_bytes(channel.transport))
        ):
            self._call = self._clock.callLater(_CUT_CHECK_S, self._end_when_sent)
        elif self._plan.resets:
            channel.abort()
        else:
            channel.loseConnection()

    def _abort(self) -> None:
        if self._request.channel is not None:
            self._request.channel.abort()

    def _stop(self) -> None:
        """Send nothing more: the request has ended, or the client has left."""
        self._cut = True
        call, self._call = self._call, None
        self._waiting.clear()
        if call is not None and call.active():
            call.cancel()


def _unsent_bytes(transport: Any) -> int:
    """Return the bytes that the kernel has not sent yet: a reset discards them."""
    try:
        queued = fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):
        return 0
    return int.from_bytes(queued, sys.byteorder)


@implementer(IRequestBody)
class FaultyBody:
    """The body of a request, throttled or cut.

    A throttled piece is passed on after the time that it would have taken to arrive.
    """

    def __init__(self, request: Any, plan: FaultPlan) -> None:
        self.length = request.body.length
        self._request = request
        self._plan = plan
        self._body = request.body
        self._consumer: Any = None
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._received = 0
        self._paused = False
        self._piece = b""
        self._call: IDelayedCall | None = None
        self._ended = False

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Pass the body to ``consumer``."""
        self._consumer = consumer
        self._body.startProducing(self).addCallbacks(self._end, self._fail)
        return self._done

    def write(self, piece: bytes) -> None:
        """Pass a piece on, now or later."""
        plan = self._plan
        left = None if plan.cut_received is None else plan.cut_received - self._received
        self._received += len(piece)
        if left is not None and len(piece) >= left:
            self._consumer.write(piece[:left])
            # The registry stores these bytes before it answers that the body is incomplete. The
            # answer becomes the reset, so that a client that asks at once sees all of them.
            plan.cut_after = 0
            self._body.stopProducing()
        elif plan.bytes_per_second is None:
            self._consumer.write(piece)
        else:
            self._piece = piece
            self._body.pauseProducing()
            self._call = self._request.site.clock.callLater(
                len(piece) / plan.bytes_per_second, self._pass_on
            )

    def pauseProducing(self) -> None:
        """Deliver nothing for now."""
        self._paused = True
        self._body.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue to deliver."""
        self._paused = False
        if self._call is None:
            self._body.resumeProducing()

    def stopProducing(self) -> None:
        """Deliver nothing more."""
        self._body.stopProducing()

    def _pass_on(self) -> None:
        self._call = None
        piece, self._piece = self._piece, b""
        try:
            self._consumer.write(piece)
        except Exception:  # noqa: BLE001 (the consumer may raise anything)
            self._done.errback(Failure())
            self._body.stopProducing()
            return
        if self._ended:
            self._done.callback(None)
        elif not self._paused:
            self._body.resumeProducing()

    def _end(self, _: None) -> None:
        self._ended = True
        if self._call is None and not self._done.called:
            self._done.callback(None)

    def _fail(self, reason: Failure) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if not self._done.called:
            self._done.errback(reason)
