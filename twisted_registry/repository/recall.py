"""How things come back from the trash.

Bytes are copied, not moved: so they count as young, and a collector that found them old before
leaves them alone; and there is no moment at which they are in neither place. Who brings something
back because a push needs it does so as if it had been pushed, inside ``storing`` of the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.oci.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import write_link
from twisted_registry.repository.trash import TrashContents, TrashReason
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.trash import TrashedItem
    from twisted_registry.storage.interfaces import IStorageDriver


@frozen
class RecoverableManifest:
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
    def contents(self) -> TrashContents:
        """The trash."""
        return TrashContents(self.driver)

    @translate_storage_errors
    async def restore_blob(self, digest: Digest) -> int | None:
        """Give a blob or manifest its bytes again, if it has none.

        :returns: its size; None if there are no bytes in the trash either.
        """
        size = await self.blob_size(digest)
        if size is not None:
            return size
        found = await self.contents.folder(layout.trashed_blob(digest))
        for item in reversed(found):
            try:
                await self.driver.copy(item.path, layout.blob(digest))
            except PathNotFound:
                # Somebody has emptied it, or was faster.
                continue
            await self.contents.remove(found)
            return item.size
        return await self.blob_size(digest)

    @translate_storage_errors
    async def restore_layer(self, name: str, digest: Digest) -> bool:
        """Let a repository hold a blob again that a collector took, if its bytes can be had.

        :returns: whether it is so. What somebody deleted does not come back like this.
        """
        found = await self.collected_layer_entries(name, digest)
        if not found or await self.restore_blob(digest) is None:
            return False
        await write_link(self.driver, layout.layer_link(name, digest), digest)
        await self.contents.remove(found)
        return True

    async def collected_layer_entries(self, name: str, digest: Digest) -> list[TrashedItem]:
        """What was kept of a repository's link to a blob that a collector took.

        Nothing, if somebody has deleted it since.
        """
        return _if_collected(await self.contents.folder(layout.trashed_layer(name, digest)))

    async def find_collected_manifest(
        self, name: str, digest: Digest
    ) -> RecoverableManifest | None:
        """A manifest that a collector took out of a repository, if its bytes can be had."""
        found = _if_collected(await self.contents.folder(layout.trashed_revision(name, digest)))
        return await self.find_manifest(digest, found[-1]) if found else None

    @translate_storage_errors
    async def find_manifest(
        self, digest: Digest, record: TrashedItem | None
    ) -> RecoverableManifest | None:
        """A manifest, from where its bytes are, or None if they are gone for good or damaged.

        :param record: what was kept of it when it was taken out of its repository.
        """
        content = await self._content(digest)
        if content is None or not digest.matches(content):
            return None
        kept = (
            None
            if record is None
            else await self.contents.content(record, layout.MAX_MEDIA_TYPE_BYTES)
        )
        media_type = (kept or b"").decode("ascii", "replace")
        return RecoverableManifest(content, media_type if is_media_type(media_type) else None)

    async def discard_restored(self, name: str, digest: Digest) -> None:
        """Remove what was kept of a manifest that is in its repository again."""
        for folder in layout.trashed_revision(name, digest), layout.trashed_blob(digest):
            found = await self.contents.folder(folder)
            if found:
                await self.contents.remove(found)

    async def has_blob(self, digest: Digest) -> bool:
        """Whether the trash has bytes of a digest."""
        return bool(await self.contents.folder(layout.trashed_blob(digest)))

    async def blob_size(self, digest: Digest) -> int | None:
        """How many bytes the store has of a digest, or None if it has none."""
        try:
            size = (await self.driver.stat(layout.blob(digest))).size
        except PathNotFound:
            return None
        return None if not size and not digest.is_of_empty_content else size

    async def _content(self, digest: Digest) -> bytes | None:
        try:
            return await self.driver.get(layout.blob(digest), layout.MAX_MANIFEST_READ_BYTES)
        except PathNotFound:
            for item in reversed(await self.contents.folder(layout.trashed_blob(digest))):
                content = await self.contents.content(item, layout.MAX_MANIFEST_READ_BYTES)
                if content is not None:
                    return content
        return None


def _if_collected(found: list[TrashedItem]) -> list[TrashedItem]:
    return found if found and found[-1].entry_name.reason is TrashReason.COLLECTED else []
