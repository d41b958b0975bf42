"""Finding out what is alive: the first half of a collection, and all of other looks at a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.errors import RegistryError
from twisted_registry.maintenance.watcher import Watcher
from twisted_registry.repository.concurrency import each

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.references import ReferenceTable
    from twisted_registry.manifest import References
    from twisted_registry.repository.inventory import Inventory

    Pay = Callable[[float], Awaitable[None]]


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
        try:
            async for name in self.inventory.repositories():
                marked.repositories += 1
                watcher.marking(name)
                await self._mark_repository(name, before, marked, watcher, pay)
        except RegistryError as error:
            raise CollectionFailed(
                "the store could not be looked through, so nothing is removed"
            ) from error
        marked.alive = await self.references.count()
        return marked

    async def _mark_repository(
        self, name: str, before: float, marked: Marked, watcher: Watcher, pay: Pay | None
    ) -> None:
        revisions: list[Digest] = []
        sound = True
        async for digests in self.inventory.revisions(name):
            sound = await self._learn(digests, pay) and sound
            # Whatever a repository holds is kept, tagged or not: what is taken out of it in
            # this round is no longer held in the next.
            await self.references.keep(digests)
            for digest in digests:
                watcher.marked(name, digest)
            if self.untagged:
                revisions += digests
        if not sound:
            # Nobody knows what it refers to: perhaps to anything that the repository holds.
            marked.troubled.append(name)
            async for digests in self.inventory.layers(name):
                await self.references.keep(digests)
        elif self.untagged:
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

        old = await each(is_old, loose)
        young = [digest for digest, aged in zip(loose, old, strict=True) if not aged]
        if not young:
            return loose, 0
        # Children are pushed before their index.
        return await self.references.loose(revisions, [*roots, *young]), len(young)

    async def _learn(self, manifests: Sequence[Digest], pay: Pay | None) -> bool:
        """Read the manifests that are not known yet; return whether all could be read."""
        sound = True
        unknown: Sequence[Digest] = await self.references.unknown(manifests)
        optional = False
        while unknown:
            learnt: list[tuple[Digest, References]] = []
            children: list[Digest] = []
            async for digest, references in self.inventory.manifests(unknown):
                if pay is not None:
                    await pay(1)
                if references is None:
                    sound = sound and optional
                else:
                    learnt.append((digest, references))
                    children += references.manifests
            await self.references.learn(learnt)
            # Children that the repository does not hold itself; they need not be there.
            unknown, optional = await self.references.unknown(children), True
        return sound
