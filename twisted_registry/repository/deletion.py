"""Deletion of a repository, and removal of empty repositories from the catalog.

:class:`RepositoryDeletion` is safe beside clients that push. It deletes tags first, then manifests,
then links to blobs, and then looks whether anything is there again. A push whose manifest has its
link by then is seen, and is deleted too, as if the deletion had come after it. A push that writes
the link later looks for the blobs that it needs afterwards, finds none, and is refused. So no tag
of an incomplete image remains that was answered with success, on any number of machines. What a
crash or a disconnect leaves is deleted by the next attempt.

A repository is listed because of its folders. When its manifests, tags and blobs are gone, some may
remain: the marker for CNCF Distribution 2.8.3, links of referrers, empty folders.
:func:`prune_empty_repository` removes them. Uploads are not content: they stay, and a repository
that has nothing else is not listed. It is safe beside pushes by the order of steps: a manifest PUT
writes its link and then looks for the marker; the pruning removes the marker and then looks for
links. So one of the two sees the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import is_tag, is_upload_id
from twisted_registry.repository import layout
from twisted_registry.repository.catalog import mark_repository, prune_folders
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import Inventory, iterate_files, iterate_folders
from twisted_registry.repository.trash import TrashReason
from twisted_registry.storage.fallbacks import bulk_lookup, folders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.repository.context import StoreContext
    from twisted_registry.repository.interfaces import EventPublisher
    from twisted_registry.repository.tags import Tags
    from twisted_registry.repository.uploads import Uploads
    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

#: Rounds of deletion, because clients may push meanwhile.
_MAX_ROUNDS = 10


@frozen
class DeletedCounts:
    """The number of deleted items.

    :ivar blobs: links to blobs; a collector removes the bytes.
    """

    tags: int = 0
    manifests: int = 0
    blobs: int = 0


@define(eq=False, repr=False)
class RepositoryDeletion:
    """The deletion of one repository.

    :ivar tags: the tags of the repository.
    :ivar uploads: the uploads of the repository.
    :ivar progress: called with :attr:`deleted`, several times.
    :ivar deleted: the number of items deleted so far.
    """

    store: StoreContext
    name: str
    publish_event: EventPublisher
    tags: Tags
    uploads: Uploads
    progress: Callable[[DeletedCounts], object]
    deleted: DeletedCounts = field(init=False, factory=DeletedCounts)

    async def delete_repository(self) -> DeletedCounts:
        """Delete everything.

        :raises RegistryError: DENIED if a tag is immutable, UNAVAILABLE if clients keep pushing.
        """
        await self.tags.check_may_delete_all()
        for _ in range(_MAX_ROUNDS):
            await self._delete_content()
            if await prune_empty_repository(self.store.driver, self.name):
                return self.deleted
        raise RegistryError(
            ErrorCode.UNAVAILABLE,
            message="clients keep pushing to this repository; try again",
            headers=(("Retry-After", "10"),),
        )

    async def _delete_content(self) -> None:
        inventory = Inventory(self.store.driver)
        async for count in self.tags.delete_all():
            self._report(tags=count)
        async for digests in inventory.revisions(self.name):
            self._report(manifests=await self._delete_revisions(digests))
        async for digests in inventory.layers(self.name):
            await self._delete_layers(digests)
            self._report(blobs=len(digests))
        async for names in iterate_folders(self.store.bulk, layout.uploads_folder(self.name)):
            for upload_id in filter(is_upload_id, names):
                await self.uploads.resume(upload_id, 0).discard()
        for folder in layout.manifests_folder(self.name), layout.layers_folder(self.name):
            await self._delete_stray_files(folder)

    def _report(self, tags: int = 0, manifests: int = 0, blobs: int = 0) -> None:
        """Count what was deleted."""
        old = self.deleted
        self.deleted = DeletedCounts(old.tags + tags, old.manifests + manifests, old.blobs + blobs)
        self.progress(self.deleted)

    @translate_storage_errors
    async def _delete_revisions(self, digests: Sequence[Digest]) -> int:
        async def delete(digest: Digest) -> bool:
            deleted = await self.store.deleter.delete_revision(
                self.name, digest, TrashReason.DELETED
            )
            if deleted:
                self.publish_event("delete", "manifest", digest)
            return deleted

        return sum(await map_concurrently(delete, digests))

    @translate_storage_errors
    async def _delete_layers(self, digests: Sequence[Digest]) -> None:
        async def delete(digest: Digest) -> None:
            await self.store.deleter.delete_layer(self.name, digest, TrashReason.DELETED)
            self.publish_event("delete", "blob", digest)

        await map_concurrently(delete, digests)

    @translate_storage_errors
    async def _delete_stray_files(self, folder: str) -> None:
        """Delete files that are not content, such as those of crashes or of other programs."""
        async for entries in iterate_files(self.store.driver, folder):
            stray = [entry.path for entry in entries if not self._is_content(entry.path)]
            if stray:
                await self.store.bulk.delete_many(stray)

    def _is_content(self, path: str) -> bool:
        """Return whether a file belongs to content that a push has stored."""
        parts = path.removeprefix(f"{layout.repository_folder(self.name)}/").split("/")
        if parts[0] == "_layers":
            return len(parts) == 4 and parts[3] == "link" and _is_digest(*parts[1:3])
        if parts[1] == "tags":
            return len(parts) > 3 and is_tag(parts[2])
        return len(parts) == 5 and parts[1] == "revisions" and _is_digest(*parts[2:4])


@translate_storage_errors
async def prune_empty_repository(driver: IStorageDriver, name: str) -> bool:
    """Remove a repository from the catalog if it has no content; return whether it was removed.

    An unknown file counts as content.

    :raises RegistryError: if the store fails.
    """
    marker = layout.layers_marker(name)
    bulk, pruner = bulk_lookup(driver), folders(driver)
    if await _has_files(driver, layout.layers_folder(name), except_path=marker):
        return False
    if await _has_files(driver, layout.manifests_folder(name)):
        return False
    async for entries in iterate_files(driver, layout.referrers_folder(name)):
        await bulk.delete_many([entry.path for entry in entries])
    await bulk.delete_many([marker])
    for folder in (
        layout.layers_folder(name),
        layout.manifests_folder(name),
        layout.referrers_folder(name),
    ):
        await pruner.prune(await _list_tree(bulk, folder))
    await prune_folders(driver, name)
    if not await _has_files(driver, layout.manifests_folder(name)):
        return True
    await mark_repository(driver, name)
    return False


async def _list_tree(bulk: IBulkLookup, path: str) -> list[str]:
    """Return a nearly empty folder and all folders below it, the deepest first."""
    found = []
    async for names in iterate_folders(bulk, path):
        for name in names:
            found += await _list_tree(bulk, f"{path}/{name}")
    return [*found, path]


async def _has_files(driver: IStorageDriver, folder: str, except_path: str = "") -> bool:
    """Return whether a folder contains any file but one."""
    return any(entry.path != except_path for entry in await driver.walk(folder, "", 2))


def _is_digest(algorithm: str, hex_digest: str) -> bool:
    try:
        Digest.parse(f"{algorithm}:{hex_digest}")
    except DigestInvalid:
        return False
    return True
