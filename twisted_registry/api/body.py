"""Bodies where the channel is not ours: the same promises, kept in plain ways.

A program may mount the API under a stock :class:`twisted.web.server.Site`. Then the whole body
has been stored before the Resource runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.api.interfaces import BodyAborted, IRequestBody, IStreamingRequest

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

# As much as a socket's read would have brought.
_SLICE_BYTES = 65536


@implementer(IRequestBody)
class BufferedBody:
    """A body that is complete, handed over slice by slice, one in each turn of the clock."""

    def __init__(self, content: BinaryIO, clock: IReactorTime) -> None:
        self.content = content
        self.clock = clock
        self._consumer: Any = None
        self._done: Deferred[None] | None = None
        self._call: IDelayedCall | None = None
        self._paused = False
        self._over = False
        self.length = content.seek(0, 2)
        content.seek(0)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Hand the body to ``consumer``. It may be taken once."""
        if self._done is not None:
            raise RuntimeError("this body has been taken already")
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        if self._over:
            done.errback(BodyAborted("the body is not wanted any more"))
        else:
            self._consumer = consumer
            self._slice()
        return done

    def pauseProducing(self) -> None:
        """Hand over no more for now."""
        self._paused = True
        self._cancel()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        if self._consumer is not None and self._call is None:
            self._call = self.clock.callLater(0, self._slice)

    def stopProducing(self) -> None:
        """Hand over no more."""
        self._end(Failure(BodyAborted("the body is not wanted any more")))

    def _slice(self) -> None:
        self._call = None
        try:
            piece = self.content.read(_SLICE_BYTES)
            if piece:
                self._consumer.write(piece)
        except Exception:  # noqa: BLE001 (whoever took the body is to hear of it)
            self._end(Failure())
            return
        if self.content.tell() == self.length:
            self._end(None)
        elif not self._paused:
            self.resumeProducing()

    def _end(self, outcome: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._consumer = None
        self._cancel()
        if self._done is not None:
            self._done.callback(outcome)

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


def request_body(request: Any, clock: IReactorTime) -> Any:
    """The body of a request of any Site, as an IRequestBody.

    :param clock: paces a body that has been stored.
    """
    if IStreamingRequest.providedBy(request):
        return request.body
    return BufferedBody(request.content, clock)
