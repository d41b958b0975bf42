"""The collector: removes what nothing refers to, while clients push.

:mod:`twisted_registry.gc.gate` describes the protocol, and
``tests/maintenance/collector_model.py`` tries it out. A round marks, and makes lists of what is
dead by that. Each goes: propose it; wait until every process has acknowledged it; take off it what
was leased; condemn the rest; look again; remove what is condemned and still dead; withdraw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field, frozen

from twisted_registry.gc.delete_list import (
    LIST_TTL_S,
    SETTLE_S,
    DeleteList,
    DeleteListProtocol,
    NotAcknowledged,
    Phase,
)
from twisted_registry.gc.expire_trash import TrashRecovery
from twisted_registry.gc.mark import CollectionFailed, CollectorObserver, MarkPhase, MarkResult
from twisted_registry.gc.reference_db import ReferenceDatabaseLost
from twisted_registry.repository.concurrency import RateLimiter, map_in_batches
from twisted_registry.repository.inventory import StoredBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.gc.sweep import Sweeper
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.repository.recall import Recall

#: Digests on the first list: what is removed in about ten seconds, for a push may have to wait so
#: long.
_INITIAL_LIST_SIZE = 2000
#: Digests on a later one, where the store is faster than that, and seconds in which they go: each
#: list costs a look at all names.
_MAX_LIST_SIZE = 10_000
_TARGET_SWEEP_S = 4.0
#: Seconds in which what is on one list is to be removed where the pace is set.
_RATED_SWEEP_S = 10.0
#: By how many times what a look through the store took a list is good for longer.
_MARK_TTL_FACTOR = 4.0


@frozen
class CollectionResult:
    """What a run did.

    :ivar repositories: that were looked through.
    :ivar marked: blobs and manifests that something refers to.
    :ivar manifests: revisions that were taken out of their repositories, or would be.
    :ivar blobs: blobs and manifests whose bytes are gone, or would be.
    :ivar size: their bytes.
    :ivar leased: what stays because clients were told of it meanwhile.
    :ivar troubled: repositories that hold something unreadable, of which all is kept.
    :ivar vacated: repositories that hold nothing any more, and left the catalog.
    :ivar young_manifests: revisions that stay only because they are younger than the grace.
    :ivar young_blobs: blobs and manifests to which nothing refers, whose bytes are younger.
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


@define(eq=False)
class Collector:
    """Collects garbage of one store.

    :ivar grace: seconds for which everything that was stored is kept.
    :ivar untagged: whether manifests that no tag holds go as well.
    :ivar dry_run: only say what would go.
    :ivar recall: brings back from the trash what is needed, if there is a trash.
    :ivar pace: holds up what reads manifests and removes things, each of which counts one.
    :ivar settling: see :class:`~twisted_registry.maintenance.protocol.DeleteListProtocol`.
    """

    inventory: Inventory
    sweeper: Sweeper
    references: ReferenceDatabase
    clock: IReactorTime
    grace: float
    untagged: bool = False
    dry_run: bool = False
    observer: CollectorObserver = field(factory=CollectorObserver)
    recall: Recall | None = None
    rate_limiter: RateLimiter = field()
    settle_s: float = SETTLE_S
    _mark_phase: MarkPhase = field(init=False)
    #: what was done so far
    _result: CollectionResult = field(init=False, factory=CollectionResult)
    #: whether another round may find more: what manifests that were taken out had held, or what
    #: there was no time for; and what the trash is to give back after a removal
    _needs_another_round: bool = field(init=False, default=False)
    #: digests that the next list may have, by what removing those of the last one took
    _list_size: int = field(init=False, factory=lambda: _INITIAL_LIST_SIZE)
    #: seconds that the last look through the store took
    _mark_duration_s: float = field(init=False, default=0.0)

    @rate_limiter.default
    def _make_rate_limiter(self) -> RateLimiter:
        return RateLimiter(self.clock, 0)

    @_mark_phase.default
    def _make_mark_phase(self) -> MarkPhase:
        return MarkPhase(self.inventory, self.references, self.untagged)

    async def run(self) -> CollectionResult:
        """Collect until nothing more can go.

        :raises CollectionFailed: if what is referred to can not be told, or processes do not
            acknowledge the list.
        """
        self._result = CollectionResult()
        observer = self.observer
        may_retry = True
        while True:
            self._needs_another_round = False
            try:
                await self._round(observer)
            except ReferenceDatabaseLost:
                if not may_retry:
                    raise
                # With a table that is new, all manifests are read again.
                may_retry, observer = False, CollectorObserver()
                continue
            # Later rounds go through the same repositories.
            observer = CollectorObserver()
            total = self._result
            if self.dry_run:
                return total
            if not self._needs_another_round:
                return evolve(total, vacated=await self.sweeper.prune_empty_repository())

    async def _round(self, observer: CollectorObserver) -> None:
        """Look through the store once, and remove what is dead by that, one list after another.

        What the first look says only makes the lists, so that one is enough for all of them; each
        is looked at again when it is condemned.
        """
        before = await self.sweeper.store_time() - self.grace
        began = self.clock.seconds()
        marked = await self._mark(before, observer)
        self._mark_duration_s = self.clock.seconds() - began
        self._result = evolve(
            self._result,
            repositories=marked.repositories,
            marked=marked.alive,
            troubled=tuple(marked.troubled),
            young_manifests=marked.young,
            young_blobs=0,
        )
        manifests, blobs = marked.unreferenced, list[StoredBlob]()
        async for unreachable, young in self._unreachable_blobs(before):
            blobs += unreachable
            self._result = evolve(self._result, young_blobs=self._result.young_blobs + young)
            while len(manifests) + len(blobs) >= self._max_list_size and not self.dry_run:
                await self._remove_listed(before, *self._take_batch(manifests, blobs))
        if self.dry_run:
            self.observer.eligible(manifests, [blob.digest for blob in blobs])
            size = sum(blob.size for blob in blobs)
            self._add_to_result(len(manifests), len(blobs), size)
        elif manifests or blobs:
            await self._remove_listed(before, *self._take_batch(manifests, blobs))

    def _take_batch(
        self, manifests: list[tuple[str, Digest]], blobs: list[StoredBlob]
    ) -> tuple[Sequence[tuple[str, Digest]], Sequence[StoredBlob]]:
        """Take away as many of what is to go as a list may have."""
        some = manifests[: self._max_list_size]
        others = blobs[: self._max_list_size - len(some)]
        del manifests[: len(some)], blobs[: len(others)]
        return some, others

    def _add_to_result(self, manifests: int, blobs: int, size: int) -> None:
        total = self._result
        self._result = evolve(
            total,
            manifests=total.manifests + manifests,
            blobs=total.blobs + blobs,
            size=total.size + size,
        )

    @property
    def _max_list_size(self) -> int:
        """How many digests a list may have, to be gone long before it is void."""
        rate = self.rate_limiter.rate
        return (
            max(1, min(_INITIAL_LIST_SIZE, int(rate * _RATED_SWEEP_S))) if rate else self._list_size
        )

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
            # Half of it must be enough for another look, and for the sweep.
            LIST_TTL_S + _MARK_TTL_FACTOR * self._mark_duration_s,
            frozenset(blob.digest for blob in blobs),
            frozenset(manifests),
        )
        protocol = DeleteListProtocol(self.sweeper, self.clock, self.settle_s)
        try:
            await protocol.propose(proposed)
            leased = await self.sweeper.leased_digests(proposed.id)
            self._result = evolve(self._result, leased=max(self._result.leased, len(leased)))
            condemned = evolve(
                proposed,
                phase=Phase.CONDEMNED,
                blobs=proposed.blobs - leased,
                manifests=frozenset(pair for pair in proposed.manifests if pair[1] not in leased),
            )
            await protocol.condemn(condemned)
            began = self.clock.seconds()
            still = await self._mark_phase.remark(before, condemned.manifests)
            self._mark_duration_s = self.clock.seconds() - began
            unreachable = await self.references.unreachable(sorted(condemned.blobs))
            await self._sweep(before, protocol, sorted(still), unreachable)
        except NotAcknowledged as error:
            raise CollectionFailed(str(error)) from error
        finally:
            await self.sweeper.withdraw(proposed.id)

    async def _sweep(
        self,
        before: float,
        protocol: DeleteListProtocol,
        manifests: Sequence[tuple[str, Digest]],
        blobs: Sequence[Digest],
    ) -> None:
        total, done, size = len(manifests) + len(blobs), 0, 0
        gone: set[Digest] = set()
        taken_out = 0

        def in_time() -> bool:
            nonlocal done
            done += 1
            if done % 50 == 0 or done == total:
                self.observer.removed(done, total)
            return protocol.in_time()

        async def take_out(pair: tuple[str, Digest]) -> None:
            nonlocal taken_out
            await self.rate_limiter.throttle(1)
            if in_time() and await self.sweeper.remove_revision(*pair, before):
                taken_out += 1

        async def remove(digest: Digest) -> None:
            nonlocal size
            await self.rate_limiter.throttle(1)
            if in_time():
                removed = await self.sweeper.remove_blob(digest, before, protocol.in_time)
                if removed is not None:
                    gone.add(digest)
                    size += removed

        began = self.clock.seconds()
        await map_in_batches(take_out, manifests)
        await map_in_batches(remove, blobs)
        self._list_size = _list_size_for(total, self.clock.seconds() - began)
        if gone and protocol.in_time():
            await self.sweeper.unlink_blobs(gone)
        if total and not taken_out + len(gone) and not protocol.in_time():
            raise CollectionFailed("the store took too long to look through, so nothing is removed")
        self._add_to_result(taken_out, len(gone), size)
        back = bool(gone) and self.recall is not None
        self._needs_another_round |= bool(taken_out) or not protocol.in_time() or back

    async def _mark(self, before: float, observer: CollectorObserver) -> MarkResult:
        marked = await self._mark_phase.mark(before, observer, self.rate_limiter.throttle)
        if self.recall is not None and not self.dry_run:
            recovery = TrashRecovery(self.recall, self.references)
            while await recovery.restore_needed():
                # Manifests may be among it.
                marked = await self._mark_phase.mark(before)
        return marked

    async def _unreachable_blobs(
        self, before: float
    ) -> AsyncIterator[tuple[list[StoredBlob], int]]:
        """Yield blobs that nothing refers to and that are old enough, and how many are not."""
        async for blobs in self.inventory.blobs():
            by_digest = {blob.digest: blob for blob in blobs}
            unreachable = [
                by_digest[digest] for digest in await self.references.unreachable(list(by_digest))
            ]
            old = [
                blob for blob in unreachable if blob.modified is not None and blob.modified < before
            ]
            yield old, len(unreachable) - len(old)


def _list_size_for(removed: int, seconds: float) -> int:
    """How many digests a list may have, if it took so many seconds to remove some."""
    if seconds <= 0 or removed < _INITIAL_LIST_SIZE:
        return _INITIAL_LIST_SIZE
    return max(_INITIAL_LIST_SIZE, min(_MAX_LIST_SIZE, int(removed * _TARGET_SWEEP_S / seconds)))
