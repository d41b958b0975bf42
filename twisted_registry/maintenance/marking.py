"""Finding out what is alive: the first half of a collection, and all of other looks at a store.

What a manifest refers to never changes, so whatever comes to be alive between two looks does so by
a revision that was not there before. That is all that a second look has to find.
"""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.errors import RegistryError
from twisted_registry.maintenance.watcher import Watcher
from twisted_registry.repository.concurrency import each_of_many

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.references import ReferenceTable
    from twisted_registry.manifest import References
    from twisted_registry.repository.inventory import Inventory

    Pay = Callable[[float], Awaitable[None]]


#: Bytes that tell what a repository held from what it holds.
_SUM = 16


class CollectionFailed(Exception):
    """The run could not go on; the text says why. Nothing is lost, and it can be run again."""


@define(eq=False)
class Marked:
    """What a look through all repositories has told.

    :ivar repositories: how many there are.
    :ivar alive: blobs and manifests that something refers to; the table has their names.
    :ivar loose: manifests that nothing holds, old enough to go.
    :ivar troubled: repositories that hold something unreadable, of which all is kept.
    :ivar young: manifests that nothing holds, and that were pushed too lately to go.
    """

    repositories: int = 0
    alive: int = 0
    loose: list[tuple[str, Digest]] = field(factory=list)
    troubled: list[str] = field(factory=list)
    young: int = 0


@define(eq=False)
class Marking:
    """Looks through one store.

    :ivar untagged: whether manifests that no tag holds are looked for.
    """

    inventory: Inventory
    references: ReferenceTable
    untagged: bool = False

    async def mark(
        self, before: float, watcher: Watcher | None = None, pay: Pay | None = None
    ) -> Marked:
        """Find out what is alive, and which manifests nothing holds.

        :param before: seconds since the epoch; manifests that were pushed later are not loose.
        :param pay: awaited with 1 for each manifest that is read, to slow that down.
        :raises CollectionFailed: if the store can not be looked through.
        """
        watcher, marked = watcher or Watcher(), Marked()
        await self.references.begin()
        with _looking():
            async for name in self.inventory.repositories():
                marked.repositories += 1
                watcher.marking(name)
                await self._mark_repository(
                    name, before, marked, watcher, pay, untagged=self.untagged
                )
        marked.alive = await self.references.count()
        return marked

    async def look_again(
        self, before: float, suspects: Iterable[tuple[str, Digest]]
    ) -> set[tuple[str, Digest]]:
        """Find out what has come to be alive since the last mark; what was alive stays so.

        :param before: as in :meth:`mark`.
        :param suspects: manifests, with their repositories, that nothing held then.
        :returns: those of them that nothing holds now.
        :raises CollectionFailed: if the store can not be looked through.
        """
        suspects = frozenset(suspects)
        among, marked = {name for name, _ in suspects}, Marked()
        with _looking():
            async for name in self.inventory.repositories():
                if name in among or not await self._is_as_it_was(name):
                    await self._mark_repository(
                        name, before, marked, Watcher(), None, untagged=name in among
                    )
        return {pair for pair in marked.loose if pair in suspects}

    async def _is_as_it_was(self, name: str) -> bool:
        noted = await self.references.noted(name)
        if noted is None:
            return False
        seen = blake2b(digest_size=_SUM)
        async for digests in self.inventory.revisions(name):
            _add(seen, digests)
        return seen.digest() == noted

    async def _mark_repository(
        self,
        name: str,
        before: float,
        marked: Marked,
        watcher: Watcher,
        pay: Pay | None,
        *,
        untagged: bool,
    ) -> None:
        revisions: list[Digest] = []
        seen = blake2b(digest_size=_SUM)
        sound = whole = True
        async for digests in self.inventory.revisions(name):
            _add(seen, digests)
            read, known = await self._learn(digests, pay)
            sound, whole = sound and read, whole and known
            # Whatever a repository holds is kept, tagged or not: what is taken out of it in
            # this round is no longer held in the next.
            await self.references.keep(digests)
            for digest in digests:
                watcher.marked(name, digest)
            if untagged:
                revisions += digests
        # Where something could not be read, it is looked for each time.
        await self.references.note(name, seen.digest() if whole else None)
        if not sound:
            # Nobody knows what it refers to: perhaps to anything that the repository holds.
            marked.troubled.append(name)
            async for digests in self.inventory.layers(name):
                await self.references.keep(digests)
        elif untagged:
            loose, young = await self._loose(name, revisions, before)
            marked.loose += [(name, digest) for digest in loose]
            marked.young += young

    async def _loose(
        self, name: str, revisions: Sequence[Digest], before: float
    ) -> tuple[list[Digest], int]:
        """Manifests that nothing holds, and how many more are held by their youth."""
        roots: list[Digest] = []
        async for tags in self.inventory.tags(name):
            roots += [digest for _, digest in tags]
        loose = await self.references.loose(revisions, roots)

        async def is_old(digest: Digest) -> bool:
            revised = await self.inventory.revised(name, digest)
            return revised is not None and revised < before

        old = await each_of_many(is_old, loose)
        young = [digest for digest, aged in zip(loose, old, strict=True) if not aged]
        if not young:
            return loose, 0
        # Children are pushed before their index.
        return await self.references.loose(revisions, [*roots, *young]), len(young)

    async def _learn(self, manifests: Sequence[Digest], pay: Pay | None) -> tuple[bool, bool]:
        """Read the manifests that are not known yet.

        :returns: whether all could be read, and whether all their children could as well.
        """
        sound = whole = True
        unknown: Sequence[Digest] = await self.references.unknown(manifests)
        optional = False
        while unknown:
            learnt: list[tuple[Digest, References]] = []
            children: list[Digest] = []
            async for digest, references in self.inventory.manifests(unknown):
                if pay is not None:
                    await pay(1)
                if references is None:
                    sound, whole = sound and optional, False
                else:
                    learnt.append((digest, references))
                    children += references.manifests
            await self.references.learn(learnt)
            # Children that the repository does not hold itself; they need not be there.
            unknown, optional = await self.references.unknown(children), True
        return sound, whole


@contextmanager
def _looking() -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise CollectionFailed(
            "the store could not be looked through, so nothing is removed"
        ) from error


def _add(seen: blake2b, digests: Iterable[Digest]) -> None:
    """Add the names of manifests, which come in order, to what tells one set from another."""
    seen.update("".join(f"{digest}\n" for digest in digests).encode("ascii"))
