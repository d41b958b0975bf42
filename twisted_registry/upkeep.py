"""The chores of a registry: which there are, and how each is made of the configuration.

Of all processes that share a store one at a time does a chore, see
:mod:`twisted_registry.repository.turns`. One more chore is one more line in :func:`chores`, and a
function that makes what one run does.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from twisted_registry.maintenance.attendance import Attendance
from twisted_registry.maintenance.task import Task
from twisted_registry.maintenance.turn import Turn
from twisted_registry.repository.disposal import Disposal, Trash
from twisted_registry.repository.turns import Turns
from twisted_registry.retaining import make_retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twisted_registry.config.schema import Configuration
    from twisted_registry.config.storing import Maintenance
    from twisted_registry.maintenance.turn import Work
    from twisted_registry.repository.gate import CollectorGate
    from twisted_registry.repository.registry import Registry
    from twisted_registry.storage.interfaces import IStorageDriver

#: Seconds between two looks for a collector's list, on a store of this machine and on one that
#: may count requests.
_ATTENDING = 2.0
_ATTENDING_FAR = 10.0


class Chore:
    """A chore of which nothing is made yet.

    :ivar name: of its section below ``storage.maintenance``, and of its task.
    :ivar enabled: whether it is done at intervals.
    :ivar interval: seconds from one run to the next.
    :ivar make: makes what one run does, when it is first done; imports what only this chore needs.
    :ivar settings: its section of the configuration.
    """

    def __init__(
        self,
        name: str,
        interval: float,
        make: Callable[[Upkeep], Work],
        settings: object,
        *,
        enabled: bool,
    ) -> None:
        self.name = name
        self.enabled = enabled
        self.interval = interval
        self.make = make
        self.settings = settings


def chores(maintenance: Maintenance) -> Iterable[Chore]:
    """All chores that there are, enabled or not."""
    purging, gc = maintenance.uploadpurging, maintenance.gc
    if purging is not None:
        yield Chore("uploadpurging", purging.interval, _purge, purging, enabled=purging.enabled)
    yield Chore("gc", gc.interval, _collect, gc, enabled=gc.enabled)
    trash = maintenance.trash
    yield Chore("trash", trash.interval, _empty, trash, enabled=trash.keep > 0)
    retention = maintenance.retention
    yield Chore("retention", retention.interval, _retain, retention, enabled=retention.enabled)
    scrub = maintenance.scrub
    yield Chore("scrub", scrub.interval, _scrub, scrub, enabled=scrub.enabled)


def _purge(upkeep: Upkeep) -> Work:
    # Not at the start: it is first done minutes later.
    from twisted_registry.maintenance.purge import Purge  # noqa: PLC0415

    purging = upkeep.maintenance.uploadpurging
    assert purging is not None
    return Purge(upkeep.registry, upkeep.reactor, purging.age, purging.dryrun).run


def _collect(upkeep: Upkeep) -> Work:
    from twisted_registry.collecting import make_collector  # noqa: PLC0415 - few do it

    gc = upkeep.maintenance.gc
    collector = make_collector(
        upkeep.configuration,
        upkeep.driver,
        upkeep.reactor,
        untagged=gc.deleteuntagged,
        dry_run=gc.dryrun,
    )
    upkeep.at_end(collector.references.close)
    return collector.run


def _empty(upkeep: Upkeep) -> Work:
    from twisted_registry.collecting import make_emptying  # noqa: PLC0415 - few do it

    emptying = make_emptying(
        upkeep.configuration, upkeep.driver, upkeep.reactor, upkeep.maintenance.trash.keep
    )
    upkeep.at_end(emptying.marking.references.close)
    return emptying.run


def _retain(upkeep: Upkeep) -> Work:
    dry_run = upkeep.maintenance.retention.dryrun
    made = make_retention(upkeep.configuration, upkeep.registry, upkeep.driver, dry_run=dry_run)
    return made.run


def _scrub(upkeep: Upkeep) -> Work:
    # Only here: few processes read all that is stored.
    from twisted_registry.checks import make_scrub  # noqa: PLC0415

    return make_scrub(upkeep.configuration, upkeep.driver, upkeep.reactor)


class Upkeep(MultiService):
    """The chores of one store: a :class:`~twisted_registry.maintenance.task.Task` for each.

    Those that are not enabled are only done by hand.

    :ivar registry: what is kept up.
    :ivar driver: of its store, checked.
    :ivar turns: tells who is at it, and how the runs ended, in all processes.
    :ivar chores: all that there are, by name.
    """

    def __init__(
        self, registry: Registry, driver: IStorageDriver, configuration: Configuration, reactor: Any
    ) -> None:
        """Make the tasks."""
        super().__init__()
        self.setName("maintenance")
        self.registry = registry
        self.driver = driver
        self.configuration = configuration
        self.reactor = reactor
        self._closing: list[Callable[[], Deferred[None]]] = []
        self.turns = Turns(driver)
        self.chores: Mapping[str, Chore] = {chore.name: chore for chore in chores(self.maintenance)}
        for chore in self.chores.values():
            self._task(chore).setServiceParent(self)

    def task(self, name: str) -> Task:
        """The task of a chore.

        :raises KeyError: if there is none of that name.
        """
        task: Task = self.getServiceNamed(name)
        return task

    async def status(self) -> list[dict[str, Any]]:
        """How the tasks are, in all processes that share the store; ready for JSON.

        Of each: ``name``, ``enabled``, ``interval`` in seconds, ``running`` (who is at it, or
        None), ``last`` (how the run that ended last went, wherever it ran); and of this process:
        ``next`` (seconds since the epoch, or None), ``runs``, ``failures`` and ``passed_over``.

        :raises RegistryError: if the store does not answer.
        """
        found = []
        for chore in self.chores.values():
            task = self.task(chore.name)
            last = await self.turns.last(chore.name)
            found.append(
                {
                    "name": chore.name,
                    "enabled": chore.enabled,
                    "interval": chore.interval,
                    "running": await self.turns.runner(chore.name),
                    "last": None if last is None else last.shown(),
                    "next": task.next,
                    "runs": task.runs,
                    "failures": task.failures,
                    "passed_over": task.passed_over,
                }
            )
        return found

    def _task(self, chore: Chore) -> Task:
        made: list[Work] = []

        async def work() -> object:
            if not made:
                made.append(chore.make(self))
            return await made[0]()

        turn = Turn(self.turns, chore.name, self.reactor, chore.interval, repr(chore.settings))
        interval = chore.interval if chore.enabled else None
        return Task(chore.name, work, self.reactor, interval, random, turn)

    @property
    def maintenance(self) -> Maintenance:
        """The section of the configuration that this is about."""
        return self.configuration.storage.maintenance

    def at_end(self, close: Callable[[], Deferred[None]]) -> None:
        """Have something closed when the tasks have stopped."""
        self._closing.append(close)

    def stopService(self) -> Deferred[None]:
        """Stop the tasks, then close what they had open."""
        return Deferred.fromCoroutine(self._close(super().stopService()))

    async def _close(self, stopping: Deferred[Any]) -> None:
        await stopping
        for close in self._closing:
            await close()


def make_attendance(gate: CollectorGate, configuration: Configuration, reactor: Any) -> Attendance:
    """What keeps the collector's gate of a serving process informed."""
    far = configuration.storage.bucket is not None
    return Attendance(gate, reactor, _ATTENDING_FAR if far else _ATTENDING, _ATTENDING)


def make_disposal(configuration: Configuration, driver: IStorageDriver, reactor: Any) -> Disposal:
    """How things are removed from the store of a configuration: for good, or into the trash.

    :param driver: of that store.
    """
    if configuration.storage.maintenance.trash.keep:
        return Trash(driver, reactor)
    return Disposal(driver)
