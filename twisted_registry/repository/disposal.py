"""How things are taken out of a store: for good, or into the trash.

Whoever removes a blob, a link or a tag does it through one of these. Neither decides what may go.

Nothing is ever gone from its place before it is in the trash, power cuts included: a blob and the
link to one are moved there; of a manifest and of a tag, which are links as well, a record is
written there first, and lasts, before they are removed. So a crash leaves at worst something that
is in both places.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from twisted_registry.repository import layout
from twisted_registry.repository.links import read_link
from twisted_registry.repository.stamps import TrashReason, TrashEntry
from twisted_registry.repository.tagrecord import TagChangeRecord
from twisted_registry.storage.interfaces import MoveRefused, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a media type.
_MAX_MEDIA_TYPE_BYTES = 1024


class Deleter:
    """Removes for good. All methods raise the storage's errors."""

    #: whether :meth:`record_tag_change` wants to hear of tags
    keeps_deleted: ClassVar[bool] = False

    def __init__(self, driver: IStorageDriver) -> None:
        self.driver = driver

    async def delete_blob(self, digest: Digest, still: Callable[[], bool]) -> bool:
        """Remove the bytes of a blob or manifest, and return whether they are gone.

        :param still: whether they may go, asked at the last moment, on whatever thread.
        :raises PathNotFound: if there are none.
        """
        if not still():
            return False
        # What a power cut brings back is garbage, and goes with the next collection.
        await self.driver.delete(layout.blob_folder(digest), durable=False)
        return True

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> None:
        """Remove the link of a repository to a blob; one that is not there is passed over."""
        with suppress(PathNotFound):
            await self.driver.delete(
                layout.layer(name, digest), durable=reason is not TrashReason.COLLECTED
            )

    async def delete_revision(self, name: str, digest: Digest, reason: TrashReason) -> None:  # noqa: ARG002
        """Take a manifest out of a repository.

        :raises PathNotFound: if it does not hold it.
        """
        await self.driver.delete(layout.revision(name, digest))

    async def delete_tag(self, name: str, tag: str) -> None:
        """Remove a tag.

        :raises PathNotFound: if there is no such tag.
        """
        await self.driver.delete(layout.tag(name, tag))

    async def record_tag_change(self, name: str, tag: str, before: Digest | None, now: Digest) -> None:
        """Hear that a tag names a manifest now.

        :param before: what it named before; None if it was not there.
        """


class Trash(Deleter):
    """Keeps what is removed, below ``twisted-registry/trash`` in the store.

    :ivar clock: tells when something was put there.
    """

    keeps_deleted: ClassVar[bool] = True

    def __init__(self, driver: IStorageDriver, clock: IReactorTime) -> None:
        super().__init__(driver)
        self.clock = clock

    async def delete_blob(self, digest: Digest, still: Callable[[], bool]) -> bool:
        """Move the bytes; where that takes time, ``still`` is asked when they are there."""
        path = f"{layout.trashed_blob(digest)}/{self._new_entry(TrashReason.COLLECTED)}"
        try:
            await self.driver.move(layout.blob(digest), path, still=still)
        except MoveRefused:
            return False
        await self.driver.prune([layout.blob_folder(digest)])
        return True

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> None:
        """Move the link."""
        path = f"{layout.trashed_layer(name, digest)}/{self._new_entry(reason)}"
        with suppress(PathNotFound):
            await self.driver.move(layout.layer_link(name, digest), path)
        await self.driver.prune([layout.layer(name, digest)])

    async def delete_revision(self, name: str, digest: Digest, reason: TrashReason) -> None:
        """Keep the media type, if the manifest does not tell its own, and that it was there."""
        media_type = b""
        with suppress(PathNotFound):
            media_type = await self.driver.get(layout.revision_media_type(name, digest), _MAX_MEDIA_TYPE_BYTES)
        path = f"{layout.trashed_revision(name, digest)}/{self._new_entry(reason)}"
        await self.driver.put(path, media_type)
        await super().delete_revision(name, digest, reason)

    async def delete_tag(self, name: str, tag: str) -> None:
        """Keep what it named."""
        before = await read_link(self.driver, layout.tag_current(name, tag))
        if before is not None:
            record = TagChangeRecord(None, before)
            await self.driver.put(self._tag_entry_path(name, tag, TrashReason.DELETED), record.to_bytes())
        await super().delete_tag(name, tag)

    async def record_tag_change(self, name: str, tag: str, before: Digest | None, now: Digest) -> None:
        """Keep what it named and names. It is not synced: a power cut may cost the record."""
        record = TagChangeRecord(now, before)
        path = self._tag_entry_path(name, tag, TrashReason.MOVED)
        await self.driver.put(path, record.to_bytes(), durable=False)

    def _tag_entry_path(self, name: str, tag: str, reason: TrashReason) -> str:
        return f"{layout.trashed_tag(name, tag)}/{self._new_entry(reason)}"

    def _new_entry(self, reason: TrashReason) -> TrashEntry:
        return TrashEntry.make(self.clock.seconds(), reason)
