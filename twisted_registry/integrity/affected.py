"""Find the tags that need some blob or manifest, directly or through an index."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from twisted_registry.integrity.links import LinkCheck
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.inventory import Inventory


@frozen
class AffectedTag:
    """A tag that cannot be pulled completely.

    :ivar causes: the digests that are missing or damaged; empty if the tag's own link is.
    :ivar link: the path of its link, if only that is wrong; otherwise empty.
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
    """The state of one repository while it is checked. It grows with the damage only.

    :ivar name: of the repository.
    :ivar has_manifests: whether anything is below its ``_manifests``.
    :ivar dangling: linked blobs that are not stored.
    :ivar lost: linked manifests that are not stored.
    :ivar tagged: the lost manifests that a tag names.
    :ivar tag: the tag whose link was read last.
    :ivar unfinished: the tag that was found last to have no link.
    """

    name: str
    has_manifests: bool = False
    dangling: list[Digest] = field(factory=list)
    lost: set[Digest] = field(factory=set)
    tagged: set[Digest] = field(factory=set)
    tag: str = ""
    unfinished: str = ""
    _causes: dict[Digest, set[Digest]] = field(init=False, factory=dict)
    _is_propagated: bool = field(init=False, default=False)

    def add_cause(self, manifest: Digest, part: Digest) -> None:
        """Record a missing or damaged part of a manifest."""
        self._causes.setdefault(manifest, set()).add(part)

    def add_lost_manifest(self, manifest: Digest) -> None:
        """Record a manifest that is not stored."""
        self.lost.add(manifest)
        self.add_cause(manifest, manifest)

    def all_causes(self) -> set[Digest]:
        """Return the missing or damaged parts of all manifests."""
        return {part for parts in self._causes.values() for part in parts}

    def causes(self, manifest: Digest) -> tuple[Digest, ...]:
        """Return the missing or damaged parts of a manifest, sorted."""
        return tuple(sorted(self._causes.get(manifest, ())))

    async def propagate_to_indexes(self, inventory: Inventory) -> None:
        """Give indexes the causes of their children, unless that is done.

        Reads all manifests of the repository again, only where something is wrong.
        """
        if self._is_propagated:
            return
        self._is_propagated = True
        # What cannot be read was reported already.
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


@define(eq=False)
class AffectedTags:
    """Finds affected tags in all repositories of a store."""

    links: LinkCheck
    inventory: Inventory

    async def of(self, digests: Collection[Digest]) -> AsyncIterator[AffectedTag]:
        """Yield the tags that cannot be pulled completely without some blobs or manifests.

        :raises RegistryError: if the store cannot be listed.
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
