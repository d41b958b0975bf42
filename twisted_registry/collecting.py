"""The collector, and what empties the trash: how they are made of the configuration.

A module of its own, since few processes collect, and it brings a database along.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_registry.maintenance.emptying import Emptying
from twisted_registry.maintenance.explain import Explainer
from twisted_registry.maintenance.garbage import Collector
from twisted_registry.maintenance.marking import Marking
from twisted_registry.maintenance.needed import Needed
from twisted_registry.maintenance.pace import Pace
from twisted_registry.maintenance.references import ReferenceTable
from twisted_registry.maintenance.sentence import SETTLING
from twisted_registry.maintenance.watcher import Watcher
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.recall import Recall
from twisted_registry.repository.removal import Removal
from twisted_registry.storage.threads import Threads
from twisted_registry.upkeep import make_disposal

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
    watcher: Watcher | None = None,
) -> Collector:
    """A collector for the store of a configuration; its references are to be closed.

    :param driver: of that store.
    """
    maintenance = configuration.storage.maintenance
    return Collector(
        Inventory(driver),
        Removal(driver, make_disposal(configuration, driver, reactor)),
        _references(configuration, reactor),
        reactor,
        maintenance.gc.grace,
        untagged,
        dry_run,
        watcher or Watcher(),
        Recall(driver) if maintenance.trash.keep else None,
        Pace(reactor, maintenance.gc.rate),
        # A system call ends with its process, a request to another machine does not.
        SETTLING if configuration.storage.bucket is not None else 0.0,
    )


def make_explainer(
    configuration: Configuration, driver: IStorageDriver, reactor: Any, *, untagged: bool
) -> Explainer:
    """What says why things stay; its references are to be closed.

    :param driver: of the store of a configuration.
    """
    marking = Marking(Inventory(driver), _references(configuration, reactor), untagged)
    return Explainer(marking, Removal(driver), configuration.storage.maintenance.gc.grace)


def make_emptying(
    configuration: Configuration, driver: IStorageDriver, reactor: Any, keep: float
) -> Emptying:
    """What empties the trash of the store of a configuration; its references are to be closed.

    :param driver: of that store.
    :param keep: seconds for which things stay in the trash.
    """
    references = _references(configuration, reactor)
    marking = Marking(Inventory(driver), references)
    return Emptying(marking, Needed(Recall(driver), references), Removal(driver), keep)


def _references(configuration: Configuration, reactor: Any) -> ReferenceTable:
    filesystem = configuration.storage.filesystem
    path = ":memory:"
    if filesystem is not None:
        root = Path(filesystem.rootdirectory).absolute()
        path = str(root / "twisted-registry" / "collector" / "references.sqlite")
    return ReferenceTable(path, Threads(reactor, 1, "references"))
