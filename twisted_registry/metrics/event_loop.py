"""Measures how late the event loop is: how long a call that is due waits for other work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two measurements.
MEASURE_INTERVAL_S = 1.0


class EventLoopMonitor(Service):
    """Measures the delay of the event loop while the service runs.

    :param clock: the reactor, by a clock that nobody sets.
    :param observe: called with each delay in seconds.
    """

    def __init__(self, clock: IReactorTime, observe: Callable[[float], object]) -> None:
        self.setName("event loop")
        self._clock = clock
        self._observe = observe
        self._call: IDelayedCall | None = None
        self._due = 0.0

    def startService(self) -> None:
        """Begin to measure."""
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """Stop measuring."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + MEASURE_INTERVAL_S
        self._call = self._clock.callLater(MEASURE_INTERVAL_S, self._measure)

    def _measure(self) -> None:
        self._observe(max(0.0, self._clock.seconds() - self._due))
        self._schedule()
