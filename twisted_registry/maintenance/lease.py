"""Leases by which one process at a time runs a task, of all processes that share a store.

The lease is a file that only one process can create. It has the holder, and its modification time
is renewed while the task runs. A lease that was not renewed for a minute, or whose holder has
certainly exited, was left by a dead process and is taken over. Two processes that take it over at
the same moment may both run the task: all tasks are safe then, the work is only done twice.

Beside the lease, the record of the last run is stored, so that a process does not repeat what
another one has done shortly before.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import asdict, define, field, frozen, has
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.liveness import has_exited, process_identity
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver

    Work = Callable[[], Coroutine[Deferred[object], object, object]]

log = Logger()

#: Seconds after which a lease that was not renewed is over.
LEASE_TTL_S = 60.0
_RENEWAL_INTERVAL_S = LEASE_TTL_S / 4
_MAX_FILE_BYTES = 1024 * 1024
#: Fields of :class:`TaskRun` that are stored.
_RECORD_FIELDS = ("began", "seconds", "result", "failure", "by", "settings")


class RunSkipped(Exception):
    """The task is not run; the text has the reason."""


@frozen
class TaskRun:
    """One run of a task that has ended.

    :ivar began: seconds since the epoch, by the clock of the process that ran it.
    :ivar seconds: how long it took.
    :ivar result: what it returned; of a stored run, as plain JSON values. None if it failed.
    :ivar failure: why it failed; empty if it succeeded.
    :ivar skipped: why it was left to another process; empty if it was run. Not stored.
    :ivar by: host name and process ID.
    :ivar settings: the settings of the task, as text that is only compared.
    """

    began: float
    seconds: float
    result: Any = None
    failure: str = ""
    skipped: str = ""
    by: str = ""
    settings: str = ""

    @classmethod
    def ended(cls, began: float, now: float, result: object) -> TaskRun:
        """Return the run of this process that began at a time, and has succeeded now."""
        return cls(began, now - began, result, by=host_and_pid())

    def to_bytes(self) -> bytes:
        """Return the content of the record of this run."""
        return json.dumps(self._plain()).encode("ascii")

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON: all stored fields, without the settings."""
        plain = self._plain()
        del plain["settings"]
        return plain

    @classmethod
    def from_bytes(cls, content: bytes) -> TaskRun | None:
        """Parse a record; None if it is torn. Fields of later versions are ignored."""
        try:
            found = json.loads(content)
            run = cls(**{name: found[name] for name in found if name in _RECORD_FIELDS})
            return run if run.began + run.seconds >= 0 else None
        except (ValueError, TypeError):
            return None

    def _plain(self) -> dict[str, Any]:
        result = asdict(self.result) if has(type(self.result)) else self.result
        fields = {name: getattr(self, name) for name in _RECORD_FIELDS}
        plain: dict[str, Any] = json.loads(json.dumps({**fields, "result": result}, default=str))
        return plain


def host_and_pid() -> str:
    """Return the name of this process in records."""
    return f"{socket.gethostname()} {os.getpid()}"


@define(eq=False, repr=False)
class TaskLease:
    """The lease of one task, as one process uses it.

    :ivar task: name of the task.
    :ivar clock: measures durations; it must not be set.
    :ivar interval_s: seconds between two scheduled runs. A scheduled run is skipped if another
        process ran the task less than half of that ago, with the same settings.
    :ivar settings: the settings of the task, as text that is only compared.
    :ivar jumps: corrects ages after the clock was set.
    """

    driver: IStorageDriver
    task: str
    clock: IReactorTime
    interval_s: float
    settings: str = ""
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)
    #: the time of the lease of another process, and when it was first seen to have that
    _seen: tuple[float | None, float] = field(init=False, default=(None, 0.0))
    _is_taken_over: bool = field(init=False, default=False)

    async def run_exclusively(self, work: Work, *, scheduled: bool) -> object:
        """Run the task while holding the lease, and return its result.

        Without space for the lease, the task runs without one.

        :param scheduled: whether the run may be skipped because another process did it recently.
        :raises RunSkipped: if another process runs the task, or did so recently.
        :raises RegistryError: if the store fails.
        """
        if scheduled:
            await self._skip_if_recent()
        holder = f"{host_and_pid()} {uuid4()} {process_identity()}"
        try:
            if not await self._acquire(holder):
                raise RunSkipped("another process runs this task")
        except RegistryError as error:
            if error.status != HTTPStatus.INSUFFICIENT_STORAGE:
                raise
            # The task may free space, and two runs at once do no harm.
            log.warn("disk is full, the task runs without a lease task={task}", task=self.task)
            return await work()
        renewal = LoopingCall(self._renew, holder)
        renewal.clock = self.clock
        renewal_ended = renewal.start(_RENEWAL_INTERVAL_S, now=False)
        try:
            return await work()
        finally:
            renewal.stop()
            # A renewal under way would restore the lease after its release.
            await renewal_ended
            try:
                await self._release_once_more_if_cancelled(holder)
            except Exception:  # noqa: BLE001 - the lease expires by itself
                log.failure("lease could not be released task={task}", task=self.task)

    async def record_run(self, run: TaskRun) -> None:
        """Store the record of a run. An error is logged only: the run itself has succeeded."""
        try:
            path = layout.task_last(self.task)
            await self.driver.put(path, run.to_bytes(), durable=False)
        except Exception:  # noqa: BLE001 - the next run is recorded again
            log.failure("run could not be recorded task={task}", task=self.task)

    @translate_storage_errors
    async def last_run(self) -> TaskRun | None:
        """Return the last run of any process; None if there is none, or its record is torn."""
        try:
            path = layout.task_last(self.task)
            return TaskRun.from_bytes(await self.driver.get(path, _MAX_FILE_BYTES))
        except PathNotFound:
            return None

    @translate_storage_errors
    async def current_holder(self) -> str | None:
        """Return host name, process ID and lease ID of who runs the task now, or None."""
        if not await self._is_held():
            return None
        holder = await self._read_holder()
        return None if holder is None else " ".join(holder.split(" ")[:3])

    async def _skip_if_recent(self) -> None:
        run = await self.last_run()
        if run is None or run.failure or run.settings != self.settings:
            return
        ended_at = await self._modified_at(layout.task_last(self.task))
        span_s = self.interval_s / 2 - run.seconds
        since = await time_before(self.driver, span_s, self.jumps)
        if ended_at is not None and ended_at > since:
            raise RunSkipped(f"{run.by} did it {since + span_s - ended_at:.0f} s ago")

    @translate_storage_errors
    async def _acquire(self, holder: str) -> bool:
        """Take the lease unless another process holds it, and return whether that is done."""
        path, content = layout.task_running(self.task), holder.encode("ascii")
        if await self._is_held():
            return False
        with suppress(PathNotFound):
            await self.driver.delete(path)
        try:
            await self.driver.create(path, content)
        except PathExists:
            return False
        except MethodUnsupported:
            await self.driver.put(path, content)
        return await self._read_holder() == holder

    async def _release_once_more_if_cancelled(self, holder: str) -> None:
        try:
            await self._release(holder)
        except CancelledError:
            # The task is stopped at its end, which must not leave the lease.
            await self._release(holder)

    @translate_storage_errors
    async def _release(self, holder: str) -> None:
        if await self._read_holder() == holder:
            with suppress(PathNotFound):
                await self.driver.delete(layout.task_running(self.task))

    async def _is_held(self) -> bool:
        renewed_at, now = (
            await self._modified_at(layout.task_running(self.task)),
            self.clock.seconds(),
        )
        if renewed_at is None or renewed_at <= await time_before(
            self.driver, LEASE_TTL_S, self.jumps
        ):
            return False
        if self._seen[0] != renewed_at:
            self._seen = renewed_at, now
        elif now - self._seen[1] >= LEASE_TTL_S:
            # The clock was set back, so that the lease of a dead process has a time to come.
            return False
        *_, identity = (await self._read_holder() or "").rpartition(" ")
        return not has_exited(identity)

    @translate_storage_errors
    async def _read_holder(self) -> str | None:
        try:
            content = await self.driver.get(layout.task_running(self.task), _MAX_FILE_BYTES)
        except PathNotFound:
            return None
        return content.decode("ascii", "replace")

    @translate_storage_errors
    async def _modified_at(self, path: str) -> float | None:
        """Return when a file was written, by the clock of the store; None without one."""
        try:
            entry = await self.driver.stat(path)
        except PathNotFound:
            return None
        return entry.modified_s or 0

    async def _renew(self, holder: str) -> None:
        try:
            if await self._read_holder() == holder:
                path = layout.task_running(self.task)
                await self.driver.put(path, holder.encode("ascii"), durable=False)
            elif not self._is_taken_over:
                self._is_taken_over = True
                log.warn("lease was taken over, two processes run task={task}", task=self.task)
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - retried with the next renewal
            log.failure("lease could not be renewed task={task}", task=self.task)
