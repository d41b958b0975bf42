"""The garbage collector: remove what nothing refers to while clients push.

:mod:`twisted_registry.gc.gate` describes the protocol, and ``tests/gc/collector_model.py`` checks
it. A run has one or more rounds. Each round marks the whole store once and puts the unreachable
content on delete lists. For each list the collector proposes it, waits until every serving process
has acknowledged it, takes leased digests off it, condemns the rest, marks again, removes what is
condemned and still unreachable, and withdraws the list.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from attrs import define, evolve, field

from twisted_registry.gc.delete_list import (
    LIST_TTL_S,
    SETTLE_S,
    DeleteList,
    DeleteListProtocol,
    NotAcknowledged,
    Phase,
)
from twisted_registry.gc.expire_trash import restore_needed
from twisted_registry.gc.mark import CollectionFailed, CollectorObserver, MarkPhase, MarkResult
from twisted_registry.gc.reference_db import ReferenceDatabaseLost
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.concurrency import RateLimiter, map_in_batches
from twisted_registry.repository.inventory import StoredBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.gc.sweep import Sweeper
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.repository.trash import Trash

_T = TypeVar("_T")

#: Digests on the first list, and the least on a later one. They are removed in about ten seconds; a
#: push may wait that long.
_MIN_LIST_DIGESTS = 2000
#: Digests on a later list, at most, if the store removes them within the target. Longer lists are
#: better because each list costs one listing of all revisions.
_MAX_LIST_DIGESTS = 10_000
_TARGET_SWEEP_S = 4.0
#: Seconds within which one list is removed if a rate limit is set.
_RATED_SWEEP_S = 10.0
#: A list lives longer by this multiple of the duration of the last mark.
_MARK_TTL_FACTOR = 4.0
#: A run ends if so many items could not be removed.
_MAX_FAILED_ITEMS = 100
#: The observer is told of progress after every so many removals.
_PROGRESS_ITEMS = 50


@define
class CollectionResult:
    """What a run removed, or in a dry run would remove.

    :ivar repositories: repositories that were marked.
    :ivar marked: blobs and manifests that something refers to.
    :ivar manifests: revisions taken out of their repositories.
    :ivar blobs: blobs and manifests whose bytes were removed.
    :ivar size: their bytes.
    :ivar leased: content kept because it was reported as present to a client meanwhile.
    :ivar troubled: repositories with something unreadable, of which everything is kept.
    :ivar vacated: empty repositories that were removed from the catalog.
    :ivar young_manifests: unreferenced revisions that stay because of the grace period alone.
    :ivar young_blobs: unreachable blobs and manifests that stay because of it.
    :ivar failed: items that could not be removed, because of the store.
    """

    repositories: int = 0
    marked: int = 0
    manifests: int = 0
    blobs: int = 0
    size: int = 0
    leased: int = 0
    troubled: tuple[str, ...] = ()
    vacated: int = 0
    young_manifests: int = 0
    young_blobs: int = 0
    failed: int = 0


@define(eq=False)
class Collector:
    """Collects the garbage of one store.

    :ivar grace: seconds for which everything that was stored is kept.
    :ivar untagged: whether manifests that no tag holds are removed as well.
    :ivar dry_run: only report what would be removed.
    :ivar trash: restores needed content; None without a trash.
    :ivar rate_limiter: limits manifests read and items removed, together, per second.
    :ivar clock: measures durations; it must not be set while a collection runs.
    :ivar settle_s: see :class:`~twisted_registry.gc.delete_list.DeleteListProtocol`.
    :ivar min_list_digests: digests on the first list, and the least on a later one.
    :ivar max_list_digests: digests on a list, at most.
    :ivar jumps: corrects ages after the clock was set.
    """

    inventory: Inventory
    sweeper: Sweeper
    references: ReferenceDatabase
    clock: IReactorTime
    grace: float
    untagged: bool = False
    dry_run: bool = False
    observer: CollectorObserver = field(factory=CollectorObserver)
    trash: Trash | None = None
    rate_limiter: RateLimiter = field()
    settle_s: float = SETTLE_S
    min_list_digests: int = _MIN_LIST_DIGESTS
    max_list_digests: int = _MAX_LIST_DIGESTS
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)
    _mark_phase: MarkPhase = field(init=False)
    _result: CollectionResult = field(init=False, factory=CollectionResult)
    #: whether another round may find more: content of the manifests that were taken out, or items
    #: for which the time ran out; and, after removals, content to restore from the trash
    _needs_another_round: bool = field(init=False, default=False)
    #: what could not be removed in this run
    _failed_items: set[object] = field(init=False, factory=set)
    #: digests that the next list may have, estimated from the last sweep
    _list_digests: int = field(init=False)
    #: the jumps of the clock that were known when the ages of this round were measured
    _known_jumps: int = field(init=False, default=0)
    #: seconds that the last mark took
    _mark_duration_s: float = field(init=False, default=0.0)

    @rate_limiter.default
    def _make_rate_limiter(self) -> RateLimiter:
        return RateLimiter(self.clock, 0)

    @_list_digests.default
    def _make_list_digests(self) -> int:
        return self.min_list_digests

    @_mark_phase.default
    def _make_mark_phase(self) -> MarkPhase:
        return MarkPhase(self.inventory, self.references, self.untagged)

    async def run(self) -> CollectionResult:
        """Collect until nothing more can be removed.

        :raises CollectionFailed: if the store cannot be marked, or a serving process does not
            acknowledge a list.
        :raises RegistryError: if the store fails.
        """
        self._result, self._failed_items = CollectionResult(), set()
        await self.references.use_file()
        observer = self.observer
        may_retry = True
        while True:
            self._needs_another_round = False
            try:
                await self._round(observer)
            except ReferenceDatabaseLost:
                if not may_retry:
                    raise
                # The database is created anew, from all manifests.
                may_retry, observer = False, CollectorObserver()
                continue
            # Later rounds visit the same repositories.
            observer = CollectorObserver()
            if self.dry_run:
                return self._result
            if not self._needs_another_round:
                pruned = await self._try("folders", self.sweeper.prune_empty_repositories())
                self._result.vacated = pruned or 0
                return self._result

    def close(self) -> Deferred[None]:
        """Close the database of references."""
        return self.references.close()

    async def _round(self, observer: CollectorObserver) -> None:
        """Mark the store once, and remove unreachable content, one list after another.

        The first mark only selects candidates, so one is enough for all lists. The store is marked
        again after each list is condemned.
        """
        self.jumps.look()
        self._known_jumps = self.jumps.count
        before = await time_before(self.inventory.driver, self.grace, self.jumps)
        began = self.clock.seconds()
        marked = await self._mark(before, observer)
        self._mark_duration_s = self.clock.seconds() - began
        result = self._result
        result.repositories, result.marked = marked.repositories, marked.alive
        result.troubled = tuple(marked.troubled)
        result.young_manifests, result.young_blobs = marked.young, 0
        manifests, blobs = marked.unreferenced, list[StoredBlob]()
        async for unreachable, young in self._unreachable_blobs(before):
            blobs += unreachable
            result.young_blobs += young
            while len(manifests) + len(blobs) >= self._next_list_digests and not self.dry_run:
                await self._remove_listed(before, *self._take_batch(manifests, blobs))
        if self.dry_run:
            self.observer.eligible(manifests, [blob.digest for blob in blobs])
            result.manifests, result.blobs = len(manifests), len(blobs)
            result.size = sum(blob.size for blob in blobs)
        elif manifests or blobs:
            await self._remove_listed(before, *self._take_batch(manifests, blobs))

    def _take_batch(
        self, manifests: list[tuple[str, Digest]], blobs: list[StoredBlob]
    ) -> tuple[Sequence[tuple[str, Digest]], Sequence[StoredBlob]]:
        """Remove from the front of both lists what fits on one delete list, and return it."""
        first_manifests = manifests[: self._next_list_digests]
        first_blobs = blobs[: self._next_list_digests - len(first_manifests)]
        del manifests[: len(first_manifests)], blobs[: len(first_blobs)]
        return first_manifests, first_blobs

    @property
    def _next_list_digests(self) -> int:
        """Digests that the next list may have, so that it is swept long before it expires."""
        rate = self.rate_limiter.rate
        if rate:
            return max(1, min(self.min_list_digests, int(rate * _RATED_SWEEP_S)))
        return self._list_digests

    async def _remove_listed(
        self,
        before: float,
        manifests: Sequence[tuple[str, Digest]],
        blobs: Sequence[StoredBlob],
    ) -> None:
        self.observer.eligible(manifests, [blob.digest for blob in blobs])
        proposed = DeleteList(
            str(uuid4()),
            Phase.PROPOSED,
            # The second mark and the sweep have to fit into half of it.
            LIST_TTL_S + _MARK_TTL_FACTOR * self._mark_duration_s,
            frozenset(blob.digest for blob in blobs),
            frozenset(manifests),
        )
        protocol = DeleteListProtocol(self.inventory.driver, self.clock, self.settle_s, self.jumps)
        try:
            await protocol.propose(proposed)
            leased = await protocol.leased_digests(proposed.id)
            self._result.leased = max(self._result.leased, len(leased))
            condemned = evolve(
                proposed,
                phase=Phase.CONDEMNED,
                blobs=proposed.blobs - leased,
                manifests=frozenset(pair for pair in proposed.manifests if pair[1] not in leased),
            )
            await protocol.condemn(condemned)
            began = self.clock.seconds()
            unreferenced = await self._mark_phase.remark(before, condemned.manifests)
            self._mark_duration_s = self.clock.seconds() - began
            unreachable = await self.references.unreachable(sorted(condemned.blobs))
            await self._sweep(before, protocol, sorted(unreferenced), unreachable)
        except NotAcknowledged as error:
            raise CollectionFailed(str(error)) from error
        finally:
            await protocol.withdraw(proposed.id)

    async def _sweep(
        self,
        before: float,
        protocol: DeleteListProtocol,
        manifests: Sequence[tuple[str, Digest]],
        blobs: Sequence[Digest],
    ) -> None:
        total, done, removed_revisions = len(manifests) + len(blobs), 0, 0
        removed_blobs: set[Digest] = set()

        may_remove = partial(self._may_remove, protocol)

        def in_time() -> bool:
            nonlocal done
            done += 1
            if done % _PROGRESS_ITEMS == 0 or done == total:
                self.observer.removed(done, total)
            return may_remove()

        async def remove_revision(pair: tuple[str, Digest]) -> None:
            nonlocal removed_revisions
            await self.rate_limiter.throttle(1)
            if in_time() and await self._try(pair, self.sweeper.remove_revision(*pair, before)):
                removed_revisions += 1

        async def remove_blob(digest: Digest) -> None:
            await self.rate_limiter.throttle(1)
            if in_time():
                removed_bytes = await self._try(
                    digest, self.sweeper.remove_blob(digest, before, may_remove)
                )
                if removed_bytes is not None:
                    removed_blobs.add(digest)
                    self._result.size += removed_bytes

        began = self.clock.seconds()
        await map_in_batches(remove_revision, manifests)
        await map_in_batches(remove_blob, blobs)
        self._list_digests = self._digests_removable(total, self.clock.seconds() - began)
        if removed_blobs and may_remove():
            await self._try("links", self.sweeper.unlink_blobs(removed_blobs))
        if total and not removed_revisions + len(removed_blobs) and not protocol.in_time():
            raise CollectionFailed("marking the store took too long, nothing is removed")
        self._result.manifests += removed_revisions
        self._result.blobs += len(removed_blobs)
        self._needs_another_round |= (
            bool(removed_revisions)
            or not may_remove()
            or (bool(removed_blobs) and self.trash is not None)
        )

    def _may_remove(self, protocol: DeleteListProtocol) -> bool:
        """Return whether the list still protects pushes, and ages are still right."""
        # After the clock was set back, what is stored now looks old.
        self.jumps.look()
        return protocol.in_time() and self.jumps.count == self._known_jumps

    async def _try(self, item: object, removal: Awaitable[_T]) -> _T | None:
        """Await the removal of an item; count it as failed if the store fails.

        :raises RegistryError: if so many items failed that the store must be broken.
        """
        try:
            return await removal
        except RegistryError:
            # The storage error is logged already.
            self._count_failed([item])
            if self._result.failed >= _MAX_FAILED_ITEMS:
                raise
            return None

    def _count_failed(self, items: Iterable[object]) -> None:
        self._failed_items.update(items)
        self._result.failed = len(self._failed_items)

    async def _mark(self, before: float, observer: CollectorObserver) -> MarkResult:
        marked = await self._mark_phase.mark(before, observer, self.rate_limiter.throttle)
        if self.trash is not None and not self.dry_run:
            while True:
                restored, failed = await restore_needed(self.trash, self.references)
                self._count_failed(failed)
                if not restored:
                    break
                # Restored manifests may refer to more.
                marked = await self._mark_phase.mark(before)
        return marked

    async def _unreachable_blobs(
        self, before: float
    ) -> AsyncIterator[tuple[list[StoredBlob], int]]:
        """Yield unreachable blobs older than ``before``, and the number of younger ones."""
        async for blobs in self.inventory.blobs():
            by_digest = {blob.digest: blob for blob in blobs}
            unreachable = [
                by_digest[digest] for digest in await self.references.unreachable(list(by_digest))
            ]
            old = [
                blob for blob in unreachable if blob.modified is not None and blob.modified < before
            ]
            yield old, len(unreachable) - len(old)

    def _digests_removable(self, removed: int, seconds: float) -> int:
        """Return how many digests the next list may have.

        :param removed: digests on the last list.
        :param seconds: how long their removal took.
        """
        if seconds <= 0 or removed < self.min_list_digests:
            return self.min_list_digests
        removable = int(removed * _TARGET_SWEEP_S / seconds)
        return max(self.min_list_digests, min(self.max_list_digests, removable))
