"""The collector, and what empties the trash: how they are made of the configuration.

A module of its own, since few processes collect, and it brings a database along.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_registry.app.maintenance import make_trash
from twisted_registry.gc.collector import Collector
from twisted_registry.gc.delete_list import SETTLE_S
from twisted_registry.gc.expire_trash import TrashExpiry, TrashRecovery
from twisted_registry.gc.explain import Explainer
from twisted_registry.gc.mark import CollectorObserver, MarkPhase
from twisted_registry.gc.reference_db import ReferenceDatabase
from twisted_registry.gc.sweep import Sweeper
from twisted_registry.repository.concurrency import RateLimiter
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.recall import Recall
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration
    from twisted_registry.storage.interfaces import IStorageDriver


def make_collector(
    configuration: Configuration,
    driver: IStorageDriver,
    reactor: Any,
    *,
    untagged: bool,
    dry_run: bool,
    observer: CollectorObserver | None = None,
) -> Collector:
    """A collector for the store of a configuration; its references are to be closed.

    :param driver: of that store.
    """
    maintenance = configuration.storage.maintenance
    return Collector(
        Inventory(driver),
        Sweeper(driver, make_trash(configuration, driver, reactor)),
        _references(configuration, reactor),
        reactor,
        maintenance.gc.grace,
        untagged,
        dry_run,
        observer or CollectorObserver(),
        Recall(driver) if maintenance.trash.keep else None,
        RateLimiter(reactor, maintenance.gc.rate),
        # A system call ends with its process, a request to another machine does not.
        SETTLE_S if configuration.storage.bucket is not None else 0.0,
    )


def make_explainer(
    configuration: Configuration, driver: IStorageDriver, reactor: Any, *, untagged: bool
) -> Explainer:
    """What says why things stay; its references are to be closed.

    :param driver: of the store of a configuration.
    """
    mark_phase = MarkPhase(Inventory(driver), _references(configuration, reactor), untagged)
    return Explainer(mark_phase, configuration.storage.maintenance.gc.grace)


def make_trash_expiry(
    configuration: Configuration, driver: IStorageDriver, reactor: Any, keep: float
) -> TrashExpiry:
    """What empties the trash of the store of a configuration; its references are to be closed.

    :param driver: of that store.
    :param keep: seconds for which things stay in the trash.
    """
    references = _references(configuration, reactor)
    mark_phase = MarkPhase(Inventory(driver), references)
    return TrashExpiry(mark_phase, TrashRecovery(Recall(driver), references), keep)


def _references(configuration: Configuration, reactor: Any) -> ReferenceDatabase:
    filesystem = configuration.storage.filesystem
    path = ":memory:"
    if filesystem is not None:
        root = Path(filesystem.rootdirectory).absolute()
        path = str(root / "twisted-registry" / "collector" / "references.sqlite")
    return ReferenceDatabase(path, Threads(reactor, 1, "references"))
