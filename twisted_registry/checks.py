"""Checks of a store: how they are made of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.maintenance.fsck import Fsck
from twisted_registry.maintenance.pace import Pace
from twisted_registry.maintenance.repair import Repair
from twisted_registry.maintenance.scrub import Scrub
from twisted_registry.repository.checking.affected import TagsInNeed
from twisted_registry.repository.checking.blobs import StoredBlobs
from twisted_registry.repository.checking.bookmark import Bookmark
from twisted_registry.repository.checking.links import Links
from twisted_registry.repository.checking.parts import Parts
from twisted_registry.repository.checking.remains import Remains
from twisted_registry.repository.checking.repositories import Repositories
from twisted_registry.repository.checking.shelf import Shelf
from twisted_registry.repository.checking.sizes import Sizes
from twisted_registry.repository.checking.trash import TrashCheck
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.removal import Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.config.schema import Configuration
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.fsck import Watcher
    from twisted_registry.maintenance.scrub import Scrubbed
    from twisted_registry.repository.policy import Policy
    from twisted_registry.storage.interfaces import IStorageDriver


def make_scrub(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> Callable[[], Coroutine[Any, Any, Scrubbed]]:
    """What reads all blobs again, each time that it is called.

    :param driver: of the store of a configuration.
    """

    def run() -> Coroutine[Any, Any, Scrubbed]:
        # Each run anew: what it quarantines lies under the time of its beginning.
        pace = Pace(reactor, configuration.storage.maintenance.scrub.rate)
        shelf = Shelf(driver, reactor)
        in_need = TagsInNeed(Links(driver, shelf), Inventory(driver))
        return Scrub(
            StoredBlobs(driver, shelf, pace.pay),
            Repair(Removal(driver), reactor),
            Bookmark(driver),
            in_need,
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
    watcher: Watcher,
) -> Fsck:
    """What checks the whole store of a configuration, once.

    :param driver: of that store.
    :param policy: tells which children of an index have to be there.
    :param repair: whether to put right what can be.
    """
    shelf = Shelf(driver, reactor)
    links = Links(driver, shelf)
    corrupt: set[Digest] = set()
    parts = Parts(links, Sizes(driver, corrupt), policy, corrupt)
    before = reactor.seconds() - configuration.storage.maintenance.gc.grace
    fsck = Fsck(
        StoredBlobs(driver, shelf, Pace(reactor, 0).pay),
        corrupt,
        Repair(Removal(driver), reactor, repair),
        watcher,
    )
    repositories = Repositories(links, parts, Inventory(driver), fsck.entering, fsck.tags.append)
    trash = TrashCheck(driver, shelf, fsck.blobs.pay)
    fsck.others += [repositories.findings, Remains(driver, before).findings, trash.findings]
    return fsck
