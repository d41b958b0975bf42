"""Explain why content is kept, or when it will be removed (``garbage-collect --explain``)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from attrs import define, frozen

from twisted_registry.gc.delete_list import read_delete_list, read_leases
from twisted_registry.gc.reference_db import retry_if_lost
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import store_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.gc.mark import MarkPhase
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.inventory import Inventory


@frozen
class Holder:
    """A manifest of a repository that is the content, or needs it directly or indirectly.

    :ivar tags: the tags that name it.
    :ivar indexes: the indexes of the repository that list it.
    :ivar subject: the digest of its subject, if it has one.
    :ivar young_until: the end of its grace period, in seconds since the epoch, if nothing else
        holds it; otherwise None.
    :ivar holds: whether it keeps the content now.
    :ivar for_good: whether it keeps the content regardless of the grace period.
    """

    repository: str
    manifest: Digest
    tags: tuple[str, ...]
    indexes: tuple[Digest, ...]
    subject: Digest | None
    young_until: float | None
    holds: bool
    for_good: bool


@frozen
class Explanation:
    """Why content is kept, or when it will be removed.

    :ivar size: bytes; None if it is not stored.
    :ivar stored: when it was stored, in seconds since the epoch, by the clock of the store.
    :ivar holders: all manifests that need it.
    :ivar troubled: repositories that link it and hold an unreadable manifest, which may need it.
    :ivar listed: ``proposed`` or ``condemned`` if a collector is about to remove it; else empty.
    :ivar leased: whether it was reported as present to a client since it was proposed.
    :ivar goes: the end of the last grace period, after which a collection removes it, in seconds
        since the epoch; None if it is kept.
    """

    digest: Digest
    size: int | None
    stored: float | None
    holders: tuple[Holder, ...]
    troubled: tuple[str, ...]
    listed: str
    leased: bool
    goes: float | None

    @property
    def kept(self) -> bool:
        """Whether it is stored, and no later collection removes it."""
        return self.size is not None and self.goes is None


@define(eq=False)
class Explainer:
    """Searches one store for what needs a digest.

    :ivar mark_phase: marks the store; finds manifests that no tag holds if ``untagged`` is set.
    :ivar grace: seconds for which everything that was stored is kept.
    """

    mark_phase: MarkPhase
    grace: float

    async def explain(self, digest: Digest) -> Explanation:
        """Find out why a digest is kept.

        :raises CollectionFailed: if the store cannot be marked.
        :raises RegistryError: if the store fails.
        """
        return await retry_if_lost(lambda: self._explain(digest))

    async def _explain(self, digest: Digest) -> Explanation:
        before = await store_time(self._inventory.driver) - self.grace
        without_grace = frozenset((await self.mark_phase.mark(inf)).unreferenced)
        mark_result = await self.mark_phase.mark(before)
        unreferenced = frozenset(mark_result.unreferenced)
        await self.mark_phase.references.trace_dependents(digest)
        holders: list[Holder] = []
        async for name in self._inventory.repositories():
            holders += await self._holders(name, unreferenced, without_grace)
        troubled = tuple([name for name in mark_result.troubled if await self._links(name, digest)])
        listed, leased = await self._listed(digest, {holder.repository for holder in holders})
        found = await self._inventory.stat_blob(digest)
        stored = None if found is None else found.modified
        goes = None
        if found is not None and not (troubled or any(holder.for_good for holder in holders)):
            ends = [holder.young_until for holder in holders if holder.young_until is not None]
            goes = max([*ends, (stored or 0.0) + self.grace])
        size = None if found is None else found.size
        return Explanation(digest, size, stored, tuple(holders), troubled, listed, leased, goes)

    def close(self) -> Deferred[None]:
        """Close the database of references."""
        return self.mark_phase.references.close()

    @property
    def _inventory(self) -> Inventory:
        return self.mark_phase.inventory

    async def _holders(
        self,
        name: str,
        unreferenced: frozenset[tuple[str, Digest]],
        without_grace: frozenset[tuple[str, Digest]],
    ) -> list[Holder]:
        needing: list[Digest] = []
        async for digests in self._inventory.revisions(name):
            needing += await self.mark_phase.references.filter_dependents(digests)
        if not needing:
            return []
        tags: dict[Digest, list[str]] = {digest: [] for digest in needing}
        async for page in self._inventory.tags(name):
            for tag, digest in page:
                if digest in tags:
                    tags[digest].append(tag)
        indexes: dict[Digest, list[Digest]] = {digest: [] for digest in needing}
        for index, child in await self.mark_phase.references.references_between(needing):
            indexes[child].append(index)
        subjects = dict(await self.mark_phase.references.subjects(needing))
        holders = []
        for digest in sorted(needing):
            holds = (name, digest) not in unreferenced
            for_good = (name, digest) not in without_grace
            until = None if for_good or not holds else await self._young_until(name, digest)
            holders.append(
                Holder(
                    name,
                    digest,
                    tuple(tags[digest]),
                    tuple(sorted(indexes[digest])),
                    subjects.get(digest),
                    until,
                    holds,
                    for_good,
                )
            )
        return holders

    async def _young_until(self, name: str, digest: Digest) -> float | None:
        pushed_at = await self._inventory.pushed_at(name, digest)
        return None if pushed_at is None else pushed_at + self.grace

    async def _links(self, name: str, digest: Digest) -> bool:
        async for digests in self._inventory.layers(name):
            if digest in digests:
                return True
        return False

    @translate_storage_errors
    async def _listed(self, digest: Digest, names: set[str]) -> tuple[str, bool]:
        """Return the phase of the delete list that has a digest, and whether it is leased."""
        driver = self._inventory.driver
        published = await read_delete_list(driver)
        if published is None or not (
            published.contains(None, digest)
            or any(published.contains(name, digest) for name in names)
        ):
            return "", False
        return published.phase.value, digest in await read_leases(driver, published.id)


def describe_holder(holder: Holder) -> Sequence[str]:
    """Return the reasons that hold a manifest, as text."""
    reasons = []
    if holder.tags:
        reasons.append(f"tagged {', '.join(holder.tags)}")
    if holder.indexes:
        reasons.append(f"listed by {', '.join(map(str, holder.indexes))}")
    if holder.subject is not None:
        reasons.append(f"refers to {holder.subject}")
    return reasons
