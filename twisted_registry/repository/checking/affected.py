"""Which tags need some content, be it by way of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.repository import layout
from twisted_registry.repository.checking.trouble import AffectedTag, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from twisted_registry.digest import Digest
    from twisted_registry.repository.checking.links import Links
    from twisted_registry.repository.inventory import Inventory


@define(eq=False)
class TagsInNeed:
    """Looks through all repositories of a store that hold any of what it is asked for."""

    links: Links
    inventory: Inventory

    async def of(self, digests: Collection[Digest]) -> AsyncIterator[AffectedTag]:
        """Yield the tags that can not be pulled whole without some blobs or manifests.

        :raises RegistryError: if the store can not be looked through.
        """
        async for name in self.inventory.repositories():
            if await self._holds_any(name, digests):
                async for tag in self._in(name, digests):
                    yield tag

    async def _holds_any(self, name: str, digests: Collection[Digest]) -> bool:
        paths = [layout.layer_link(name, digest) for digest in digests]
        paths += [layout.revision_link(name, digest) for digest in digests]
        return any(await self.links.hold(paths, [*digests, *digests]))

    async def _in(self, name: str, digests: Collection[Digest]) -> AsyncIterator[AffectedTag]:
        trouble = Trouble(name)
        async for revisions in self.inventory.revisions(name):
            async for manifest, references in self.inventory.manifests(revisions):
                needed = {manifest} if references is None else {manifest, *references.digests}
                for digest in needed.intersection(digests):
                    trouble.blame(manifest, digest)
        await trouble.complete(self.inventory)
        async for page in self.inventory.tags(name):
            for tag, manifest in page:
                because = trouble.because(manifest)
                if because:
                    yield AffectedTag(name, tag, because)
