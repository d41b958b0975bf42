"""How things come back from the trash.

Bytes are copied, not moved: so they count as young, and a collector that found them old before
leaves them alone; and there is no moment at which they are in neither place. Who brings something
back because a push needs it does so as if it had been pushed, inside ``storing`` of the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.failures import translated
from twisted_registry.repository.links import write_link
from twisted_registry.repository.recent import READ_LIMIT
from twisted_registry.repository.stamps import Cause
from twisted_registry.repository.trashed import TrashCan
from twisted_registry.storage.interfaces import PathNotFound
from twisted_registry.value import Value

if TYPE_CHECKING:
    from twisted_registry.digest import Digest
    from twisted_registry.repository.trashed import Trashed
    from twisted_registry.storage.interfaces import IStorageDriver


#: Bytes of a media type.
_MEDIA_TYPE_LIMIT = 1024


@frozen(eq=False, repr=False)
class KeptManifest(Value):
    """A manifest whose bytes there still are.

    :ivar media_type: None if it tells its own, or nobody knows.
    """

    content: bytes = field(repr=False)
    media_type: str | None


@define(eq=False, repr=False)
class Recall:
    """Brings back what is in the trash of one store."""

    driver: IStorageDriver

    @property
    def can(self) -> TrashCan:
        """The trash."""
        return TrashCan(self.driver)

    @translated
    async def blob(self, digest: Digest) -> int | None:
        """Give a blob or manifest its bytes again, if it has none.

        :returns: its size; None if there are no bytes in the trash either.
        """
        size = await self.size(digest)
        if size is not None:
            return size
        found = await self.can.folder(layout.trashed_blob(digest))
        for item in reversed(found):
            try:
                await self.driver.copy(item.path, layout.blob(digest))
            except PathNotFound:
                # Somebody has emptied it, or was faster.
                continue
            await self.can.remove(found)
            return item.size
        return await self.size(digest)

    @translated
    async def layer(self, name: str, digest: Digest) -> bool:
        """Let a repository hold a blob again that a collector took, if its bytes can be had.

        :returns: whether it is so. What somebody deleted does not come back like this.
        """
        found = await self.collected_layer(name, digest)
        if not found or await self.blob(digest) is None:
            return False
        await write_link(self.driver, layout.layer_link(name, digest), digest)
        await self.can.remove(found)
        return True

    async def collected_layer(self, name: str, digest: Digest) -> list[Trashed]:
        """What was kept of a repository's link to a blob that a collector took.

        Nothing, if somebody has deleted it since.
        """
        return _collected(await self.can.folder(layout.trashed_layer(name, digest)))

    async def collected_revision(self, name: str, digest: Digest) -> KeptManifest | None:
        """A manifest that a collector took out of a repository, if its bytes can be had."""
        found = _collected(await self.can.folder(layout.trashed_revision(name, digest)))
        return await self.manifest(digest, found[-1]) if found else None

    @translated
    async def manifest(self, digest: Digest, record: Trashed | None) -> KeptManifest | None:
        """A manifest, from where its bytes are, or None if they are gone for good or damaged.

        :param record: what was kept of it when it was taken out of its repository.
        """
        content = await self._content(digest)
        if content is None or not digest.matches(content):
            return None
        kept = None if record is None else await self.can.content(record, _MEDIA_TYPE_LIMIT)
        media_type = (kept or b"").decode("ascii", "replace")
        return KeptManifest(content, media_type if is_media_type(media_type) else None)

    async def settled(self, name: str, digest: Digest) -> None:
        """Remove what was kept of a manifest that is in its repository again."""
        for folder in layout.trashed_revision(name, digest), layout.trashed_blob(digest):
            found = await self.can.folder(folder)
            if found:
                await self.can.remove(found)

    async def holds(self, digest: Digest) -> bool:
        """Whether the trash has bytes of a digest."""
        return bool(await self.can.folder(layout.trashed_blob(digest)))

    async def size(self, digest: Digest) -> int | None:
        """How many bytes the store has of a digest, or None if it has none."""
        try:
            size = (await self.driver.stat(layout.blob(digest))).size
        except PathNotFound:
            return None
        return None if not size and not digest.is_of_nothing else size

    async def _content(self, digest: Digest) -> bytes | None:
        try:
            return await self.driver.get(layout.blob(digest), READ_LIMIT)
        except PathNotFound:
            for item in reversed(await self.can.folder(layout.trashed_blob(digest))):
                content = await self.can.content(item, READ_LIMIT)
                if content is not None:
                    return content
        return None


def _collected(found: list[Trashed]) -> list[Trashed]:
    return found if found and found[-1].stamp.cause is Cause.COLLECTED else []
