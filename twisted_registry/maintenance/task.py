"""A chore that is done again and again: a LoopingCall in a Service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen, has
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.maintenance.lease import RunRecord, RunSkipped, host_and_pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_registry.maintenance.lease import TaskLease, Work

log = Logger()

#: Seconds within which the first run begins: registries that were started together should not
#: do their chores together.
MAX_START_DELAY_S = 3600.0


@frozen
class TaskRun:
    """One run that has ended.

    :ivar began: seconds since the epoch.
    :ivar seconds: how long it took.
    :ivar result: what it answered; None if it failed.
    :ivar failure: why it failed; empty if it did not.
    :ivar passed_over: why nothing was done, because another process did it; else empty.
    """

    began: float
    seconds: float
    result: object
    failure: str = ""
    skipped: str = ""

    def record(self, settings: str) -> RunRecord:
        """What others who share the store are told of it."""
        result: Any = self.result
        return RunRecord(
            self.began,
            self.seconds,
            asdict(result) if has(type(result)) else result,
            self.failure,
            host_and_pid(),
            settings,
        )


class PeriodicTask(Service):
    """Runs ``work`` at intervals, one run at a time, until the service stops.

    A failure is logged and counted, and does not end the schedule.

    :ivar name: of the task.
    :ivar last: the run of this process that ended last and was not passed over, or None.
    :ivar runs: how many have ended.
    :ivar failures: how many of them failed.
    :ivar passed_over: how many were left to another process, beside those.
    """

    name: str

    def __init__(
        self,
        name: str,
        work: Work,
        clock: IReactorTime,
        interval: float | None,
        random: Callable[[], float],
        lease: TaskLease | None = None,
    ) -> None:
        """Take what to do and how often.

        :param work: what one run does; cancelled when the service stops.
        :param interval: seconds from the beginning of a run to that of the next; a beginning
            that falls into a longer run is left out. None: it is only run by hand.
        :param random: answers a number from 0 up to 1: after that part of the interval, or of
            an hour if that is less, the first run begins.
        :param turn: lets one process at a time do it; None if there is no other.
        """
        self.setName(name)
        self.last_run: TaskRun | None = None
        self.runs = 0
        self.failures = 0
        self.skipped = 0
        self._work = work
        self._clock = clock
        self._interval = interval
        self._random = random
        self._lease = lease
        self._loop = LoopingCall(self.run, scheduled=True)
        self._loop.clock = clock
        self._first_call: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._waiters: list[Deferred[TaskRun]] = []

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._running is not None

    @property
    def next(self) -> float | None:
        """When the next run is due, in seconds since the epoch; None if none is planned."""
        call = self._first_call if self._first_call is not None else self._loop.call
        return None if call is None else call.getTime()

    def startService(self) -> None:
        """Plan the first run."""
        super().startService()
        if self._interval is None:
            return
        delay = self._random() * min(self._interval, MAX_START_DELAY_S)
        self._first_call = self._clock.callLater(delay, self._start_loop)

    def stopService(self) -> Deferred[None]:
        """Plan no more runs, and cancel the one under way; fire when it has ended."""
        super().stopService()
        if self._first_call is not None:
            self._first_call.cancel()
            self._first_call = None
        if self._loop.running:
            self._loop.stop()
        if self._running is None:
            return succeed(None)
        ended = self._wait_for_run()
        self._running.cancel()
        return ended.addCallback(lambda _: None)

    def run(self, *, scheduled: bool = False) -> Deferred[TaskRun]:
        """Run now, or join the run that is under way; fire with how it ended.

        Cancelling the Deferred cancels the wait, not the run.

        :param due: whether the schedule asks, and does without if another process has done it.
        """
        ended = self._wait_for_run()
        if self._running is None:
            # Not before it is known to be under way: it may end at once.
            self._running = Deferred()
            work = Deferred.fromCoroutine(self._run_once(scheduled=scheduled))
            if self._running is not None:
                self._running = work
        return ended

    def _start_loop(self) -> None:
        assert self._interval is not None
        self._first_call = None
        self._loop.start(self._interval)

    def _wait_for_run(self) -> Deferred[TaskRun]:
        ended: Deferred[TaskRun] = Deferred()
        self._waiters.append(ended)
        return ended

    async def _run_once(self, *, scheduled: bool) -> None:
        began, result, failure, skipped = self._clock.seconds(), None, "", ""
        try:
            lease = self._lease
            result = await (
                self._work()
                if lease is None
                else lease.run_exclusively(self._work, scheduled=scheduled)
            )
        except CancelledError:
            failure = "it was stopped"
        except RunSkipped as error:
            skipped = str(error)
            log.info("{task} is passed over: {reason}", task=self.name, reason=skipped)
        except Exception as error:  # noqa: BLE001 - whatever it was, the schedule goes on
            log.failure("{task} failed; it will be tried again", task=self.name)
            failure = f"{type(error).__name__}: {error}"
        run = TaskRun(began, self._clock.seconds() - began, result, failure, skipped)
        if skipped:
            self.skipped += 1
        else:
            self.runs += 1
            self.failures += bool(failure)
            self.last_run = run
            if self._lease is not None:
                await self._lease.record_run(run.record(self._lease.settings))
        self._running = None
        awaited, self._waiters = self._waiters, []
        for ended in awaited:
            if not ended.called:
                ended.callback(run)
