"""The scrub and the fsck of a configuration.

Imported only where one of them runs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted_registry.integrity.affected import AffectedTags
from twisted_registry.integrity.blobs import BlobCheck, BlobSizes, Quarantine
from twisted_registry.integrity.fsck import Fsck, Repairer
from twisted_registry.integrity.leftovers import LeftoverCheck, TrashCheck
from twisted_registry.integrity.links import LinkCheck
from twisted_registry.integrity.manifests import ManifestCheck
from twisted_registry.integrity.repositories import RepositoryCheck
from twisted_registry.integrity.scrub import Scrub
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.clock import monotonic_clock
from twisted_registry.repository.concurrency import RateLimiter
from twisted_registry.repository.inventory import Inventory, store_time
from twisted_registry.repository.parsing import ManifestWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.config.schema import Configuration
    from twisted_registry.integrity.fsck import FsckObserver
    from twisted_registry.integrity.scrub import ScrubResult
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.policy import Policy
    from twisted_registry.storage.interfaces import IStorageDriver


def make_scrub(
    configuration: Configuration,
    driver: IStorageDriver,
    reactor: Any,
    worker: ManifestWorker | None = None,
    on_read: Callable[[ScrubResult], object] = lambda _: None,
) -> Callable[[], Coroutine[Any, Any, ScrubResult]]:
    """Return a function that runs a scrub: reads all blobs again and verifies their digests.

    :param driver: of the store of the configuration.
    :param worker: parses manifests; None parses them on the caller's thread.
    :param on_read: called with the result so far when a file was read.
    """
    inventory = Inventory(driver, worker or ManifestWorker())

    def run() -> Coroutine[Any, Any, ScrubResult]:
        # A quarantine for each run: its paths contain the time at which it was made.
        rate_limiter = RateLimiter(reactor, configuration.storage.maintenance.scrub.rate)
        quarantine = Quarantine(driver, reactor)
        affected_tags = AffectedTags(LinkCheck(driver, quarantine), inventory)
        return Scrub(
            BlobCheck(driver, quarantine, rate_limiter.throttle),
            Repairer(driver, monotonic_clock(reactor)),
            affected_tags,
            reactor,
            on_read,
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
    """Make one check of the whole store.

    :param driver: of the store of the configuration.
    :param policy: decides which children of an index must be present.
    :param repair: repair findings where that is possible.
    """
    quarantine = Quarantine(driver, reactor)
    links = LinkCheck(driver, quarantine)
    corrupt: set[Digest] = set()
    manifest_check = ManifestCheck(links, BlobSizes(driver, corrupt), policy, corrupt)
    grace_s = configuration.storage.maintenance.gc.grace

    async def find_before() -> float:
        now: float = reactor.seconds()
        if repair:
            # A file has it, which a check that only reads must not write, and a full disk refuses.
            with suppress(RegistryError):
                now = await store_time(driver)
        return now - grace_s

    fsck = Fsck(
        BlobCheck(driver, quarantine, RateLimiter(reactor, 0).throttle),
        corrupt,
        Repairer(driver, monotonic_clock(reactor), repair),
        observer,
    )
    repositories = RepositoryCheck(
        links, manifest_check, Inventory(driver), fsck.repository_started, fsck.tags.append
    )
    trash = TrashCheck(driver, quarantine, fsck.blobs.throttle)
    fsck.checks += [repositories.findings, LeftoverCheck(driver, find_before).findings]
    fsck.checks.append(trash.findings)
    return fsck
