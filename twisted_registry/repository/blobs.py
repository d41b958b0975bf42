"""The blobs that a repository holds (distribution specification, "Pulling blobs", "Mounting")."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import write_link
from twisted_registry.repository.trash import TrashReason
from twisted_registry.storage.interfaces import MethodUnsupported, PathNotFound

if TYPE_CHECKING:
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.interfaces import EventPublisher
    from twisted_registry.repository.presence import Presence
    from twisted_registry.repository.trash import Deleter
    from twisted_registry.storage.interfaces import IPresigner, IReader, IStorageDriver


class Blobs:
    """The blobs of one repository.

    :ivar url_lifetime: seconds for which a redirect to the store is good.
    :ivar has_urls: whether :meth:`url` may find one.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        presigner: IPresigner | None,
        presence: Presence,
        deleter: Deleter,
        name: str,
        publish_event: EventPublisher,
        url_lifetime_s: int,
    ) -> None:
        self.driver = driver
        self.presigner = presigner
        self.presence = presence
        self.deleter = deleter
        self.name = name
        self.publish_event = publish_event
        self.url_lifetime_s = url_lifetime_s
        self.has_urls = presigner is not None

    @translate_storage_errors
    async def size(self, digest: Digest) -> int:
        """The size of a blob in bytes.

        :raises RegistryError: BLOB_UNKNOWN if the repository does not hold it.
        """
        size = await self.presence.blob_size(self.name, digest)
        if size is None:
            raise RegistryError(ErrorCode.BLOB_UNKNOWN, detail={"digest": str(digest)})
        return size

    @translate_storage_errors
    async def size_for_pull(self, digest: Digest) -> int:
        """What :meth:`size` tells, to send the blob or a URL of it: it may have been remembered.

        :raises RegistryError: BLOB_UNKNOWN if the repository does not hold it.
        """
        size = await self.presence.size_for_pull(self.name, digest)
        if size is None:
            raise RegistryError(ErrorCode.BLOB_UNKNOWN, detail={"digest": str(digest)})
        return size

    @translate_storage_errors
    async def open_whole(self, digest: Digest) -> IReader:
        """Open a blob to send it to a client as a whole.

        :raises RegistryError: BLOB_UNKNOWN if the repository does not hold it.
        """
        reader = await self.presence.open_blob(self.name, digest)
        if reader is None:
            raise RegistryError(ErrorCode.BLOB_UNKNOWN, detail={"digest": str(digest)})
        self.publish_event("pull", "blob", digest, size=reader.size)
        return reader

    @translate_storage_errors
    async def open(self, digest: Digest, offset: int = 0, length: int | None = None) -> IReader:
        """Open a stretch of a blob whose :meth:`size` was asked for."""
        try:
            reader = await self.driver.open(layout.blob(digest), offset, length)
        except PathNotFound as error:
            raise RegistryError(ErrorCode.BLOB_UNKNOWN, detail={"digest": str(digest)}) from error
        self.publish_event("pull", "blob", digest, size=reader.size)
        return reader

    @translate_storage_errors
    async def url(self, digest: Digest, method: str, client: str = "") -> str | None:
        """Where a client can do ``method`` on the blob without us, or None.

        :param client: its address, on which it may depend; empty if it is not known.
        """
        if self.presigner is None:
            return None
        try:
            url = await self.presigner.presign(
                layout.blob(digest), method, self.url_lifetime_s, client
            )
        except MethodUnsupported:
            return None
        self.publish_event("pull", "blob", digest)
        return url

    @translate_storage_errors
    async def mount(self, digest: Digest, source: str | None) -> int | None:
        """Let the repository hold a blob that another one holds.

        :param source: the other repository; None for any.
        :returns: the blob's size, or None if it is not there to be mounted.
        """
        if source is None:
            size = await self.presence.size_in_any_repository(digest)
        else:
            size = await self.presence.blob_size(source, digest)
        if size is None:
            size = await self._restore_from_trash(digest, source)
        if size is not None:
            await write_link(self.driver, layout.layer_link(self.name, digest), digest)
            self.publish_event("mount", "blob", digest, size=size, source=source)
        return size

    @translate_storage_errors
    async def delete(self, digest: Digest) -> None:
        """Let the repository no longer hold a blob; its bytes are the collector's business.

        :raises RegistryError: BLOB_UNKNOWN if it did not hold it.
        """
        await self.size(digest)
        await self.deleter.delete_layer(self.name, digest, TrashReason.DELETED)
        self.publish_event("delete", "blob", digest)

    async def _restore_from_trash(self, digest: Digest, source: str | None) -> int | None:
        """The size of a blob that a collector took and that came back to be mounted."""
        recall = self.presence.recall
        if recall is None or not await recall.has_blob(digest):
            return None
        if source is not None and not await recall.collected_layer_entries(source, digest):
            return None
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.presence.gate.protect_push(self.name, digest))
            except RegistryError:
                # A sweep did not pass in time. Who mounts can be told to send the bytes instead.
                return None
            return await recall.restore_blob(digest)

    def publish_push(self, digest: Digest, size: int) -> None:
        """Say that a blob was pushed: it is stored, and linked to the repository."""
        self.publish_event("push", "blob", digest, size=size)
