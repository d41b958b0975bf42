"""The chores of a registry: which there are, and how each is made of the configuration.

Of all processes that share a store one at a time does a chore, see
:mod:`twisted_registry.repository.leases`. One more chore is one more line in :func:`chores`, and a
function that makes what one run does.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from twisted_registry.maintenance.attendance import GateHeartbeat
from twisted_registry.maintenance.task import PeriodicTask
from twisted_registry.maintenance.turn import TaskLease
from twisted_registry.repository.disposal import Deleter, Trash
from twisted_registry.repository.turns import TaskLeases
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
_HEARTBEAT_S = 2.0
_REMOTE_HEARTBEAT_S = 10.0


class TaskDefinition:
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
        make: Callable[[MaintenanceService], Work],
        settings: object,
        *,
        enabled: bool,
    ) -> None:
        self.name = name
        self.enabled = enabled
        self.interval = interval
        self.make = make
        self.settings = settings


def chores(maintenance: Maintenance) -> Iterable[TaskDefinition]:
    """All chores that there are, enabled or not."""
    purging, gc = maintenance.uploadpurging, maintenance.gc
    if purging is not None:
        yield TaskDefinition("uploadpurging", purging.interval, _make_purge, purging, enabled=purging.enabled)
    yield TaskDefinition("gc", gc.interval, _make_collection, gc, enabled=gc.enabled)
    trash = maintenance.trash
    yield TaskDefinition("trash", trash.interval, _make_trash_expiry, trash, enabled=trash.keep > 0)
    retention = maintenance.retention
    yield TaskDefinition("retention", retention.interval, _make_retention_run, retention, enabled=retention.enabled)
    scrub = maintenance.scrub
    yield TaskDefinition("scrub", scrub.interval, _make_scrub_run, scrub, enabled=scrub.enabled)


def _make_purge(service: MaintenanceService) -> Work:
    # Not at the start: it is first done minutes later.
    from twisted_registry.maintenance.purge import UploadPurge  # noqa: PLC0415

    purging = service.maintenance.uploadpurging
    assert purging is not None
    return UploadPurge(service.registry, service.reactor, purging.age, purging.dryrun).run


def _make_collection(service: MaintenanceService) -> Work:
    from twisted_registry.collecting import make_collector  # noqa: PLC0415 - few do it

    gc = service.maintenance.gc
    collector = make_collector(
        service.configuration,
        service.driver,
        service.reactor,
        untagged=gc.deleteuntagged,
        dry_run=gc.dryrun,
    )
    service.close_at_stop(collector.references.close)
    return collector.run


def _make_trash_expiry(service: MaintenanceService) -> Work:
    from twisted_registry.collecting import make_trash_expiry  # noqa: PLC0415 - few do it

    trash_expiry = make_trash_expiry(
        service.configuration, service.driver, service.reactor, service.maintenance.trash.keep
    )
    service.close_at_stop(trash_expiry.mark_phase.references.close)
    return trash_expiry.run


def _make_retention_run(service: MaintenanceService) -> Work:
    dry_run = service.maintenance.retention.dryrun
    made = make_retention(service.configuration, service.registry, service.driver, dry_run=dry_run)
    return made.run


def _make_scrub_run(service: MaintenanceService) -> Work:
    # Only here: few processes read all that is stored.
    from twisted_registry.checks import make_scrub  # noqa: PLC0415

    return make_scrub(service.configuration, service.driver, service.reactor)


class MaintenanceService(MultiService):
    """The chores of one store: a :class:`~twisted_registry.maintenance.task.PeriodicTask` for each.

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
        self.leases = TaskLeases(driver)
        self.chores: Mapping[str, TaskDefinition] = {chore.name: chore for chore in chores(self.maintenance)}
        for chore in self.chores.values():
            self._task(chore).setServiceParent(self)

    def task(self, name: str) -> PeriodicTask:
        """The task of a chore.

        :raises KeyError: if there is none of that name.
        """
        task: PeriodicTask = self.getServiceNamed(name)
        return task

    async def status(self) -> list[dict[str, Any]]:
        """How the tasks are, in all processes that share the store; ready for JSON.

        Of each: ``name``, ``enabled``, ``interval`` in seconds, ``running`` (who is at it, or
        None), ``last_run`` (how the run that ended last went, wherever it ran); and of this process:
        ``next`` (seconds since the epoch, or None), ``runs``, ``failures`` and ``skipped``.

        :raises RegistryError: if the store does not answer.
        """
        found = []
        for chore in self.chores.values():
            task = self.task(chore.name)
            last_run = await self.leases.last_run(chore.name)
            found.append(
                {
                    "name": chore.name,
                    "enabled": chore.enabled,
                    "interval": chore.interval,
                    "running": await self.leases.current_holder(chore.name),
                    "last": None if last_run is None else last_run.as_dict(),
                    "next": task.next,
                    "runs": task.runs,
                    "failures": task.failures,
                    "passed_over": task.skipped,
                }
            )
        return found

    def _task(self, chore: TaskDefinition) -> PeriodicTask:
        made: list[Work] = []

        async def work() -> object:
            if not made:
                made.append(chore.make(self))
            return await made[0]()

        lease = TaskLease(self.leases, chore.name, self.reactor, chore.interval, repr(chore.settings))
        interval = chore.interval if chore.enabled else None
        return PeriodicTask(chore.name, work, self.reactor, interval, random, lease)

    @property
    def maintenance(self) -> Maintenance:
        """The section of the configuration that this is about."""
        return self.configuration.storage.maintenance

    def close_at_stop(self, close: Callable[[], Deferred[None]]) -> None:
        """Have something closed when the tasks have stopped."""
        self._closing.append(close)

    def stopService(self) -> Deferred[None]:
        """Stop the tasks, then close what they had open."""
        return Deferred.fromCoroutine(self._close(super().stopService()))

    async def _close(self, stopping: Deferred[Any]) -> None:
        await stopping
        for close in self._closing:
            await close()


def make_gate_heartbeat(gate: CollectorGate, configuration: Configuration, reactor: Any) -> GateHeartbeat:
    """What keeps the collector's gate of a serving process informed."""
    far = configuration.storage.bucket is not None
    return GateHeartbeat(gate, reactor, _REMOTE_HEARTBEAT_S if far else _HEARTBEAT_S, _HEARTBEAT_S)


def make_trash(configuration: Configuration, driver: IStorageDriver, reactor: Any) -> Deleter:
    """How things are removed from the store of a configuration: for good, or into the trash.

    :param driver: of that store.
    """
    if configuration.storage.maintenance.trash.keep:
        return Trash(driver, reactor)
    return Deleter(driver)
