"""A request's body on its way in, as the Resource sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.api.interfaces import BodyAborted, IRequestBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.api.lending import DirectRead

log = Logger()


@implementer(IRequestBody)
class IncomingBody:
    """Hands pieces to a consumer as the channel reads them.

    The channel calls :meth:`deliver`, :meth:`end` and :meth:`abort`; the rest is for the
    Resource.

    :ivar length: in bytes, or UNKNOWN_LENGTH.
    :ivar changed: called when :attr:`wanted` may have changed.
    :ivar unheard: called with the exception of a consumer that nobody who took the body caught.
    :ivar over: whether nothing will be delivered any more.
    """

    def __init__(
        self,
        length: Any,
        on_change: Callable[[], None],
        on_unhandled_failure: Callable[[Failure], None],
        *,
        over: bool = False,
    ) -> None:
        self.length = length
        self.on_change = on_change
        self.on_unhandled_failure = on_unhandled_failure
        self.over = over
        self._consumer: Any = None
        self._paused = False
        self._done: Deferred[None] | None = None
        self._reason: Failure | None = None

    @property
    def taken(self) -> bool:
        """Whether somebody has asked for it."""
        return self._done is not None

    @property
    def wanted(self) -> bool:
        """Whether the next piece may be delivered now."""
        return self._consumer is not None and not self._paused

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Take the body. It may be taken once."""
        if self._done is not None:
            raise RuntimeError("this body has been taken already")
        if self.over:
            self._done = succeed(None) if self._reason is None else fail(self._reason)
            return self._done
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        self.on_change()
        return done

    def pauseProducing(self) -> None:
        """Deliver no more for now; the socket is not read either."""
        self._paused = True
        self.on_change()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self.on_change()

    def stopProducing(self) -> None:
        """Deliver no more: the rest is not wanted."""
        self.abort(Failure(BodyAborted("the body is not wanted any more")))

    def deliver(self, piece: bytes) -> None:
        """Pass a piece on. What the consumer raises is what the Deferred fails with."""
        try:
            self._consumer.write(piece)
        except Exception:  # noqa: BLE001 (whatever it is, the Resource is to hear of it)
            reason = Failure()
            log.failure("A request body could not be taken", failure=reason)
            self._fail(reason, self.on_unhandled_failure)

    def append_from(self) -> Callable[[DirectRead], Deferred[None] | None] | None:
        """What lets the consumer read the socket by itself, if it can: its ``append_from``.

        That takes a loan, and answers a Deferred that fires when the loan is over, whatever came
        of it; or None if it does not want one.
        """
        return getattr(self._consumer, "append_from", None)

    def end(self) -> None:
        """The last byte has been delivered."""
        if not self.over:
            self.over = True
            self._consumer = None
            if self._done is not None:
                self._done.callback(None)

    def abort(self, reason: Failure) -> None:
        """Nothing will come any more, and not all has."""
        self._fail(reason, lambda _: None)

    def _fail(self, reason: Failure, on_unhandled_failure: Callable[[Failure], None]) -> None:
        if self.over:
            return
        self.over = True
        self._consumer = None
        self._reason = reason
        if self._done is not None:
            self._done.errback(reason)
            self._done.addErrback(on_unhandled_failure)
        self.on_change()
