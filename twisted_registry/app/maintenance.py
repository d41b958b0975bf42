"""``storage.maintenance.retention`` joined to constructors: a part of service.py.

The chores of a registry: which there are, and how each is made of the configuration.

Of all processes that share a store one at a time does a chore, see
:mod:`twisted_registry.repository.leases`. One more chore is one more line in :func:`chores`, and a
function that makes what one run does.

Checks of a store: how they are made of the configuration.

``storage.maintenance.watermark`` joined to constructors: a part of service.py.
"""

from __future__ import annotations

import os
from random import random
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from twisted_registry.gc.gate import GateHeartbeat
from twisted_registry.integrity.affected import AffectedTags
from twisted_registry.integrity.blobs import BlobCheck, BlobSizes, Quarantine
from twisted_registry.integrity.fsck import Fsck, Repairer
from twisted_registry.integrity.leftovers import LeftoverCheck
from twisted_registry.integrity.links import LinkCheck
from twisted_registry.integrity.manifests import ManifestCheck
from twisted_registry.integrity.repositories import RepositoryCheck
from twisted_registry.integrity.scrub import Scrub, ScrubPosition
from twisted_registry.integrity.trash import TrashCheck
from twisted_registry.maintenance.lease import TaskLease
from twisted_registry.maintenance.task import PeriodicTask
from twisted_registry.oci.patterns import Glob, GlobSet
from twisted_registry.repository.concurrency import RateLimiter
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.policy import TagSelector
from twisted_registry.repository.trash import Deleter, Trash

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from twisted_registry.api.resource import RegistryResource
    from twisted_registry.config.schema import Configuration
    from twisted_registry.config.storage import Maintenance
    from twisted_registry.gc.gate import CollectorGate
    from twisted_registry.integrity.fsck import FsckObserver
    from twisted_registry.integrity.scrub import ScrubResult
    from twisted_registry.maintenance.lease import Work
    from twisted_registry.maintenance.pull_times import PullRecorder
    from twisted_registry.maintenance.retention import Decision, TagRetention
    from twisted_registry.maintenance.watermark import Watermark
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.policy import Policy
    from twisted_registry.repository.registry import Registry
    from twisted_registry.storage.interfaces import IStorageDriver


def immutable_tags(configuration: Configuration) -> tuple[TagSelector, ...]:
    """The tags that stay as they are."""
    return tuple(
        TagSelector.parse(rule.repositories, rule.tags)
        for rule in configuration.storage.maintenance.retention.immutable
    )


def make_pull_set(configuration: Configuration) -> set[tuple[str, Digest | str]] | None:
    """Where pulls are noted until they are recorded; None if no rule asks for them."""
    rules = configuration.storage.maintenance.retention.rules
    return set() if any(rule.pulledwithin for rule in rules) else None


def make_pull_recorder(
    pulls: set[tuple[str, Digest | str]], driver: IStorageDriver, reactor: Any
) -> PullRecorder:
    """What records them."""
    # Only here, as below: few have such rules.
    from twisted_registry.maintenance.pull_times import (  # noqa: PLC0415
        PullRecorder,
        PullTimes,
    )

    return PullRecorder(pulls, PullTimes(driver), reactor)


def make_retention(
    configuration: Configuration,
    registry: Registry,
    driver: IStorageDriver,
    *,
    dry_run: bool,
    on_decision: Callable[[Decision], object] = lambda _: None,
) -> TagRetention:
    """What goes by the rules.

    :param driver: of the registry's store.
    """
    from twisted_registry.maintenance.pull_times import PullTimes  # noqa: PLC0415
    from twisted_registry.maintenance.retention import RetentionRule, TagRetention  # noqa: PLC0415
    from twisted_registry.repository.inventory import Inventory  # noqa: PLC0415

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
        PullTimes(driver),
        rules,
        immutable_tags(configuration),
        dry_run,
        on_decision,
    )


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
        yield TaskDefinition(
            "uploadpurging", purging.interval, _make_purge, purging, enabled=purging.enabled
        )
    yield TaskDefinition("gc", gc.interval, _make_collection, gc, enabled=gc.enabled)
    trash = maintenance.trash
    yield TaskDefinition("trash", trash.interval, _make_trash_expiry, trash, enabled=trash.keep > 0)
    retention = maintenance.retention
    yield TaskDefinition(
        "retention", retention.interval, _make_retention_run, retention, enabled=retention.enabled
    )
    scrub = maintenance.scrub
    yield TaskDefinition("scrub", scrub.interval, _make_scrub_run, scrub, enabled=scrub.enabled)


def _make_purge(service: MaintenanceService) -> Work:
    # Not at the start: it is first done minutes later.
    from twisted_registry.maintenance.purge import UploadPurge  # noqa: PLC0415

    purging = service.maintenance.uploadpurging
    assert purging is not None
    return UploadPurge(service.registry, service.reactor, purging.age, purging.dryrun).run


def _make_collection(service: MaintenanceService) -> Work:
    from twisted_registry.app.collector import make_collector  # noqa: PLC0415 - few do it

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
    from twisted_registry.app.collector import make_trash_expiry  # noqa: PLC0415 - few do it

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
        self.leases: dict[str, TaskLease] = {}
        self.chores: Mapping[str, TaskDefinition] = {
            chore.name: chore for chore in chores(self.maintenance)
        }
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
            lease = self.leases[chore.name]
            last_run = await lease.last_run()
            found.append(
                {
                    "name": chore.name,
                    "enabled": chore.enabled,
                    "interval": chore.interval,
                    "running": await lease.current_holder(),
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

        lease = TaskLease(
            self.driver, chore.name, self.reactor, chore.interval, repr(chore.settings)
        )
        self.leases[chore.name] = lease
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


def make_gate_heartbeat(
    gate: CollectorGate, configuration: Configuration, reactor: Any
) -> GateHeartbeat:
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


def make_scrub(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> Callable[[], Coroutine[Any, Any, ScrubResult]]:
    """What reads all blobs again, each time that it is called.

    :param driver: of the store of a configuration.
    """

    def run() -> Coroutine[Any, Any, ScrubResult]:
        # Each run anew: what it quarantines lies under the time of its beginning.
        rate_limiter = RateLimiter(reactor, configuration.storage.maintenance.scrub.rate)
        quarantine = Quarantine(driver, reactor)
        affected_tags = AffectedTags(LinkCheck(driver, quarantine), Inventory(driver))
        return Scrub(
            BlobCheck(driver, quarantine, rate_limiter.throttle),
            Repairer(driver, reactor),
            ScrubPosition(driver),
            affected_tags,
            reactor,
        ).run()

    return run


def make_fsck(
    configuration: Configuration,
    driver: IStorageDriver,
    reactor: Any,
    *,
    policy: Policy,
    repair: bool,
    observer: FsckObserver,
) -> Fsck:
    """What checks the whole store of a configuration, once.

    :param driver: of that store.
    :param policy: tells which children of an index have to be there.
    :param repair: whether to put right what can be.
    """
    quarantine = Quarantine(driver, reactor)
    links = LinkCheck(driver, quarantine)
    corrupt: set[Digest] = set()
    manifest_check = ManifestCheck(links, BlobSizes(driver, corrupt), policy, corrupt)
    before = reactor.seconds() - configuration.storage.maintenance.gc.grace
    fsck = Fsck(
        BlobCheck(driver, quarantine, RateLimiter(reactor, 0).throttle),
        corrupt,
        Repairer(driver, reactor, repair),
        observer,
    )
    repositories = RepositoryCheck(
        links, manifest_check, Inventory(driver), fsck.repository_started, fsck.tags.append
    )
    trash = TrashCheck(driver, quarantine, fsck.blobs.throttle)
    fsck.checks += [repositories.findings, LeftoverCheck(driver, before).findings, trash.findings]
    return fsck


#: Seconds between two looks.
_WATERMARK_INTERVAL_S = 5.0
_WARNING = "the storage of this registry is nearly full"


def make_watermark(
    parent: MultiService, configuration: Configuration, api: RegistryResource, reactor: Any
) -> Watermark | None:
    """Give a service a child that lets the API warn, and refuse pushes, as the disk fills up.

    :returns: the child, if it is wanted.
    """
    filesystem = configuration.storage.filesystem
    marks = configuration.storage.maintenance.watermark
    if filesystem is None or not (marks.warn or marks.refuse):
        return None
    # Only here: few ask for it.
    from twisted_registry.maintenance.watermark import FillLevel, Watermark  # noqa: PLC0415
    from twisted_registry.storage.threads import Threads  # noqa: PLC0415

    # A disk that does not answer must hold up nothing else.
    threads = Threads(reactor, 1, "watermark")
    root = filesystem.rootdirectory

    def tell(level: FillLevel) -> None:
        api.set_storage_state(
            _WARNING if level >= FillLevel.HIGH else "", full=level is FillLevel.FULL
        )

    def look() -> Deferred[float]:
        return threads.run_blocking(used_fraction, root)

    both = (marks.warn, marks.refuse)
    watermark = Watermark(look, tell, reactor, _WATERMARK_INTERVAL_S, both, threads.close)
    watermark.setServiceParent(parent)
    return watermark


def used_fraction(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> float:
    """Which part of a filesystem is used, from 0 to 1: of its blocks or its inodes.

    What only root may use counts as used, as ``df`` reckons.

    :raises OSError: if it can not be told.
    """
    found = statvfs(path)
    used = found.f_blocks - found.f_bfree
    parts = [used / max(1, used + found.f_bavail)]
    if found.f_files:
        inodes = found.f_files - found.f_ffree
        parts.append(inodes / max(1, inodes + found.f_favail))
    return max(parts)
