"""One run of a task among all processes that share a store."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.repository.turns import LEASE_TTL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.turns import RunRecord, TaskLeases

    Work = Callable[[], Coroutine[Deferred[object], object, object]]

log = Logger()


class RunSkipped(Exception):
    """The run is passed over; the text says why."""


def host_and_pid() -> str:
    """What this process is called in records."""
    return f"{socket.gethostname()} {os.getpid()}"


class TaskLease:
    """The turns of this process at one task.

    :ivar task: its name.
    :ivar interval: seconds from one run to the next. A run that is due is passed over if another
        process did it less than half of that ago, and was told to do the same.
    :ivar settings: what the task is told to do.
    """

    def __init__(
        self, leases: TaskLeases, task: str, clock: IReactorTime, interval: float, settings: str = ""
    ) -> None:
        self.leases = leases
        self.task = task
        self.clock = clock
        self.interval = interval
        self.settings = settings
        self._taken_over = False

    async def run_exclusively(self, work: Work, *, scheduled: bool) -> object:
        """Do the work unless another process does it.

        :param due: whether it is done for the schedule alone.
        :raises RunSkipped: if another process does it, or has done.
        """
        if scheduled:
            await self._skip_if_recent()
        holder = f"{host_and_pid()} {uuid4()}"
        await self._release_dead_holder()
        if not await self.leases.acquire(self.task, holder):
            raise RunSkipped("another process is at it")
        beat = LoopingCall(self._start_renewal, holder)
        beat.clock = self.clock
        over = beat.start(LEASE_TTL_S / 4, now=False)
        try:
            return await work()
        finally:
            beat.stop()
            # What is under way would bring back what is given back here.
            await over
            try:
                await self.leases.release(self.task, holder)
            except Exception:  # noqa: BLE001 - it will be found to be old
                log.failure("the turn of {task} could not be given back", task=self.task)

    async def record_run(self, record: RunRecord) -> None:
        """Let all know how a run ended; that this fails is no failure of the run."""
        try:
            await self.leases.record_run(self.task, record)
        except Exception:  # noqa: BLE001 - the next run is noted again
            log.failure("the end of {task} could not be noted", task=self.task)

    async def _skip_if_recent(self) -> None:
        last_run = await self.leases.last_run(self.task)
        if last_run is None or last_run.failure or last_run.settings != self.settings:
            return
        ended = await self.leases.seconds_since_last_run(self.task)
        if ended is not None and ended + last_run.seconds < self.interval / 2:
            raise RunSkipped(f"{last_run.by} did it {ended:.0f} s ago")

    async def _release_dead_holder(self) -> None:
        """Do not wait for a process of this host that is gone, or was our own predecessor."""
        found = await self.leases.holder(self.task)
        host, _, rest = (found or "").partition(" ")
        pid = rest.partition(" ")[0]
        if found and host == socket.gethostname() and pid.isdecimal() and not _is_alive(int(pid)):
            await self.leases.release(self.task, found)

    def _start_renewal(self, holder: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renew_lease(holder))

    async def _renew_lease(self, holder: str) -> None:
        try:
            if not await self.leases.renew(self.task, holder) and not self._taken_over:
                self._taken_over = True
                log.warn("another process runs {task} as well, which does no harm", task=self.task)
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - the next beat tries again
            log.failure("the turn of {task} could not be renewed", task=self.task)


def _is_alive(pid: int) -> bool:
    """Whether another process of this host has an id."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
