"""Whose turn it is: of all processes that share a store, one at a time runs a task.

A file that only one can create says who runs a task; its time is renewed for as long as the run
goes on. One that was not renewed for a while was left by a process that is gone, and is taken over.
Two that take it over in the same moment may both go on: no task relies on being alone, it would
only do the work twice.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import asdict, fields, frozen

from twisted_registry.repository import layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.repository.removal import Sweeper
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from twisted_registry.storage.interfaces import IStorageDriver

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
        self._sweeper = Sweeper(driver)

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
            return RunRecord.from_bytes(await self.driver.get(layout.task_last(task), _MAX_RECORD_BYTES))
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
        return await self._sweeper.store_time() - (entry.modified or 0) / 1e9
