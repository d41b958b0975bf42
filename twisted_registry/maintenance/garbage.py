"""The collector: removes what nothing refers to, while clients push.

:mod:`twisted_registry.repository.gate` describes the protocol, and
``tests/maintenance/collector_model.py`` tries it out. A round marks, and makes lists of what is
dead by that. Each goes: propose it; wait until every process has acknowledged it; take off it what
was leased; condemn the rest; look again; remove what is condemned and still dead; withdraw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field, frozen

from twisted_registry.maintenance.marking import CollectionFailed, Marked, Marking
from twisted_registry.maintenance.needed import Needed
from twisted_registry.maintenance.pace import Pace
from twisted_registry.maintenance.references import ReferencesLost
from twisted_registry.maintenance.sentence import SETTLING, TERM, NotAcknowledged, Sentence
from twisted_registry.maintenance.watcher import Watcher
from twisted_registry.repository.concurrency import each_of_many
from twisted_registry.repository.condemned import Condemned, Phase
from twisted_registry.repository.inventory import StoredBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.references import ReferenceTable
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.repository.recall import Recall
    from twisted_registry.repository.removal import Removal

#: Digests on the first list: what is removed in about ten seconds, for a push may have to wait so
#: long.
_AT_ONCE = 2000
#: Digests on a later one, where the store is faster than that, and seconds in which they go: each
#: list costs a look at all names.
_MOST = 10_000
_SWEEP_SECONDS = 4.0
#: Seconds in which what is on one list is to be removed where the pace is set.
_LIST_SECONDS = 10.0
#: By how many times what a look through the store took a list is good for longer.
_LOOKS = 4.0


@frozen
class Collected:
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
    :ivar settling: see :class:`~twisted_registry.maintenance.sentence.Sentence`.
    """

    inventory: Inventory
    removal: Removal
    references: ReferenceTable
    clock: IReactorTime
    grace: float
    untagged: bool = False
    dry_run: bool = False
    watcher: Watcher = field(factory=Watcher)
    recall: Recall | None = None
    pace: Pace = field()
    settling: float = SETTLING
    _marking: Marking = field(init=False)
    #: what was done so far
    _total: Collected = field(init=False, factory=Collected)
    #: whether another round may find more: what manifests that were taken out had held, or what
    #: there was no time for; and what the trash is to give back after a removal
    _more: bool = field(init=False, default=False)
    #: digests that the next list may have, by what removing those of the last one took
    _fits: int = field(init=False, factory=lambda: _AT_ONCE)
    #: seconds that the last look through the store took
    _looked: float = field(init=False, default=0.0)

    @pace.default
    def _any_pace(self) -> Pace:
        return Pace(self.clock, 0)

    @_marking.default
    def _own_marking(self) -> Marking:
        return Marking(self.inventory, self.references, self.untagged)

    async def run(self) -> Collected:
        """Collect until nothing more can go.

        :raises CollectionFailed: if what is referred to can not be told, or processes do not
            acknowledge the list.
        """
        self._total = Collected()
        watcher = self.watcher
        patient = True
        while True:
            self._more = False
            try:
                await self._round(watcher)
            except ReferencesLost:
                if not patient:
                    raise
                # With a table that is new, all manifests are read again.
                patient, watcher = False, Watcher()
                continue
            # Later rounds go through the same repositories.
            watcher = Watcher()
            total = self._total
            if self.dry_run:
                return total
            if not self._more:
                return evolve(total, vacated=await self.removal.vacate())

    async def _round(self, watcher: Watcher) -> None:
        """Look through the store once, and remove what is dead by that, one list after another.

        What the first look says only makes the lists, so that one is enough for all of them; each
        is looked at again when it is condemned.
        """
        before = await self.removal.time() - self.grace
        began = self.clock.seconds()
        marked = await self._mark(before, watcher)
        self._looked = self.clock.seconds() - began
        self._total = evolve(
            self._total,
            repositories=marked.repositories,
            marked=marked.alive,
            troubled=tuple(marked.troubled),
            young_manifests=marked.young,
            young_blobs=0,
        )
        manifests, blobs = marked.loose, list[StoredBlob]()
        async for dead, young in self._dead(before):
            blobs += dead
            self._total = evolve(self._total, young_blobs=self._total.young_blobs + young)
            while len(manifests) + len(blobs) >= self._most and not self.dry_run:
                await self._remove(before, *self._list_of(manifests, blobs))
        if self.dry_run:
            self.watcher.eligible(manifests, [blob.digest for blob in blobs])
            size = sum(blob.size for blob in blobs)
            self._count(len(manifests), len(blobs), size)
        elif manifests or blobs:
            await self._remove(before, *self._list_of(manifests, blobs))

    def _list_of(
        self, manifests: list[tuple[str, Digest]], blobs: list[StoredBlob]
    ) -> tuple[Sequence[tuple[str, Digest]], Sequence[StoredBlob]]:
        """Take away as many of what is to go as a list may have."""
        some = manifests[: self._most]
        others = blobs[: self._most - len(some)]
        del manifests[: len(some)], blobs[: len(others)]
        return some, others

    def _count(self, manifests: int, blobs: int, size: int) -> None:
        total = self._total
        self._total = evolve(
            total,
            manifests=total.manifests + manifests,
            blobs=total.blobs + blobs,
            size=total.size + size,
        )

    @property
    def _most(self) -> int:
        """How many digests a list may have, to be gone long before it is void."""
        rate = self.pace.rate
        return max(1, min(_AT_ONCE, int(rate * _LIST_SECONDS))) if rate else self._fits

    async def _remove(
        self,
        before: float,
        manifests: Sequence[tuple[str, Digest]],
        blobs: Sequence[StoredBlob],
    ) -> None:
        self.watcher.eligible(manifests, [blob.digest for blob in blobs])
        proposed = Condemned(
            str(uuid4()),
            Phase.PROPOSED,
            # Half of it must be enough for another look, and for the sweep.
            TERM + _LOOKS * self._looked,
            frozenset(blob.digest for blob in blobs),
            frozenset(manifests),
        )
        sentence = Sentence(self.removal, self.clock, self.settling)
        try:
            await sentence.propose(proposed)
            leased = await self.removal.leased(proposed.id)
            self._total = evolve(self._total, leased=max(self._total.leased, len(leased)))
            condemned = evolve(
                proposed,
                phase=Phase.CONDEMNED,
                blobs=proposed.blobs - leased,
                manifests=frozenset(pair for pair in proposed.manifests if pair[1] not in leased),
            )
            await sentence.condemn(condemned)
            began = self.clock.seconds()
            still = await self._marking.look_again(before, condemned.manifests)
            self._looked = self.clock.seconds() - began
            dead = await self.references.dead(sorted(condemned.blobs))
            await self._sweep(before, sentence, sorted(still), dead)
        except NotAcknowledged as error:
            raise CollectionFailed(str(error)) from error
        finally:
            await self.removal.withdraw(proposed.id)

    async def _sweep(
        self,
        before: float,
        sentence: Sentence,
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
                self.watcher.removed(done, total)
            return sentence.in_time()

        async def take_out(pair: tuple[str, Digest]) -> None:
            nonlocal taken_out
            await self.pace.pay(1)
            if in_time() and await self.removal.remove_revision(*pair, before):
                taken_out += 1

        async def remove(digest: Digest) -> None:
            nonlocal size
            await self.pace.pay(1)
            if in_time():
                removed = await self.removal.remove_blob(digest, before, sentence.in_time)
                if removed is not None:
                    gone.add(digest)
                    size += removed

        began = self.clock.seconds()
        await each_of_many(take_out, manifests)
        await each_of_many(remove, blobs)
        self._fits = _fitting(total, self.clock.seconds() - began)
        if gone and sentence.in_time():
            await self.removal.unlink(gone)
        if total and not taken_out + len(gone) and not sentence.in_time():
            raise CollectionFailed("the store took too long to look through, so nothing is removed")
        self._count(taken_out, len(gone), size)
        back = bool(gone) and self.recall is not None
        self._more |= bool(taken_out) or not sentence.in_time() or back

    async def _mark(self, before: float, watcher: Watcher) -> Marked:
        marked = await self._marking.mark(before, watcher, self.pace.pay)
        if self.recall is not None and not self.dry_run:
            needed = Needed(self.recall, self.references)
            while await needed.bring_back():
                # Manifests may be among it.
                marked = await self._marking.mark(before)
        return marked

    async def _dead(self, before: float) -> AsyncIterator[tuple[list[StoredBlob], int]]:
        """Yield blobs that nothing refers to and that are old enough, and how many are not."""
        async for blobs in self.inventory.blobs():
            by_digest = {blob.digest: blob for blob in blobs}
            dead = [by_digest[digest] for digest in await self.references.dead(list(by_digest))]
            old = [blob for blob in dead if blob.modified is not None and blob.modified < before]
            yield old, len(dead) - len(old)


def _fitting(removed: int, seconds: float) -> int:
    """How many digests a list may have, if it took so many seconds to remove some."""
    if seconds <= 0 or removed < _AT_ONCE:
        return _AT_ONCE
    return max(_AT_ONCE, min(_MOST, int(removed * _SWEEP_SECONDS / seconds)))
