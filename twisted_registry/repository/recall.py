"""How things come back from the trash.

Bytes are copied, not moved: so they count as young, and a collector that found them old before
leaves them alone; and there is no moment at which they are in neither place. Who brings something
back because a push needs it does so as if it had been pushed, inside ``storing`` of the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.repository import layout
from twisted_registry.repository.failures import translated
from twisted_registry.repository.links import write_link
from twisted_registry.repository.stamps import Cause
from twisted_registry.repository.trashed import TrashCan
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted_registry.digest import Digest
    from twisted_registry.repository.trashed import Trashed
    from twisted_registry.storage.interfaces import IStorageDriver


@define(eq=False)
class Recall:
    """Brings back what is in the trash of one store."""

    driver: IStorageDriver

    @property
    def can(self) -> TrashCan:
        """The trash."""
        return TrashCan(self.driver)

    @translated
    async def blob(self, digest: Digest) -> bool:
        """Give a blob or manifest its bytes again, and return whether they are there now."""
        if await self.is_there(digest):
            return True
        found = await self.can.folder(layout.trashed_blob(digest))
        for item in reversed(found):
            try:
                await self.driver.copy(item.path, layout.blob(digest))
            except PathNotFound:
                # Somebody has emptied it, or was faster.
                continue
            await self.can.remove(found)
            return True
        return await self.is_there(digest)

    @translated
    async def layer(self, name: str, digest: Digest) -> bool:
        """Let a repository hold a blob again that a collector took, if its bytes can be had.

        :returns: whether it is so. What somebody deleted does not come back like this.
        """
        found = await self.collected_layer(name, digest)
        if not found or not await self.blob(digest):
            return False
        await write_link(self.driver, layout.layer_link(name, digest), digest)
        await self.can.remove(found)
        return True

    async def collected_layer(self, name: str, digest: Digest) -> list[Trashed]:
        """What was kept of a repository's link to a blob that a collector took.

        Nothing, if somebody has deleted it since.
        """
        found = await self.can.folder(layout.trashed_layer(name, digest))
        return found if found and found[-1].stamp.cause is Cause.COLLECTED else []

    async def is_there(self, digest: Digest) -> bool:
        """Whether the store has bytes of a digest."""
        try:
            size = (await self.driver.stat(layout.blob(digest))).size
        except PathNotFound:
            return False
        return bool(size) or digest.is_of_nothing
