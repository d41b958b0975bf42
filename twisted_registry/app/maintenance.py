"""Maintenance of a store: the periodic tasks, and everything they and the commands work with.

Each task of ``storage.maintenance`` runs in one process at a time of all that share a store (see
:mod:`twisted_registry.maintenance.lease`). To add a task, add a line to :func:`task_definitions`
and a function that makes one run.
"""

from __future__ import annotations

from collections import Counter
from random import random
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from twisted_registry.app.stores import immutable_tags, quota_areas
from twisted_registry.gc.delete_list import SETTLE_S
from twisted_registry.gc.gate import CollectorGate, GateHeartbeat
from twisted_registry.maintenance.lease import RunSkipped, TaskLease
from twisted_registry.maintenance.purge import UploadPurge
from twisted_registry.maintenance.reserve import ReserveKeeper
from twisted_registry.maintenance.task import PeriodicTask
from twisted_registry.maintenance.watermark import FillLevel, Watermark, used_fraction
from twisted_registry.oci.patterns import Glob, GlobSet
from twisted_registry.repository.clock import ClockJumps, monotonic_clock
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.policy import TagSelector
from twisted_registry.repository.trash import Deleter, IDeleter, TrashDeleter
from twisted_registry.storage.fallbacks import with_reserve
from twisted_registry.storage.interfaces import IReserve
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twisted_registry.api.resource import RegistryResource
    from twisted_registry.config.schema import Configuration
    from twisted_registry.config.storage import Maintenance
    from twisted_registry.gc.collector import CollectionResult
    from twisted_registry.gc.expire_trash import TrashExpiryResult
    from twisted_registry.integrity.scrub import ScrubResult
    from twisted_registry.maintenance.lease import Work
    from twisted_registry.maintenance.quota_count import QuotaCount, QuotaSynchronizer
    from twisted_registry.maintenance.retention import Decision, TagRetention
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.quotas import Quotas
    from twisted_registry.repository.registry import Registry
    from twisted_registry.storage.interfaces import IStorageDriver

#: Seconds between two looks for a collector's delete list, and while one is published, because
#: pushes may wait for its end. In a bucket, requests may be billed.
_HEARTBEAT_S = 2.0
_BUSY_HEARTBEAT_S = 0.5
_REMOTE_HEARTBEAT_S = 10.0
_REMOTE_BUSY_HEARTBEAT_S = 2.0
#: Seconds for which a digest that was reported as present is protected, unless the grace period is
#: shorter.
_MAX_PRESENCE_LEASE_S = 600.0
#: Seconds between two measurements of the disk.
_WATERMARK_INTERVAL_S = 5.0
#: The name of the task that counts what is in use of quotas.
_QUOTAS = "quotas"
#: Seconds between two exchanges of what is in use of quotas, on a local store and in a bucket, and
#: how many of them a count waits for.
_QUOTA_EXCHANGE_S = 1.0
_REMOTE_QUOTA_EXCHANGE_S = 10.0
_QUOTA_SETTLE_EXCHANGES = 3
#: Text of the Warning header while the disk is nearly full.
_NEARLY_FULL_WARNING = "the storage of this registry is nearly full"


def _no_bytes(result: object) -> int:  # noqa: ARG001
    return 0


def _size_of(result: CollectionResult | TrashExpiryResult) -> int:
    return result.size


@frozen
class TaskDefinition:
    """The settings of a periodic task, and how it is made.

    :ivar name: of the task, and of its section below ``storage.maintenance``.
    :ivar interval: seconds from one run to the next.
    :ivar make: makes the function that does one run; called before the first run.
    :ivar settings: its section of the configuration.
    :ivar enabled: whether it runs at intervals; otherwise it runs only on request.
    :ivar freed_bytes: returns how many bytes of the store a run has freed, given its result.
    """

    name: str
    interval: float
    make: Callable[[MaintenanceService], Work]
    settings: object
    enabled: bool
    freed_bytes: Callable[[Any], int] = _no_bytes


def task_definitions(configuration: Configuration) -> Iterable[TaskDefinition]:
    """Yield the definitions of all tasks, enabled or not."""
    maintenance = configuration.storage.maintenance
    purge, gc, trash = maintenance.uploadpurging, maintenance.gc, maintenance.trash
    retention, scrub = maintenance.retention, maintenance.scrub
    yield TaskDefinition("uploadpurging", purge.interval, _make_purge, purge, purge.enabled)
    # Into the trash the bytes are only moved.
    freed = _no_bytes if gc.dryrun or trash.keep else _size_of
    yield TaskDefinition("gc", gc.interval, _make_collection, gc, gc.enabled, freed)
    yield TaskDefinition(
        "trash", trash.interval, _make_trash_expiry, trash, trash.keep > 0, _size_of
    )
    yield TaskDefinition(
        "retention", retention.interval, _make_retention_run, retention, retention.enabled
    )
    yield TaskDefinition("scrub", scrub.interval, _make_scrub_run, scrub, scrub.enabled)
    tokens = maintenance.tokenpurging
    enabled = tokens.enabled and configuration.tokens is not None
    yield TaskDefinition("tokenpurging", tokens.interval, _make_token_purge, tokens, enabled)
    areas = sorted(quota_areas(configuration))
    yield TaskDefinition(
        _QUOTAS, maintenance.quotas.interval, _make_quota_count, areas, bool(areas)
    )


class MaintenanceService(MultiService):
    """The tasks of one store: a :class:`~twisted_registry.maintenance.task.PeriodicTask` for each.

    A task that is not enabled runs only on request.

    :ivar registry: the registry that the tasks maintain.
    :ivar driver: the checked driver of its store.
    :ivar clock_jumps: sees when the clock of this machine is set. Each task skips its next run
        then.
    :ivar leases: by the names of the tasks: which process runs a task, and how its last run ended.
    :ivar task_definitions: all tasks, by name.
    :ivar freed_bytes: bytes of the store that runs of this process have freed, by task.
    :ivar partial_result: the result so far of a run of the scrub; None before.
    """

    def __init__(
        self,
        registry: Registry,
        driver: IStorageDriver,
        configuration: Configuration,
        reactor: Any,
        clock_jumps: ClockJumps | None = None,
    ) -> None:
        """Make the tasks; none is started.

        :param clock_jumps: sees when the clock of this machine is set.
        """
        super().__init__()
        self.setName("maintenance")
        self.registry = registry
        self.driver = driver
        self.configuration = configuration
        self.reactor = reactor
        self.clock_jumps = clock_jumps or ClockJumps(reactor.seconds)
        self.partial_result: ScrubResult | None = None
        self._close_functions: list[Callable[[], Deferred[None]]] = []
        self.leases: dict[str, TaskLease] = {}
        self.freed_bytes: Counter[str] = Counter()
        self.task_definitions: Mapping[str, TaskDefinition] = {
            definition.name: definition for definition in task_definitions(configuration)
        }
        for definition in self.task_definitions.values():
            self._make_task(definition).setServiceParent(self)

    @property
    def maintenance(self) -> Maintenance:
        """The section ``storage.maintenance``."""
        return self.configuration.storage.maintenance

    def task(self, name: str) -> PeriodicTask:
        """Return a task.

        :raises KeyError: if there is no task of that name.
        """
        task: PeriodicTask = self.getServiceNamed(name)
        return task

    async def status(self) -> list[dict[str, Any]]:
        """Return the state of the tasks in all processes that share the store, ready for JSON.

        Of each task: ``name``, ``enabled``, ``interval`` in seconds, ``running`` (which process
        runs it, or None), ``last`` (the last run that ended in any process, or None); and of this
        process: ``next`` (seconds since the epoch, or None), ``runs``, ``failures`` and
        ``passed_over``.

        :raises RegistryError: if the store does not respond.
        """
        found = []
        for definition in self.task_definitions.values():
            task = self.task(definition.name)
            lease = self.leases[definition.name]
            last_run = await lease.last_run()
            found.append(
                {
                    "name": definition.name,
                    "enabled": definition.enabled,
                    "interval": definition.interval,
                    "running": await lease.current_holder(),
                    "last": None if last_run is None else last_run.as_dict(),
                    "next": task.next,
                    "runs": task.runs,
                    "failures": task.failures,
                    "passed_over": task.skipped,
                }
            )
        return found

    async def use_quotas(self, configuration: Configuration) -> None:
        """Count what is in use of the quotas of another configuration."""
        self.configuration = configuration
        definition = next(each for each in task_definitions(configuration) if each.name == _QUOTAS)
        self.task_definitions = {**self.task_definitions, _QUOTAS: definition}
        stopping = self.task(_QUOTAS).disownServiceParent()
        self._make_task(definition).setServiceParent(self)
        await stopping

    async def use_read_only(self, *, read_only: bool) -> None:
        """Stop the tasks, so that they run on request only, or start them again."""
        for task in self:
            if read_only:
                await task.stopService()
            elif self.running and not task.running:
                task.startService()

    def close_at_stop(self, close: Callable[[], Deferred[None]]) -> None:
        """Call a function after the tasks have stopped."""
        self._close_functions.append(close)

    def stopService(self) -> Deferred[None]:
        """Stop the tasks, then close what they have opened."""
        return Deferred.fromCoroutine(self._close(super().stopService()))

    async def _close(self, stopping: Deferred[Any]) -> None:
        await stopping
        for close in self._close_functions:
            await close()

    def _make_task(self, definition: TaskDefinition) -> PeriodicTask:
        work: Work | None = None
        known_jumps = self.clock_jumps.count

        async def run() -> object:
            nonlocal work, known_jumps
            self.clock_jumps.look()
            if self.clock_jumps.count != known_jumps:
                known_jumps = self.clock_jumps.count
                raise RunSkipped("the clock of this machine was set")
            if work is None:
                work = definition.make(self)
            result = await work()
            self.freed_bytes[definition.name] += definition.freed_bytes(result)
            return result

        name = definition.name
        settings = repr(definition.settings)
        lease = TaskLease(
            self.driver,
            name,
            monotonic_clock(self.reactor),
            definition.interval,
            settings,
            self.clock_jumps,
        )
        self.leases[name] = lease
        interval = definition.interval if definition.enabled else None
        return PeriodicTask(name, run, self.reactor, interval, random, lease)


def _make_purge(service: MaintenanceService) -> Work:
    purge = service.maintenance.uploadpurging
    return UploadPurge(service.registry, purge.age, purge.dryrun, service.clock_jumps).run


def _make_collection(service: MaintenanceService) -> Work:
    from twisted_registry.app.collector import make_collector  # noqa: PLC0415 - imports SQLite

    gc = service.maintenance.gc
    collector = make_collector(
        service.configuration,
        service.driver,
        service.reactor,
        untagged=gc.deleteuntagged,
        dry_run=gc.dryrun,
        clock_jumps=service.clock_jumps,
        worker=service.registry.worker,
        deleter=service.registry.deleter,
    )
    service.close_at_stop(collector.close)
    return collector.run


def _make_trash_expiry(service: MaintenanceService) -> Work:
    from twisted_registry.app.collector import make_trash_expiry  # noqa: PLC0415 - imports SQLite

    expiry = make_trash_expiry(
        service.configuration,
        service.driver,
        service.reactor,
        service.maintenance.trash.keep,
        service.clock_jumps,
        service.registry.worker,
    )
    service.close_at_stop(expiry.close)
    return expiry.run


def _make_retention_run(service: MaintenanceService) -> Work:
    dry_run = service.maintenance.retention.dryrun
    retention = make_retention(
        service.configuration,
        service.registry,
        service.driver,
        dry_run=dry_run,
        clock_jumps=service.clock_jumps,
    )
    return retention.run


def _make_quota_count(service: MaintenanceService) -> Work:
    return make_quota_count(service.configuration, service.driver, service.reactor).run


def _make_scrub_run(service: MaintenanceService) -> Work:
    from twisted_registry.app.integrity import make_scrub  # noqa: PLC0415 - for scrubs only

    def on_read(result: ScrubResult) -> None:
        service.partial_result = result

    worker = service.registry.worker
    return make_scrub(service.configuration, service.driver, service.reactor, worker, on_read)


def _make_token_purge(service: MaintenanceService) -> Work:
    from twisted_registry.tokens.records import TokenStore  # noqa: PLC0415 - with tokens only

    return TokenStore(service.driver, service.reactor).purge_expired


def make_retention(
    configuration: Configuration,
    registry: Registry,
    driver: IStorageDriver,
    *,
    dry_run: bool,
    on_decision: Callable[[Decision], object] = lambda _: None,
    clock_jumps: ClockJumps | None = None,
) -> TagRetention:
    """Make the run that deletes tags by ``storage.maintenance.retention``.

    :param driver: of the registry's store.
    :param on_decision: called for every tag that a rule covers.
    :param clock_jumps: what a longer-lived process knows about the clock.
    """
    from twisted_registry.maintenance.pull_times import PullTimes  # noqa: PLC0415 - rare
    from twisted_registry.maintenance.retention import (  # noqa: PLC0415 - rare
        RetentionRule,
        TagRetention,
    )

    clock_jumps = clock_jumps or ClockJumps.unwatched()
    rules = [
        RetentionRule(
            TagSelector.parse(rule.repositories, rule.tags),
            rule.newest,
            rule.pushedwithin,
            rule.pulledwithin,
            GlobSet.parse(rule.always, Glob.parse_tag),
        )
        for rule in configuration.storage.maintenance.retention.rules
    ]
    return TagRetention(
        registry,
        Inventory(driver),
        PullTimes(driver, clock_jumps),
        rules,
        immutable_tags(configuration),
        dry_run,
        on_decision,
        clock_jumps,
    )


def make_quota_count(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> QuotaCount:
    """Make the run that counts what is in use of ``access.quotas``.

    :param driver: of the store of the configuration.
    """
    from twisted_registry.maintenance.quota_count import QuotaCount  # noqa: PLC0415 - rare

    settle_s = _QUOTA_SETTLE_EXCHANGES * _quota_exchange_s(configuration)
    return QuotaCount(driver, quota_areas(configuration), reactor, settle_s)


def make_quota_synchronizer(
    configuration: Configuration, quotas: Quotas, driver: IStorageDriver, reactor: Any
) -> QuotaSynchronizer:
    """Make the service that exchanges what is in use of quotas with other processes.

    :param driver: of the store of the configuration.
    """
    from twisted_registry.maintenance.quota_count import QuotaSynchronizer  # noqa: PLC0415 - rare

    count = make_quota_count(configuration, driver, reactor)
    settings = repr(sorted(quota_areas(configuration)))
    interval_s = configuration.storage.maintenance.quotas.interval
    lease = TaskLease(driver, _QUOTAS, reactor, interval_s, settings)
    recount = PeriodicTask(_QUOTAS, count.run, reactor, None, random, lease)
    return QuotaSynchronizer(quotas, recount, lease, reactor, _quota_exchange_s(configuration))


def _quota_exchange_s(configuration: Configuration) -> float:
    is_remote = configuration.storage.bucket is not None
    return _REMOTE_QUOTA_EXCHANGE_S if is_remote else _QUOTA_EXCHANGE_S


def make_pull_set(configuration: Configuration) -> set[tuple[str, Digest | str]] | None:
    """Return a set for pulls that are not recorded yet; None if no retention rule needs them."""
    rules = configuration.storage.maintenance.retention.rules
    return set() if any(rule.pulledwithin for rule in rules) else None


def _presence_window_s(configuration: Configuration) -> float:
    return min(configuration.storage.maintenance.gc.grace, _MAX_PRESENCE_LEASE_S)


def longest_presence_s(configuration: Configuration) -> float:
    """Return for how many seconds content is kept, at most, that a client was told is present.

    A gate remembers that for one to two of its windows.
    """
    return 2 * _presence_window_s(configuration)


def make_gate(configuration: Configuration, driver: IStorageDriver, reactor: Any) -> CollectorGate:
    """Make the gate of a process that stores content while collectors run.

    :param driver: the checked driver of the store of the configuration.
    """
    is_remote = configuration.storage.bucket is not None
    return CollectorGate(
        with_reserve(driver),
        monotonic_clock(reactor),
        _presence_window_s(configuration),
        SETTLE_S if is_remote else 0.0,
    )


def make_gate_heartbeat(
    configuration: Configuration, gate: CollectorGate, reactor: Any
) -> GateHeartbeat:
    """Make the service that makes the gate of a process look for delete lists."""
    is_remote = configuration.storage.bucket is not None
    if is_remote:
        intervals_s = _REMOTE_HEARTBEAT_S, _REMOTE_BUSY_HEARTBEAT_S
    else:
        intervals_s = _HEARTBEAT_S, _BUSY_HEARTBEAT_S
    return GateHeartbeat(gate, monotonic_clock(reactor), *intervals_s)


def make_trash(configuration: Configuration, driver: IStorageDriver, reactor: Any) -> IDeleter:
    """Make what deletes content: into the trash if it keeps entries, otherwise for good.

    :param driver: of the store of the configuration.
    """
    driver = with_reserve(driver)
    if configuration.storage.maintenance.trash.keep:
        return TrashDeleter(driver, reactor)
    return Deleter(driver)


@define(eq=False, repr=False)
class StorageState:
    """What the API does as the store fills up, by its watermarks and by its reserve."""

    api: RegistryResource
    _level: FillLevel = field(init=False, default=FillLevel.ROOM)
    _is_reserve_complete: bool = field(init=False, default=True)

    def set_level(self, level: FillLevel) -> None:
        """Warn from ``HIGH`` on, and refuse pushes at ``FULL``."""
        self._level = level
        self._apply()

    def set_reserve_complete(self, is_complete: bool) -> None:  # noqa: FBT001 - a callback
        """Refuse pushes while the reserve is used."""
        self._is_reserve_complete = is_complete
        self._apply()

    def _apply(self) -> None:
        full = self._level is FillLevel.FULL or not self._is_reserve_complete
        is_high = full or self._level is FillLevel.HIGH
        self.api.set_storage_state(_NEARLY_FULL_WARNING if is_high else "", full=full)


def make_reserve_keeper(
    configuration: Configuration, driver: IStorageDriver, state: StorageState, reactor: Any
) -> ReserveKeeper | None:
    """Make the service that keeps the reserve of the store complete.

    :param driver: the checked driver of the store.
    :returns: None if the store has no reserve.
    """
    filesystem = configuration.storage.filesystem
    reserve = IReserve(driver, None)
    if filesystem is None or not filesystem.reserve or reserve is None:
        return None
    return ReserveKeeper(reserve, state.set_reserve_complete, reactor)


def make_watermark(
    configuration: Configuration, state: StorageState, reactor: Any
) -> Watermark | None:
    """Make the service that makes the API warn, and refuse pushes, as the disk fills up.

    :returns: None if no threshold is configured, or the store is not on a disk.
    """
    filesystem = configuration.storage.filesystem
    thresholds = configuration.storage.maintenance.watermark
    if filesystem is None or not (thresholds.warn or thresholds.refuse):
        return None
    # A separate thread: a disk that does not respond must not block other work.
    threads = Threads(reactor, 1, "watermark")
    root = filesystem.rootdirectory

    return Watermark(
        lambda: threads.run_blocking(used_fraction, root),
        state.set_level,
        reactor,
        _WATERMARK_INTERVAL_S,
        (thresholds.warn, thresholds.refuse),
        threads.close,
    )
