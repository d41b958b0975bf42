"""One run of a task among all processes that share a store."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.repository.turns import TURN_TERM

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.turns import Record, Turns

    Work = Callable[[], Coroutine[Deferred[object], object, object]]

log = Logger()


class NotOurTurn(Exception):
    """The run is passed over; the text says why."""


def this_process() -> str:
    """What this process is called in records."""
    return f"{socket.gethostname()} {os.getpid()}"


class Turn:
    """The turns of this process at one task.

    :ivar task: its name.
    :ivar interval: seconds from one run to the next. A run that is due is passed over if another
        process did it less than half of that ago, and was told to do the same.
    :ivar settings: what the task is told to do.
    """

    def __init__(
        self, turns: Turns, task: str, clock: IReactorTime, interval: float, settings: str = ""
    ) -> None:
        self.turns = turns
        self.task = task
        self.clock = clock
        self.interval = interval
        self.settings = settings
        self._lost = False

    async def use(self, work: Work, *, due: bool) -> object:
        """Do the work unless another process does it.

        :param due: whether it is done for the schedule alone.
        :raises NotOurTurn: if another process does it, or has done.
        """
        if due:
            await self._check_last()
        holder = f"{this_process()} {uuid4()}"
        await self._bury()
        if not await self.turns.take(self.task, holder):
            raise NotOurTurn("another process is at it")
        beat = LoopingCall(self._renew, holder)
        beat.clock = self.clock
        over = beat.start(TURN_TERM / 4, now=False)
        try:
            return await work()
        finally:
            beat.stop()
            # What is under way would bring back what is given back here.
            await over
            try:
                await self.turns.end(self.task, holder)
            except Exception:  # noqa: BLE001 - it will be found to be old
                log.failure("the turn of {task} could not be given back", task=self.task)

    async def note(self, record: Record) -> None:
        """Let all know how a run ended; that this fails is no failure of the run."""
        try:
            await self.turns.note(self.task, record)
        except Exception:  # noqa: BLE001 - the next run is noted again
            log.failure("the end of {task} could not be noted", task=self.task)

    async def _check_last(self) -> None:
        last = await self.turns.last(self.task)
        if last is None or last.failure or last.settings != self.settings:
            return
        ended = await self.turns.age(self.task)
        if ended is not None and ended + last.seconds < self.interval / 2:
            raise NotOurTurn(f"{last.by} did it {ended:.0f} s ago")

    async def _bury(self) -> None:
        """Do not wait for a process of this host that is gone, or was our own predecessor."""
        found = await self.turns.holder(self.task)
        host, _, rest = (found or "").partition(" ")
        pid = rest.partition(" ")[0]
        if found and host == socket.gethostname() and pid.isdecimal() and not _lives(int(pid)):
            await self.turns.end(self.task, found)

    def _renew(self, holder: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._attempt(holder))

    async def _attempt(self, holder: str) -> None:
        try:
            if not await self.turns.renew(self.task, holder) and not self._lost:
                self._lost = True
                log.warn("another process runs {task} as well, which does no harm", task=self.task)
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - the next beat tries again
            log.failure("the turn of {task} could not be renewed", task=self.task)


def _lives(pid: int) -> bool:
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
