"""Checks of a store: how they are made of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.maintenance.fsck import Fsck
from twisted_registry.maintenance.pace import RateLimiter
from twisted_registry.maintenance.repair import Repairer
from twisted_registry.maintenance.scrub import Scrub
from twisted_registry.repository.checking.affected import AffectedTags
from twisted_registry.repository.checking.blobs import BlobCheck
from twisted_registry.repository.checking.bookmark import ScrubPosition
from twisted_registry.repository.checking.links import LinkCheck
from twisted_registry.repository.checking.parts import ManifestCheck
from twisted_registry.repository.checking.remains import LeftoverCheck
from twisted_registry.repository.checking.repositories import RepositoryCheck
from twisted_registry.repository.checking.shelf import Quarantine
from twisted_registry.repository.checking.sizes import BlobSizes
from twisted_registry.repository.checking.trash import TrashCheck
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.removal import Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.config.schema import Configuration
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.fsck import FsckObserver
    from twisted_registry.maintenance.scrub import ScrubResult
    from twisted_registry.repository.policy import Policy
    from twisted_registry.storage.interfaces import IStorageDriver


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
            Repairer(Sweeper(driver), reactor),
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
        Repairer(Sweeper(driver), reactor, repair),
        observer,
    )
    repositories = RepositoryCheck(links, manifest_check, Inventory(driver), fsck.repository_started, fsck.tags.append)
    trash = TrashCheck(driver, quarantine, fsck.blobs.throttle)
    fsck.checks += [repositories.findings, LeftoverCheck(driver, before).findings, trash.findings]
    return fsck
