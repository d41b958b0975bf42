"""Deleting a whole repository, while clients push to it.

Tags go first, then manifests, then the links to blobs; then it is looked whether anything is there
again. A push that has its manifest's link by then is seen, and goes as well, as if the delete had
come after it. One that writes the link later looks afterwards for the blobs that it needs, finds
none, and is refused. So no tag is left that was answered for and is not whole, on any number of
machines.

What a crash, or a client that leaves, cuts short goes with the next attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import is_tag, is_upload_id
from twisted_registry.repository import layout
from twisted_registry.repository.catalog import prune_empty_repository
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.trash import TrashReason
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.repository.tags import Tags
    from twisted_registry.repository.uploads import Uploads
    from twisted_registry.storage.interfaces import IStorageDriver

#: How often it is begun anew because of clients that push meanwhile.
_MAX_ROUNDS = 10
_PAGE_ENTRIES = 1000


@frozen
class DeletedCounts:
    """How many things are gone.

    :ivar blobs: links to blobs; their bytes go when they are collected.
    """

    tags: int = 0
    manifests: int = 0
    blobs: int = 0


class RepositoryDeletion:
    """Deletes one repository.

    :ivar tags: of the repository, which say how things are removed and who hears of it.
    :ivar progress: told what is gone so far.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        name: str,
        tags: Tags,
        uploads: Uploads,
        progress: Callable[[DeletedCounts], object],
    ) -> None:
        self.driver = driver
        self.bulk = bulk_lookup(driver)
        self.name = name
        self.tags = tags
        self.uploads = uploads
        self.progress = progress
        self._tags = 0
        self._manifests = 0
        self._blobs = 0

    async def delete_repository(self) -> DeletedCounts:
        """Remove all that there is.

        :raises RegistryError: DENIED if a tag is immutable, UNAVAILABLE if clients push all the
            time.
        """
        await self.tags.check_may_delete_all()
        for _ in range(_MAX_ROUNDS):
            await self._remove_all()
            if await prune_empty_repository(self.driver, self.name):
                return self._counts()
        raise RegistryError(
            ErrorCode.UNAVAILABLE,
            message="clients push to this repository all the time; try again",
            headers=(("Retry-After", "10"),),
        )

    async def _remove_all(self) -> None:
        inventory = Inventory(self.driver)
        async for count in self.tags.delete_all():
            self._tags += count
            self.progress(self._counts())
        async for digests in inventory.revisions(self.name):
            self._manifests += await self._remove_revisions(digests)
            self.progress(self._counts())
        async for digests in inventory.layers(self.name):
            await self._remove_layers(digests)
            self._blobs += len(digests)
            self.progress(self._counts())
        await self._discard_uploads()
        for folder in layout.manifests(self.name), layout.layers(self.name):
            await self._remove_stray_files(folder)

    @translate_storage_errors
    async def _remove_revisions(self, digests: Sequence[Digest]) -> int:
        async def remove(digest: Digest) -> bool:
            try:
                await self.tags.deleter.delete_revision(self.name, digest, TrashReason.DELETED)
            except PathNotFound:
                return False
            self.tags.publish_event("delete", "manifest", digest)
            return True

        return sum(await map_concurrently(remove, digests))

    @translate_storage_errors
    async def _remove_layers(self, digests: Sequence[Digest]) -> None:
        async def remove(digest: Digest) -> None:
            await self.tags.deleter.delete_layer(self.name, digest, TrashReason.DELETED)
            self.tags.publish_event("delete", "blob", digest)

        await map_concurrently(remove, digests)

    @translate_storage_errors
    async def _discard_uploads(self) -> None:
        last = ""
        while True:
            try:
                found = await self.bulk.list_folders(layout.uploads(self.name), last, _PAGE_ENTRIES)
            except PathNotFound:
                return
            for upload in filter(is_upload_id, found):
                await self.uploads.resume(upload, 0).discard()
            if len(found) < _PAGE_ENTRIES:
                return
            last = found[-1]

    @translate_storage_errors
    async def _remove_stray_files(self, folder: str) -> None:
        """Remove what is no content: whatever a crash, a hand or another program has left."""
        last = ""
        while True:
            entries = await self.driver.walk(folder, last, _PAGE_ENTRIES)
            stray = [entry.path for entry in entries if not self._is_content(entry.path)]
            if stray:
                await self.bulk.delete_many(stray)
            if len(entries) < _PAGE_ENTRIES:
                return
            last = entries[-1].path

    def _is_content(self, path: str) -> bool:
        """Whether a file belongs to something that a push has made."""
        parts = path.removeprefix(f"{layout.repository(self.name)}/").split("/")
        if parts[0] == "_layers":
            return len(parts) == 4 and parts[3] == "link" and _is_digest(*parts[1:3])
        if parts[1] == "tags":
            return len(parts) > 3 and is_tag(parts[2])
        return len(parts) == 5 and parts[1] == "revisions" and _is_digest(*parts[2:4])

    def _counts(self) -> DeletedCounts:
        return DeletedCounts(self._tags, self._manifests, self._blobs)


def _is_digest(algorithm: str, hexadecimal: str) -> bool:
    try:
        Digest.parse(f"{algorithm}:{hexadecimal}")
    except DigestInvalid:
        return False
    return True
