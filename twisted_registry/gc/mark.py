"""Who hears what a collection does.

Finding out what is alive: the first half of a collection, and all of other looks at a store.

What a manifest refers to never changes, so whatever comes to be alive between two looks does so by
a revision that was not there before. That is all that a second look has to find.
"""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.concurrency import map_in_batches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.manifest import References
    from twisted_registry.repository.inventory import Inventory

    Throttle = Callable[[float], Awaitable[None]]


class CollectorObserver:
    """Hears what a run does; this one does nothing."""

    def repository_started(self, name: str) -> None:
        """A repository is looked through."""

    def manifest_kept(self, name: str, digest: Digest) -> None:
        """A manifest of it is kept."""

    def eligible(self, manifests: Sequence[tuple[str, Digest]], blobs: Sequence[Digest]) -> None:
        """These may go."""

    def removed(self, done: int, total: int) -> None:
        """So many of them were dealt with."""


#: Bytes that tell what a repository held from what it holds.
_CHECKSUM_BYTES = 16


class CollectionFailed(Exception):
    """The run could not go on; the text says why. Nothing is lost, and it can be run again."""


@define(eq=False)
class MarkResult:
    """What a look through all repositories has told.

    :ivar repositories: how many there are.
    :ivar alive: blobs and manifests that something refers to; the table has their names.
    :ivar loose: manifests that nothing holds, old enough to go.
    :ivar troubled: repositories that hold something unreadable, of which all is kept.
    :ivar young: manifests that nothing holds, and that were pushed too lately to go.
    """

    repositories: int = 0
    alive: int = 0
    unreferenced: list[tuple[str, Digest]] = field(factory=list)
    troubled: list[str] = field(factory=list)
    young: int = 0


@define(eq=False)
class MarkPhase:
    """Looks through one store.

    :ivar untagged: whether manifests that no tag holds are looked for.
    """

    inventory: Inventory
    references: ReferenceDatabase
    untagged: bool = False

    async def mark(
        self,
        before: float,
        observer: CollectorObserver | None = None,
        throttle: Throttle | None = None,
    ) -> MarkResult:
        """Find out what is alive, and which manifests nothing holds.

        :param before: seconds since the epoch; manifests that were pushed later are not loose.
        :param pay: awaited with 1 for each manifest that is read, to slow that down.
        :raises CollectionFailed: if the store can not be looked through.
        """
        observer, marked = observer or CollectorObserver(), MarkResult()
        await self.references.begin_run()
        with _raise_collection_failed():
            async for name in self.inventory.repositories():
                marked.repositories += 1
                observer.repository_started(name)
                await self._mark_repository(
                    name, before, marked, observer, throttle, untagged=self.untagged
                )
        marked.alive = await self.references.count_alive()
        return marked

    async def remark(
        self, before: float, candidates: Iterable[tuple[str, Digest]]
    ) -> set[tuple[str, Digest]]:
        """Find out what has come to be alive since the last mark; what was alive stays so.

        :param before: as in :meth:`mark`.
        :param suspects: manifests, with their repositories, that nothing held then.
        :returns: those of them that nothing holds now.
        :raises CollectionFailed: if the store can not be looked through.
        """
        candidates = frozenset(candidates)
        among, marked = {name for name, _ in candidates}, MarkResult()
        with _raise_collection_failed():
            async for name in self.inventory.repositories():
                if name in among or not await self._is_unchanged(name):
                    await self._mark_repository(
                        name, before, marked, CollectorObserver(), None, untagged=name in among
                    )
        return {pair for pair in marked.unreferenced if pair in candidates}

    async def _is_unchanged(self, name: str) -> bool:
        saved_checksum = await self.references.saved_checksum(name)
        if saved_checksum is None:
            return False
        checksum = blake2b(digest_size=_CHECKSUM_BYTES)
        async for digests in self.inventory.revisions(name):
            _update_checksum(checksum, digests)
        return checksum.digest() == saved_checksum

    async def _mark_repository(
        self,
        name: str,
        before: float,
        marked: MarkResult,
        observer: CollectorObserver,
        throttle: Throttle | None,
        *,
        untagged: bool,
    ) -> None:
        revisions: list[Digest] = []
        checksum = blake2b(digest_size=_CHECKSUM_BYTES)
        readable = whole = True
        async for digests in self.inventory.revisions(name):
            _update_checksum(checksum, digests)
            read, known = await self._load_references(digests, throttle)
            readable, whole = readable and read, whole and known
            # Whatever a repository holds is kept, tagged or not: what is taken out of it in
            # this round is no longer held in the next.
            await self.references.mark_alive(digests)
            for digest in digests:
                observer.manifest_kept(name, digest)
            if untagged:
                revisions += digests
        # Where something could not be read, it is looked for each time.
        await self.references.save_checksum(name, checksum.digest() if whole else None)
        if not readable:
            # Nobody knows what it refers to: perhaps to anything that the repository holds.
            marked.troubled.append(name)
            async for digests in self.inventory.layers(name):
                await self.references.mark_alive(digests)
        elif untagged:
            unreferenced, young = await self._find_unreferenced(name, revisions, before)
            marked.unreferenced += [(name, digest) for digest in unreferenced]
            marked.young += young

    async def _find_unreferenced(
        self, name: str, revisions: Sequence[Digest], before: float
    ) -> tuple[list[Digest], int]:
        """Manifests that nothing holds, and how many more are held by their youth."""
        roots: list[Digest] = []
        async for tags in self.inventory.tags(name):
            roots += [digest for _, digest in tags]
        unreferenced = await self.references.unreferenced(revisions, roots)

        async def is_old(digest: Digest) -> bool:
            pushed_at = await self.inventory.pushed_at(name, digest)
            return pushed_at is not None and pushed_at < before

        old = await map_in_batches(is_old, unreferenced)
        young = [digest for digest, aged in zip(unreferenced, old, strict=True) if not aged]
        if not young:
            return unreferenced, 0
        # Children are pushed before their index.
        return await self.references.unreferenced(revisions, [*roots, *young]), len(young)

    async def _load_references(
        self, manifests: Sequence[Digest], throttle: Throttle | None
    ) -> tuple[bool, bool]:
        """Read the manifests that are not known yet.

        :returns: whether all could be read, and whether all their children could as well.
        """
        readable = whole = True
        unknown_manifests: Sequence[Digest] = await self.references.unknown_manifests(manifests)
        optional = False
        while unknown_manifests:
            learnt: list[tuple[Digest, References]] = []
            children: list[Digest] = []
            async for digest, references in self.inventory.manifests(unknown_manifests):
                if throttle is not None:
                    await throttle(1)
                if references is None:
                    readable, whole = readable and optional, False
                else:
                    learnt.append((digest, references))
                    children += references.manifests
            await self.references.add_manifests(learnt)
            # Children that the repository does not hold itself; they need not be there.
            unknown_manifests, optional = await self.references.unknown_manifests(children), True
        return readable, whole


@contextmanager
def _raise_collection_failed() -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise CollectionFailed(
            "the store could not be looked through, so nothing is removed"
        ) from error


def _update_checksum(checksum: blake2b, digests: Iterable[Digest]) -> None:
    """Add the names of manifests, which come in order, to what tells one set from another."""
    checksum.update("".join(f"{digest}\n" for digest in digests).encode("ascii"))
