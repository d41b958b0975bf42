"""Which tags need some content, be it by way of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.repository import layout
from twisted_registry.repository.checking.trouble import AffectedTag, RepositoryFindings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from twisted_registry.digest import Digest
    from twisted_registry.repository.checking.links import LinkCheck
    from twisted_registry.repository.inventory import Inventory


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

    async def _find_in_repository(self, name: str, digests: Collection[Digest]) -> AsyncIterator[AffectedTag]:
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
