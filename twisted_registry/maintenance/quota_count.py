"""Count what is in use of the quotas, by a walk through the store.

:mod:`twisted_registry.repository.quotas` says what counts, and how pushes during a count are not
missed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.cache import LRUCache
from twisted_registry.repository.concurrency import map_in_batches
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import (
    Inventory,
    iterate_files,
    iterate_folders,
    store_time,
)
from twisted_registry.repository.quotas import (
    EVERYBODY,
    QuotaTotals,
    delete_old_changes,
    hash_name,
    read_changes,
)
from twisted_registry.storage.fallbacks import bulk_lookup, folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.maintenance.lease import TaskLease
    from twisted_registry.maintenance.task import PeriodicTask
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.patterns import GlobSet
    from twisted_registry.repository.quotas import Quotas, Totals
    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

log = Logger()

#: Sizes of blobs that are remembered from one count to the next; they do not change.
_MAX_SIZES = 100_000
#: Age in seconds from which a record of a push is deleted if there is no such content: the record
#: is written before the content gets its link.
_RECORD_GRACE_S = 24 * 3600.0
#: Seconds between two counts that refusals ask for, at least; and as a multiple of the time that
#: the last one took.
MIN_RECOUNT_INTERVAL_S = 300.0
_MIN_RECOUNT_FACTOR = 10


@frozen
class QuotaCountResult:
    """The result of a count.

    :ivar repositories: repositories that are in an area.
    :ivar used: bytes in use, by the patterns of each area.
    """

    repositories: int
    used: Mapping[str, int]


@define(eq=False)
class QuotaCount:
    """Counts what is in use of the quotas of one store.

    :ivar areas: the repositories to count, by the name of the area.
    :ivar settle_s: seconds in which all processes notice that a count begins.
    """

    driver: IStorageDriver
    areas: Mapping[str, GlobSet]
    clock: IReactorTime
    settle_s: float
    _inventory: Inventory = field(init=False)
    _bulk: IBulkLookup = field(init=False)
    _sizes: LRUCache[Digest, int] = field(init=False, factory=lambda: LRUCache(_MAX_SIZES))

    @_inventory.default
    def _make_inventory(self) -> Inventory:
        return Inventory(self.driver)

    @_bulk.default
    def _adapt_driver(self) -> IBulkLookup:
        return bulk_lookup(self.driver)

    async def run(self) -> QuotaCountResult:
        """Count, and publish the totals.

        :raises RegistryError: if the store fails; the totals before remain.
        """
        return await self._count()

    @translate_storage_errors
    async def _count(self) -> QuotaCountResult:
        if not self.areas:
            return QuotaCountResult(0, {})
        count_id = uuid4().hex
        await delete_old_changes(self.driver)
        await self.driver.put(layout.QUOTA_COUNTING, count_id.encode("ascii"), durable=False)
        await deferLater(self.clock, self.settle_s, lambda: None)
        totals: Totals = Counter()
        for changes in (await read_changes(self.driver)).values():
            # The walk finds this as well.
            totals.subtract(changes.get(count_id, {}))
        repositories, used = 0, dict.fromkeys(self.areas, 0)
        users = await self._users_by_repository()
        before = await store_time(self.driver) - _RECORD_GRACE_S
        async for name in catalog.walk_repositories(self.driver, markers=layout.CONTENT_MARKERS):
            pushed_by = users.pop(hash_name(name), ())
            areas = [area for area, names in self.areas.items() if name in names]
            if not areas:
                continue
            repositories += 1
            found = await self._count_repository(name, pushed_by, before)
            for area in areas:
                used[area] += found[EVERYBODY]
                totals.update({(area, user): number for user, number in found.items()})
        for repository, pushed_by in users.items():
            for user in pushed_by:
                await self._count_pushed(layout.pushed_folder(user, repository), {}, before)
        counted = QuotaTotals(count_id, frozenset(self.areas), totals)
        await self.driver.put(layout.QUOTA_COUNT, counted.to_bytes())
        return QuotaCountResult(repositories, used)

    async def _users_by_repository(self) -> dict[str, list[str]]:
        """Return the hashes of the users with recorded pushes, by the hashes of repositories."""
        found: dict[str, list[str]] = {}
        async for users in iterate_folders(self._bulk, layout.PUSHED):
            for user in users:
                async for names in iterate_folders(self._bulk, f"{layout.PUSHED}/{user}"):
                    for name in names:
                        found.setdefault(name, []).append(user)
        return found

    async def _count_repository(
        self, name: str, users: Iterable[str], before: float
    ) -> dict[str, int]:
        """Return the bytes of everybody in a repository, and of each user."""
        digests: set[Digest] = set()
        async for page in self._inventory.layers(name):
            digests.update(page)
        async for page in self._inventory.revisions(name):
            digests.update(page)
        unique = list(digests)
        found = await map_in_batches(self._blob_size, unique)
        sizes: dict[Digest | str, int] = dict(zip(unique, found, strict=True))
        uploads = self._inventory.uploads(name)
        sizes |= {upload_id: size async for upload_id, size in uploads}
        used = {EVERYBODY: sum(sizes.values())}
        for user in users:
            folder = layout.pushed_folder(user, hash_name(name))
            used[user] = await self._count_pushed(folder, sizes, before)
        return used

    async def _count_pushed(
        self, folder: str, sizes: Mapping[Digest | str, int], before: float
    ) -> int:
        """Return the bytes of what a user has pushed to a repository.

        :param folder: the records of the pushes; those of content that no longer exists are
            deleted.
        :param sizes: the content of the repository.
        :param before: seconds since the epoch; later records stay.
        """
        used = 0
        async for entries in iterate_files(self.driver, folder):
            old = []
            for entry in entries:
                item = layout.parse_pushed(entry.path)
                if item is not None and item in sizes:
                    used += sizes[item]
                elif (entry.modified_s or 0) < before:
                    old.append(entry.path)
            await self._bulk.delete_many(old)
        if not used:
            parents = [folder, folder.rpartition("/")[0]]
            await folders(self.driver).prune([*await self._list_folders(folder), *parents])
        return used

    async def _list_folders(self, folder: str) -> list[str]:
        found = []
        async for names in iterate_folders(self._bulk, folder):
            found += [f"{folder}/{name}" for name in names]
        return found

    async def _blob_size(self, digest: Digest) -> int:
        size = self._sizes.get(digest)
        if size is None:
            blob = await self._inventory.stat_blob(digest)
            if blob is None:
                return 0
            size = blob.size
            self._sizes.put(digest, size)
        return size


class QuotaSynchronizer(Service):
    """Exchanges with the store what is in use, every few seconds.

    It also starts a count if there is none, or after a refusal, when the last one is not recent.
    """

    def __init__(
        self,
        quotas: Quotas,
        recount: PeriodicTask,
        lease: TaskLease,
        clock: IReactorTime,
        interval_s: float,
    ) -> None:
        """Prepare the service.

        :param recount: makes a count on request.
        :param lease: the lease of that task, which knows the last count of any process.
        :param interval_s: seconds between two exchanges.
        """
        self.setName("quotas")
        self._quotas = quotas
        self._recount = recount
        self._lease = lease
        self._clock = clock
        self._interval_s = interval_s
        self._next_recount_s = 0.0
        self._loop = LoopingCall(self._synchronize)
        self._loop.clock = clock
        self._loop_ended: Deferred[LoopingCall] | None = None
        self._is_failing = False

    def startService(self) -> None:
        """Exchange now, and then periodically."""
        super().startService()
        self._recount.startService()
        self._loop_ended = self._loop.start(self._interval_s)

    def stopService(self) -> Deferred[None]:
        """Stop, and store what this process has added."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        # An exchange under way may start a count.
        if self._loop_ended is not None:
            await self._loop_ended
        await self._recount.stopService()
        await self._synchronize()

    async def _synchronize(self) -> None:
        try:
            await self._quotas.synchronize()
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - any error is retried
            if not self._is_failing:
                log.failure("use of quotas could not be exchanged, will retry")
            self._is_failing = True
            return
        self._is_failing = False
        if self.running and (self._quotas.was_exceeded or not self._quotas.is_counted):
            await self._recount_if_due()

    async def _recount_if_due(self) -> None:
        now = self._clock.seconds()
        if now < self._next_recount_s:
            return
        self._next_recount_s = now + MIN_RECOUNT_INTERVAL_S
        try:
            last = await self._lease.last_run()
        except RegistryError:
            return
        if self._quotas.is_counted and last is not None and not last.failure:
            pause_s = max(MIN_RECOUNT_INTERVAL_S, _MIN_RECOUNT_FACTOR * last.seconds)
            if last.began <= now < last.began + pause_s:
                self._next_recount_s = last.began + pause_s
                return
        self._quotas.was_exceeded = False
        # It is not awaited: it waits until all processes have exchanged what they know.
        self._recount.run()
