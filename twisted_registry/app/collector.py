"""What reads the references of a store: collector, explainer, trash expiry and statistics.

Imported only where one of them runs: it imports SQLite.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_registry.app.maintenance import make_trash
from twisted_registry.gc.collector import Collector
from twisted_registry.gc.delete_list import SETTLE_S
from twisted_registry.gc.expire_trash import TrashExpiry
from twisted_registry.gc.explain import Explainer
from twisted_registry.gc.mark import CollectorObserver, MarkPhase
from twisted_registry.gc.reference_db import TEMPORARY, ReferenceDatabase
from twisted_registry.gc.sweep import Sweeper
from twisted_registry.maintenance.pull_times import PullTimes
from twisted_registry.repository.clock import ClockJumps, monotonic_clock
from twisted_registry.repository.concurrency import RateLimiter
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.parsing import ManifestWorker
from twisted_registry.repository.trash import Trash
from twisted_registry.statistics.store import StatisticsObserver, StoreStatistics
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration
    from twisted_registry.oci.patterns import GlobSet
    from twisted_registry.repository.trash import IDeleter
    from twisted_registry.storage.interfaces import IStorageDriver


def make_collector(
    configuration: Configuration,
    driver: IStorageDriver,
    reactor: Any,
    *,
    untagged: bool,
    dry_run: bool,
    grace_s: float | None = None,
    observer: CollectorObserver | None = None,
    clock_jumps: ClockJumps | None = None,
    worker: ManifestWorker | None = None,
    deleter: IDeleter | None = None,
) -> Collector:
    """Make a collector; the caller closes it.

    :param driver: of the store of the configuration.
    :param untagged: delete manifests without a tag as well.
    :param dry_run: report what would be deleted, and delete nothing.
    :param grace_s: the age in seconds below which content is kept; None for the configured one.
    :param clock_jumps: what a longer-lived process knows about the clock.
    :param worker: parses manifests; None parses them on the caller's thread.
    :param deleter: removes content; None makes one, which a process that serves must not do.
    """
    maintenance = configuration.storage.maintenance
    return Collector(
        Inventory(driver, worker or ManifestWorker()),
        Sweeper(driver, deleter or make_trash(configuration, driver, reactor)),
        _make_references(configuration, reactor),
        monotonic_clock(reactor),
        maintenance.gc.grace if grace_s is None else grace_s,
        untagged,
        dry_run,
        observer or CollectorObserver(),
        Trash(driver) if maintenance.trash.keep else None,
        RateLimiter(reactor, maintenance.gc.rate),
        # A system call ends with its process. A request to a bucket may still be executed later.
        SETTLE_S if configuration.storage.bucket is not None else 0.0,
        jumps=clock_jumps or ClockJumps(reactor.seconds),
    )


def make_explainer(
    configuration: Configuration, driver: IStorageDriver, reactor: Any, *, untagged: bool
) -> Explainer:
    """Make an explainer; the caller closes it.

    :param driver: of the store of the configuration.
    :param untagged: explain for a collector that deletes manifests without a tag as well.
    """
    mark_phase = MarkPhase(Inventory(driver), _make_references(configuration, reactor), untagged)
    return Explainer(mark_phase, configuration.storage.maintenance.gc.grace)


def make_trash_expiry(
    configuration: Configuration,
    driver: IStorageDriver,
    reactor: Any,
    keep: float,
    clock_jumps: ClockJumps | None = None,
    worker: ManifestWorker | None = None,
) -> TrashExpiry:
    """Make the task that expires the trash; the caller closes it.

    :param driver: of the store of the configuration.
    :param keep: seconds for which an entry stays in the trash.
    :param clock_jumps: what a longer-lived process knows about the clock.
    :param worker: as for :func:`make_collector`.
    """
    inventory = Inventory(driver, worker or ManifestWorker())
    mark_phase = MarkPhase(inventory, _make_references(configuration, reactor))
    return TrashExpiry(
        Trash(driver), mark_phase, keep, jumps=clock_jumps or ClockJumps(reactor.seconds)
    )


def make_statistics(
    driver: IStorageDriver,
    reactor: Any,
    names: GlobSet | None = None,
    observer: StatisticsObserver | None = None,
) -> StoreStatistics:
    """Make the statistics of a store, which only read it; the caller closes them.

    :param names: the repositories to list; None for all.
    """
    return StoreStatistics(
        Inventory(driver),
        ReferenceDatabase(TEMPORARY, Threads(reactor, 1, "statistics")),
        PullTimes(driver),
        reactor.seconds,
        names,
        observer or StatisticsObserver(),
    )


def _make_references(configuration: Configuration, reactor: Any) -> ReferenceDatabase:
    filesystem = configuration.storage.filesystem
    path = ":memory:"
    if filesystem is not None:
        root = Path(filesystem.rootdirectory).absolute()
        path = str(root / "twisted-registry" / "collector" / "references.sqlite")
    return ReferenceDatabase(path, Threads(reactor, 1, "references"))
