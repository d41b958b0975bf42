"""The blobs of a repository (distribution specification, "Pulling blobs", "Mounting")."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import write_link
from twisted_registry.repository.trash import TrashReason
from twisted_registry.storage.interfaces import MethodUnsupported, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.context import StoreContext
    from twisted_registry.repository.interfaces import EventPublisher
    from twisted_registry.storage.interfaces import IReader


@define(eq=False, repr=False)
class Blobs:
    """The blobs of one repository."""

    store: StoreContext
    name: str
    publish_event: EventPublisher

    @property
    def has_urls(self) -> bool:
        """Whether :meth:`url` may return a URL."""
        return self.store.presigner is not None

    @translate_storage_errors
    async def size(self, digest: Digest, *, for_pull: bool = False) -> int:
        """Return the size of a blob in bytes.

        :param for_pull: whether the client will be sent the blob or a URL of it: then the size may
            be cached.
        :raises RegistryError: BLOB_UNKNOWN if the repository does not have it.
        """
        presence = self.store.presence
        find_size = presence.size_for_pull if for_pull else presence.blob_size
        size = await find_size(self.name, digest)
        if size is None:
            raise _blob_unknown(digest)
        return size

    @translate_storage_errors
    async def open_whole(self, digest: Digest) -> IReader:
        """Open a blob to send all of it to a client.

        :raises RegistryError: BLOB_UNKNOWN if the repository does not have it.
        """
        reader = await self.store.presence.open_blob(self.name, digest)
        if reader is None:
            raise _blob_unknown(digest)
        self.publish_event("pull", "blob", digest, size=reader.size)
        return reader

    @translate_storage_errors
    async def open(self, digest: Digest, offset: int = 0, length: int | None = None) -> IReader:
        """Open a part of a blob whose :meth:`size` was checked.

        :param offset: of the first byte.
        :param length: in bytes; None reads to the end.
        :raises RegistryError: BLOB_UNKNOWN if it no longer exists.
        """
        try:
            reader = await self.store.driver.open(layout.blob_data(digest), offset, length)
        except PathNotFound as error:
            raise _blob_unknown(digest) from error
        self.publish_event("pull", "blob", digest, size=reader.size)
        return reader

    @translate_storage_errors
    async def url(
        self, digest: Digest, method: str, client: str = "", *, size: int | None = None
    ) -> str | None:
        """Return a URL of the store with which a client can read the blob, or None.

        :param method: the HTTP method that the client will use.
        :param client: the address of the client, which may change the URL; empty if unknown.
        :param size: the size of the blob, for the event; None if unknown.
        """
        presigner = self.store.presigner
        if presigner is None:
            return None
        try:
            url = await presigner.presign(
                layout.blob_data(digest), method, self.store.url_lifetime_s, client
            )
        except MethodUnsupported:
            return None
        self.publish_event("pull", "blob", digest, size=size)
        return url

    @translate_storage_errors
    async def is_linked(self, digest: Digest) -> bool:
        """Return whether the repository links a blob, which the store need not have."""
        link = layout.layer_link(self.name, digest)
        return await self.store.cache.read_link(link) == digest

    @translate_storage_errors
    async def mount(
        self,
        digest: Digest,
        source: str | None,
        admit: Callable[[int], object] = lambda _: None,
    ) -> int | None:
        """Link a blob of another repository.

        :param source: the other repository; None for any.
        :param admit: called with the size of the blob before it is linked; may raise.
        :returns: the size of the blob in bytes, or None if it cannot be mounted.
        """
        if source is None:
            size = await self.store.presence.size_in_any_repository(digest)
        else:
            size = await self.store.presence.blob_size(source, digest)
        if size is None:
            size = await self._restore_collected(digest, source)
        if size is not None:
            admit(size)
            link = layout.layer_link(self.name, digest)
            await write_link(self.store.driver, link, digest)
            self.publish_event("mount", "blob", digest, size=size, source=source)
        return size

    @translate_storage_errors
    async def delete(self, digest: Digest) -> None:
        """Delete the link to a blob; a collector removes the bytes.

        :raises RegistryError: BLOB_UNKNOWN if the repository does not have it.
        """
        if not await self.store.presence.has_blob(self.name, digest):
            raise _blob_unknown(digest)
        await self.store.deleter.delete_layer(self.name, digest, TrashReason.DELETED)
        self.publish_event("delete", "blob", digest)

    async def _restore_collected(self, digest: Digest, source: str | None) -> int | None:
        """Restore the bytes of a blob that a collector removed; return their size, or None."""
        trash = self.store.presence.trash
        if trash is None or not await trash.has_blob(digest):
            return None
        if source is not None and not await trash.collected_layer_entries(source, digest):
            return None
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(
                    self.store.presence.gate.protect_push(self.name, digest)
                )
            except RegistryError:
                # A sweep did not end in time. The client can send the bytes instead.
                return None
            return await trash.restore_blob(digest)


def _blob_unknown(digest: Digest) -> RegistryError:
    return RegistryError(ErrorCode.BLOB_UNKNOWN, detail={"digest": str(digest)})
