"""Whose turn it is: of all processes that share a store, one at a time runs a task.

A file that only one can create says who runs a task; its time is renewed for as long as the run
goes on. One that was not renewed for a while was left by a process that is gone, and is taken over.
Two that take it over in the same moment may both go on: no task relies on being alone, it would
only do the work twice.

One run of a task among all processes that share a store.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import asdict, fields, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import store_time
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver

    # @@EMPTY
    Work = Callable[[], Coroutine[Deferred[object], object, object]]

#: Seconds after which a turn that was not renewed is over.
LEASE_TTL_S = 60.0
#: Bytes of a file.
_MAX_RECORD_BYTES = 1024 * 1024


@frozen
class RunRecord:
    """How a run of a task ended.

    :ivar began: seconds since the epoch, by the clock of the process that ran it.
    :ivar seconds: how long it took.
    :ivar result: what it answered, as JSON can say it; None if it failed.
    :ivar failure: why it failed; empty if it did not.
    :ivar by: host and process.
    :ivar settings: what the task was told to do, in words that are compared and not read.
    """

    began: float
    seconds: float
    result: Any = None
    failure: str = ""
    by: str = ""
    settings: str = ""

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return json.dumps(asdict(self), default=str).encode("ascii")

    def as_dict(self) -> dict[str, Any]:
        """What people and programs are told of it, ready for JSON."""
        told = {name: value for name, value in asdict(self).items() if name != "settings"}
        as_dict: dict[str, Any] = json.loads(json.dumps(told, default=str))
        return as_dict

    @classmethod
    def from_bytes(cls, content: bytes) -> RunRecord | None:
        """Read the file; None if it is torn, or another version's."""
        try:
            found = json.loads(content)
            known = {name: found[name] for name in found if name in _RECORD_FIELDS}
            record = cls(**known)
            return record if record.began + record.seconds >= 0 else None
        except (ValueError, TypeError):
            return None


_RECORD_FIELDS = frozenset(item.name for item in fields(RunRecord))


class TaskLeases:
    """The turns of all tasks of a store."""

    def __init__(self, driver: IStorageDriver) -> None:
        self.driver = driver

    @translate_storage_errors
    async def acquire(self, task: str, holder: str) -> bool:
        """Begin a turn, and return whether nobody else has one.

        :param holder: names this turn, and no other.
        """
        path, content = layout.task_running(task), holder.encode("ascii")
        if await self._is_held(task):
            return False
        with suppress(PathNotFound):
            await self.driver.delete(path)
        try:
            await self.driver.create(path, content)
        except PathExists:
            return False
        except MethodUnsupported:
            await self.driver.put(path, content)
        return await self.holder(task) == holder

    @translate_storage_errors
    async def renew(self, task: str, holder: str) -> bool:
        """Go on with a turn, and return whether nobody has taken it over."""
        if await self.holder(task) != holder:
            return False
        path = layout.task_running(task)
        await self.driver.put(path, holder.encode("ascii"), durable=False)
        return True

    @translate_storage_errors
    async def release(self, task: str, holder: str) -> None:
        """End a turn, if nobody has taken it over."""
        if await self.holder(task) == holder:
            with suppress(PathNotFound):
                await self.driver.delete(layout.task_running(task))

    @translate_storage_errors
    async def holder(self, task: str) -> str | None:
        """Who has the turn, or had it when he died; None if nobody has."""
        try:
            content = await self.driver.get(layout.task_running(task), _MAX_RECORD_BYTES)
        except PathNotFound:
            return None
        return content.decode("ascii", "replace")

    @translate_storage_errors
    async def current_holder(self, task: str) -> str | None:
        """Who runs a task now; None if nobody does."""
        return await self.holder(task) if await self._is_held(task) else None

    @translate_storage_errors
    async def record_run(self, task: str, record: RunRecord) -> None:
        """Let all know how a run ended."""
        await self.driver.put(layout.task_last(task), record.to_bytes(), durable=False)

    @translate_storage_errors
    async def last_run(self, task: str) -> RunRecord | None:
        """How the run that ended last went, whoever's it was; None if none is known."""
        try:
            return RunRecord.from_bytes(
                await self.driver.get(layout.task_last(task), _MAX_RECORD_BYTES)
            )
        except PathNotFound:
            return None

    async def seconds_since_last_run(self, task: str) -> float | None:
        """How many seconds ago that run ended, by the clock of the store; None if none did."""
        return await self._seconds_since(layout.task_last(task))

    async def _is_held(self, task: str) -> bool:
        age = await self._seconds_since(layout.task_running(task))
        return age is not None and age < LEASE_TTL_S

    @translate_storage_errors
    async def _seconds_since(self, path: str) -> float | None:
        try:
            entry = await self.driver.stat(path)
        except PathNotFound:
            return None
        return await store_time(self.driver) - (entry.modified or 0) / 1e9


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
        self,
        leases: TaskLeases,
        task: str,
        clock: IReactorTime,
        interval: float,
        settings: str = "",
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
