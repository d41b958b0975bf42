"""A service that runs a task at intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.maintenance.lease import RunSkipped, TaskRun, host_and_pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_registry.maintenance.lease import TaskLease, Work

log = Logger()

#: Seconds within which the first run begins, at most. Registries that are started together should
#: not run their tasks together.
MAX_START_DELAY_S = 3600.0


class PeriodicTask(Service):
    """Runs a task at intervals, one run at a time, until the service stops.

    A failure is logged and counted, and the task is run again at the next interval.

    :ivar last_run: the last run of this process that was not skipped, or None.
    :ivar runs: number of runs that have ended.
    :ivar failures: number of these that failed.
    :ivar skipped: number of runs that were left to another process; not among ``runs``.
    """

    def __init__(
        self,
        name: str,
        work: Work,
        clock: IReactorTime,
        interval_s: float | None,
        random: Callable[[], float],
        lease: TaskLease | None = None,
    ) -> None:
        """Prepare the service.

        :param name: name of the task and of the service.
        :param work: runs the task once; cancelled when the service stops.
        :param interval_s: seconds from the start of a run to that of the next. A start that falls
            into a longer run is skipped. None: the task is only run by :meth:`run`.
        :param random: returns a number in [0, 1): the first run starts after that part of the
            interval, or of an hour if that is less.
        :param lease: lets one process at a time run the task; None if there is no other process.
        """
        self.setName(name)
        self.last_run: TaskRun | None = None
        self.runs = 0
        self.failures = 0
        self.skipped = 0
        self._work = work
        self._clock = clock
        self._interval_s = interval_s
        self._random = random
        self._lease = lease
        self._loop = LoopingCall(self.run, scheduled=True)
        self._loop.clock = clock
        self._first_call: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._waiters: list[Deferred[TaskRun]] = []

    @property
    def is_running(self) -> bool:
        """Whether the task is being run."""
        return self._running is not None

    @property
    def next(self) -> float | None:
        """When the next run is due, in seconds since the epoch; None if none is planned."""
        call = self._first_call if self._first_call is not None else self._loop.call
        return None if call is None else call.getTime()

    def startService(self) -> None:
        """Schedule the first run."""
        super().startService()
        if self._interval_s is None:
            return
        delay = self._random() * min(self._interval_s, MAX_START_DELAY_S)
        self._first_call = self._clock.callLater(delay, self._start_loop)

    def stopService(self) -> Deferred[None]:
        """Schedule no more runs, cancel the current one, and fire when it has ended."""
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
        """Run now, or join the current run; fire with the run when it has ended.

        Cancelling the Deferred cancels the wait, not the run.

        :param scheduled: whether the run may be skipped because another process did it recently.
        """
        ended = self._wait_for_run()
        if self._running is None:
            # Set before the work starts, because it may end at once.
            self._running = Deferred()
            work = Deferred.fromCoroutine(self._run_once(scheduled=scheduled))
            if self._running is not None:
                self._running = work
        return ended

    def _start_loop(self) -> None:
        assert self._interval_s is not None
        self._first_call = None
        self._loop.start(self._interval_s)

    def _wait_for_run(self) -> Deferred[TaskRun]:
        ended: Deferred[TaskRun] = Deferred()
        self._waiters.append(ended)
        return ended

    async def _run_once(self, *, scheduled: bool) -> None:
        began, result, failure, skipped = self._clock.seconds(), None, "", ""
        lease = self._lease
        try:
            result = await (
                self._work()
                if lease is None
                else lease.run_exclusively(self._work, scheduled=scheduled)
            )
        except CancelledError:
            failure = "it was stopped"
        except RunSkipped as error:
            skipped = str(error)
            log.info("task is skipped task={task}: {reason}", task=self.name, reason=skipped)
        except Exception as error:  # noqa: BLE001 - the schedule continues after any error
            log.failure("task failed, will be run again task={task}", task=self.name)
            failure = f"{type(error).__name__}: {error}"
        settings = "" if lease is None else lease.settings
        seconds = self._clock.seconds() - began
        run = TaskRun(began, seconds, result, failure, skipped, host_and_pid(), settings)
        if skipped:
            self.skipped += 1
        else:
            # First, so that a run that is counted can be read from the store as well.
            if lease is not None:
                await lease.record_run(run)
            self.runs += 1
            self.failures += bool(failure)
            self.last_run = run
        self._running = None
        waiters, self._waiters = self._waiters, []
        for ended in waiters:
            if not ended.called:
                ended.callback(run)
