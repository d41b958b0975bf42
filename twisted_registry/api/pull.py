"""A pull producer made to look like a push producer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime


@implementer(IPushProducer)
class PullToPush:
    """Asks ``producer`` for more, once in each turn of the reactor, while it is not paused."""

    def __init__(self, producer: IPullProducer, clock: IReactorTime) -> None:
        self.producer = producer
        self.clock = clock
        self._call: IDelayedCall | None = None
        self._paused = True

    def resumeProducing(self) -> None:
        """Ask, and go on asking."""
        self._paused = False
        if self._call is None:
            self._call = self.clock.callLater(0, self._ask_for_more)

    def pauseProducing(self) -> None:
        """Ask no more for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """Tell the producer that nobody listens any more."""
        self.stop()
        self.producer.stopProducing()

    def stop(self) -> None:
        """Ask no more, ever."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _ask_for_more(self) -> None:
        self._call = None
        if self._paused:
            return
        self._call = self.clock.callLater(0, self._ask_for_more)
        self.producer.resumeProducing()
