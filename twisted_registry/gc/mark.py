"""The mark phase: find reachable content, and manifests that nothing refers to.

What a manifest refers to never changes. So whatever becomes reachable between two marks does so by
a revision that was not there at the first, and a second mark only has to find new revisions.
"""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.concurrency import map_in_batches
from twisted_registry.repository.inventory import TagUnreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.manifest import References
    from twisted_registry.repository.inventory import Inventory

    Throttle = Callable[[float], Awaitable[None]]

#: Size of the checksum over the names of a repository's revisions.
_CHECKSUM_BYTES = 16


class CollectionFailed(Exception):
    """The run was given up, and nothing needed was removed; the text has the reason."""


class CollectorObserver:
    """Receives the progress of a collection; this one ignores it."""

    def repository_started(self, name: str) -> None:
        """A repository is being marked."""

    def manifest_kept(self, name: str, digest: Digest) -> None:
        """A manifest of that repository is kept."""

    def eligible(self, manifests: Sequence[tuple[str, Digest]], blobs: Sequence[Digest]) -> None:
        """These are about to be removed, or would be in a dry run."""

    def removed(self, done: int, total: int) -> None:
        """``done`` of the ``total`` items on a list were processed."""


@define(eq=False)
class MarkResult:
    """The result of marking all repositories.

    :ivar repositories: how many there are.
    :ivar alive: number of reachable blobs and manifests; the database has their digests.
    :ivar unreferenced: manifests that nothing holds and that are older than the grace period, with
        their repositories.
    :ivar troubled: repositories with something unreadable, of which everything is kept.
    :ivar young: number of manifests that nothing but the grace period holds.
    """

    repositories: int = 0
    alive: int = 0
    unreferenced: list[tuple[str, Digest]] = field(factory=list)
    troubled: list[str] = field(factory=list)
    young: int = 0


@define(eq=False)
class MarkPhase:
    """Marks one store.

    :ivar untagged: whether to find manifests that no tag holds.
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
        """Mark reachable content, and find the manifests that nothing holds.

        :param before: seconds since the epoch; manifests that were pushed later are kept.
        :param throttle: awaited with 1 for each manifest that is read.
        :raises CollectionFailed: if the store cannot be read.
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
        """Mark what has become reachable since the last mark. What was marked stays marked.

        :param before: as in :meth:`mark`.
        :param candidates: repositories and manifests that nothing held at the last mark.
        :returns: the candidates that nothing holds now.
        :raises CollectionFailed: if the store cannot be read.
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
            read, known = await load_references(self.inventory, self.references, digests, throttle)
            readable, whole = readable and read, whole and known
            # Tagged or not, every revision keeps its content. That of a revision that is taken
            # out in this round becomes unreachable in the next one.
            await self.references.mark_alive(digests)
            for digest in digests:
                observer.manifest_kept(name, digest)
            if untagged:
                revisions += digests
        # A repository with something unreadable is marked again each time.
        await self.references.save_checksum(name, checksum.digest() if whole else None)
        if not readable:
            # An unreadable manifest may refer to any blob of its repository.
            marked.troubled.append(name)
            async for digests in self.inventory.layers(name):
                await self.references.mark_alive(digests)
        elif untagged:
            try:
                unreferenced, young = await self._find_unreferenced(name, revisions, before)
            except TagUnreadable:
                # It may name any manifest of its repository.
                marked.troubled.append(name)
                return
            marked.unreferenced += [(name, digest) for digest in unreferenced]
            marked.young += young

    async def _find_unreferenced(
        self, name: str, revisions: Sequence[Digest], before: float
    ) -> tuple[list[Digest], int]:
        """Return old manifests that nothing holds, and the number of young ones.

        :raises TagUnreadable: if it is unknown what a tag names.
        """
        roots: list[Digest] = []
        async for tags in self.inventory.tags(name, strict=True):
            roots += [digest for _, digest in tags]
        unreferenced = await self.references.unreferenced(revisions, roots)

        async def is_old(digest: Digest) -> bool:
            try:
                pushed_at = await self.inventory.pushed_at(name, digest)
            except RegistryError:
                # The storage error is logged already. What has no known age is kept.
                return False
            return pushed_at is not None and pushed_at < before

        old = await map_in_batches(is_old, unreferenced)
        young = [digest for digest, aged in zip(unreferenced, old, strict=True) if not aged]
        if not young:
            return unreferenced, 0
        # A young index keeps its children, which are older.
        return await self.references.unreferenced(revisions, [*roots, *young]), len(young)


async def load_references(
    inventory: Inventory,
    references: ReferenceDatabase,
    manifests: Sequence[Digest],
    throttle: Throttle | None = None,
) -> tuple[bool, bool]:
    """Read the manifests that are not in the database yet, and their children.

    :param throttle: awaited with 1 for each manifest that is read.
    :returns: whether all of them could be read, and whether all their children could as well.
    :raises RegistryError: if the store fails.
    """
    readable = whole = True
    unknown_manifests: Sequence[Digest] = await references.unknown_manifests(manifests)
    optional = False
    while unknown_manifests:
        contents: list[tuple[Digest, References]] = []
        children: list[Digest] = []
        async for digest, found in inventory.manifests(unknown_manifests):
            if throttle is not None:
                await throttle(1)
            if found is None:
                readable, whole = readable and optional, False
            else:
                contents.append((digest, found))
                children += found.manifests
        await references.add_manifests(contents)
        # Children that the repository does not hold itself: they may be missing.
        unknown_manifests, optional = await references.unknown_manifests(children), True
    return readable, whole


@contextmanager
def _raise_collection_failed() -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise CollectionFailed(
            "the store could not be read completely, nothing is removed"
        ) from error


def _update_checksum(checksum: blake2b, digests: Iterable[Digest]) -> None:
    """Add the digests of revisions, which come in order, to a checksum."""
    checksum.update("".join(f"{digest}\n" for digest in digests).encode("ascii"))
