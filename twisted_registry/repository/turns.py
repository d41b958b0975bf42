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
from twisted_registry.repository.failures import translated
from twisted_registry.repository.removal import Removal
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound
from twisted_registry.value import Value

if TYPE_CHECKING:
    from twisted_registry.storage.interfaces import IStorageDriver

#: Seconds after which a turn that was not renewed is over.
TURN_TERM = 60.0
#: Bytes of a file.
_LIMIT = 1024 * 1024


@frozen(eq=False, repr=False)
class Record(Value):
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

    def shown(self) -> dict[str, Any]:
        """What people and programs are told of it, ready for JSON."""
        told = {name: value for name, value in asdict(self).items() if name != "settings"}
        shown: dict[str, Any] = json.loads(json.dumps(told, default=str))
        return shown

    @classmethod
    def from_bytes(cls, content: bytes) -> Record | None:
        """Read the file; None if it is torn, or another version's."""
        try:
            found = json.loads(content)
            known = {name: found[name] for name in found if name in _FIELDS}
            record = cls(**known)
            return record if record.began + record.seconds >= 0 else None
        except (ValueError, TypeError):
            return None


_FIELDS = frozenset(item.name for item in fields(Record))


class Turns:
    """The turns of all tasks of a store."""

    def __init__(self, driver: IStorageDriver) -> None:
        self.driver = driver
        self._removal = Removal(driver)

    @translated
    async def take(self, task: str, holder: str) -> bool:
        """Begin a turn, and return whether nobody else has one.

        :param holder: names this turn, and no other.
        """
        path, content = layout.task_running(task), holder.encode("ascii")
        if await self._is_taken(task):
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

    @translated
    async def renew(self, task: str, holder: str) -> bool:
        """Go on with a turn, and return whether nobody has taken it over."""
        if await self.holder(task) != holder:
            return False
        path = layout.task_running(task)
        await self.driver.put(path, holder.encode("ascii"), durable=False)
        return True

    @translated
    async def end(self, task: str, holder: str) -> None:
        """End a turn, if nobody has taken it over."""
        if await self.holder(task) == holder:
            with suppress(PathNotFound):
                await self.driver.delete(layout.task_running(task))

    @translated
    async def holder(self, task: str) -> str | None:
        """Who has the turn, or had it when he died; None if nobody has."""
        try:
            content = await self.driver.get(layout.task_running(task), _LIMIT)
        except PathNotFound:
            return None
        return content.decode("ascii", "replace")

    @translated
    async def runner(self, task: str) -> str | None:
        """Who runs a task now; None if nobody does."""
        return await self.holder(task) if await self._is_taken(task) else None

    @translated
    async def note(self, task: str, record: Record) -> None:
        """Let all know how a run ended."""
        await self.driver.put(layout.task_last(task), record.to_bytes(), durable=False)

    @translated
    async def last(self, task: str) -> Record | None:
        """How the run that ended last went, whoever's it was; None if none is known."""
        try:
            return Record.from_bytes(await self.driver.get(layout.task_last(task), _LIMIT))
        except PathNotFound:
            return None

    async def age(self, task: str) -> float | None:
        """How many seconds ago that run ended, by the clock of the store; None if none did."""
        return await self._age(layout.task_last(task))

    async def _is_taken(self, task: str) -> bool:
        age = await self._age(layout.task_running(task))
        return age is not None and age < TURN_TERM

    @translated
    async def _age(self, path: str) -> float | None:
        try:
            entry = await self.driver.stat(path)
        except PathNotFound:
            return None
        return await self._removal.time() - (entry.modified or 0) / 1e9
