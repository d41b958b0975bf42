"""A chore that is done again and again: a LoopingCall in a Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

log = Logger()

#: Seconds within which the first run begins: registries that were started together should not
#: do their chores together.
LATEST_START = 3600.0


@frozen
class Run:
    """One run that has ended.

    :ivar began: seconds since the epoch.
    :ivar seconds: how long it took.
    :ivar result: what it answered; None if it failed.
    :ivar failure: why it failed; empty if it did not.
    """

    began: float
    seconds: float
    result: object
    failure: str = ""


class Task(Service):
    """Runs ``work`` at intervals, one run at a time, until the service stops.

    A failure is logged and counted, and does not end the schedule.

    :ivar last: the run that ended last, or None.
    :ivar runs: how many have ended.
    :ivar failures: how many of them failed.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Coroutine[Deferred[object], object, object]],
        clock: IReactorTime,
        interval: float,
        random: Callable[[], float],
    ) -> None:
        """Take what to do and how often.

        :param work: what one run does; cancelled when the service stops.
        :param interval: seconds from the beginning of a run to that of the next; a beginning
            that falls into a longer run is left out.
        :param random: answers a number from 0 up to 1: after that part of the interval, or of
            an hour if that is less, the first run begins.
        """
        self.setName(name)
        self.last: Run | None = None
        self.runs = 0
        self.failures = 0
        self._work = work
        self._clock = clock
        self._interval = interval
        self._random = random
        self._loop = LoopingCall(self.run)
        self._loop.clock = clock
        self._first: IDelayedCall | None = None
        self._current: Deferred[None] | None = None
        self._awaited: list[Deferred[Run]] = []

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._current is not None

    @property
    def next(self) -> float | None:
        """When the next run is due, in seconds since the epoch; None if none is planned."""
        call = self._first if self._first is not None else self._loop.call
        return None if call is None else call.getTime()

    def startService(self) -> None:
        """Plan the first run."""
        super().startService()
        delay = self._random() * min(self._interval, LATEST_START)
        self._first = self._clock.callLater(delay, self._begin)

    def stopService(self) -> Deferred[None]:
        """Plan no more runs, and cancel the one under way; fire when it has ended."""
        super().stopService()
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._loop.running:
            self._loop.stop()
        if self._current is None:
            return succeed(None)
        ended = self._joined()
        self._current.cancel()
        return ended.addCallback(lambda _: None)

    def run(self) -> Deferred[Run]:
        """Run now, or join the run that is under way; fire with how it ended.

        Cancelling the Deferred cancels the wait, not the run.
        """
        ended = self._joined()
        if self._current is None:
            # Not before it is known to be under way: it may end at once.
            self._current = Deferred()
            work = Deferred.fromCoroutine(self._attempt())
            if self._current is not None:
                self._current = work
        return ended

    def _begin(self) -> None:
        self._first = None
        self._loop.start(self._interval)

    def _joined(self) -> Deferred[Run]:
        ended: Deferred[Run] = Deferred()
        self._awaited.append(ended)
        return ended

    async def _attempt(self) -> None:
        began, result, failure = self._clock.seconds(), None, ""
        try:
            result = await self._work()
        except CancelledError:
            failure = "it was stopped"
        except Exception as error:  # noqa: BLE001 - whatever it was, the schedule goes on
            log.failure("{task} failed; it will be tried again", task=self.name)
            failure = f"{type(error).__name__}: {error}"
        self.runs += 1
        self.failures += bool(failure)
        self.last = run = Run(began, self._clock.seconds() - began, result, failure)
        self._current = None
        awaited, self._awaited = self._awaited, []
        for ended in awaited:
            if not ended.called:
                ended.callback(run)
