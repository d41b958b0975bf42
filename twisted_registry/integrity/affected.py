"""Which tags need some content, be it by way of others.

What is wrong in one repository, and which tags that reaches.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from twisted_registry.integrity.links import LinkCheck
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.inventory import Inventory


@frozen
class AffectedTag:
    """A tag that can not be pulled whole.

    :ivar because: of what is missing or damaged; empty if the tag's own link is.
    :ivar link: the path of its link, if nothing else is known to be wrong; else empty.
    """

    repository: str
    tag: str
    causes: tuple[Digest, ...]
    link: str = ""

    def __str__(self) -> str:
        causes = ", ".join(map(str, self.causes)) or "its own link"
        return f"{self.repository}:{self.tag} ({causes})"


@define(eq=False)
class RepositoryFindings:
    """A repository that is being looked through. It grows with what is wrong, not with the rest.

    :ivar name: of the repository.
    :ivar has_manifests: whether anything is below its ``_manifests``.
    :ivar dangling: blobs that are linked, and whose bytes are gone.
    :ivar lost: manifests whose bytes are gone.
    :ivar tagged: those of them that a tag names.
    :ivar is_complete: whether indexes were given what their children suffer from.
    """

    name: str
    has_manifests: bool = False
    is_propagated: bool = False
    dangling: list[Digest] = field(factory=list)
    lost: set[Digest] = field(factory=set)
    tagged: set[Digest] = field(factory=set)
    #: the tag whose link was seen last, and the one that was found to have none
    tag: str = ""
    unfinished: str = ""
    _causes: dict[Digest, set[Digest]] = field(factory=dict)

    def add_cause(self, manifest: Digest, part: Digest) -> None:
        """Note what a manifest suffers from."""
        self._causes.setdefault(manifest, set()).add(part)

    def add_lost_manifest(self, manifest: Digest) -> None:
        """Note that the bytes of a manifest are gone."""
        self.lost.add(manifest)
        self.add_cause(manifest, manifest)

    def all_causes(self) -> set[Digest]:
        """All that manifests suffer from."""
        return {part for parts in self._causes.values() for part in parts}

    def causes(self, manifest: Digest) -> tuple[Digest, ...]:
        """What a manifest suffers from."""
        return tuple(sorted(self._causes.get(manifest, ())))

    async def propagate_to_indexes(self, inventory: Inventory) -> None:
        """Let indexes suffer from what their children suffer from.

        All manifests are read once more for that, but only where something is wrong.
        """
        self.is_propagated = True
        # What can not be read was reported, and ends this early.
        with suppress(RegistryError):
            while self._causes and await self._propagate_once(inventory):
                pass

    async def _propagate_once(self, inventory: Inventory) -> bool:
        grown = False
        async for digests in inventory.revisions(self.name):
            async for digest, references in inventory.manifests(digests):
                children = () if references is None else references.manifests
                parts = {part for child in children for part in self._causes.get(child, ())}
                if not parts <= self._causes.get(digest, set()):
                    self._causes.setdefault(digest, set()).update(parts)
                    grown = True
        return grown

    def manifest_lookup(self, links: LinkCheck) -> Callable[[Digest], Awaitable[bool]]:
        """What asks whether the repository holds a manifest."""

        async def holds(digest: Digest) -> bool:
            return (await links.check_targets([layout.revision_link(self.name, digest)], [digest]))[
                0
            ]

        return holds


@define(eq=False)
class AffectedTags:
    """Looks through all repositories of a store that hold any of what it is asked for."""

    links: LinkCheck
    inventory: Inventory

    async def of(self, digests: Collection[Digest]) -> AsyncIterator[AffectedTag]:
        """Yield the tags that can not be pulled whole without some blobs or manifests.

        :raises RegistryError: if the store can not be looked through.
        """
        async for name in self.inventory.repositories():
            if await self._links_any(name, digests):
                async for tag in self._find_in_repository(name, digests):
                    yield tag

    async def _links_any(self, name: str, digests: Collection[Digest]) -> bool:
        paths = [layout.layer_link(name, digest) for digest in digests]
        paths += [layout.revision_link(name, digest) for digest in digests]
        return any(await self.links.check_targets(paths, [*digests, *digests]))

    async def _find_in_repository(
        self, name: str, digests: Collection[Digest]
    ) -> AsyncIterator[AffectedTag]:
        findings = RepositoryFindings(name)
        async for revisions in self.inventory.revisions(name):
            async for manifest, references in self.inventory.manifests(revisions):
                needed = {manifest} if references is None else {manifest, *references.digests}
                for digest in needed.intersection(digests):
                    findings.add_cause(manifest, digest)
        await findings.propagate_to_indexes(self.inventory)
        async for page in self.inventory.tags(name):
            for tag, manifest in page:
                causes = findings.causes(manifest)
                if causes:
                    yield AffectedTag(name, tag, causes)
