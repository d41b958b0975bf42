"""Removal of blobs, revisions and links that the collector has condemned.

Nothing here decides what may be removed; see :mod:`twisted_registry.gc.gate` for the protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.concurrency import map_in_batches
from twisted_registry.repository.deletion import prune_empty_repository
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_folders
from twisted_registry.repository.trash import Deleter, TrashReason
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container

    from twisted_registry.repository.trash import IDeleter
    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver


@define(eq=False)
class Sweeper:
    """Removes content from one store.

    All methods raise :class:`~twisted_registry.oci.errors.RegistryError` if the store fails.

    :ivar deleter: removes for good, or into the trash.
    """

    driver: IStorageDriver
    deleter: IDeleter = field()
    _bulk: IBulkLookup = field(init=False)

    @deleter.default
    def _make_deleter(self) -> IDeleter:
        return Deleter(self.driver)

    @_bulk.default
    def _adapt_driver(self) -> IBulkLookup:
        return bulk_lookup(self.driver)

    @translate_storage_errors
    async def remove_blob(
        self, digest: Digest, before: float, still: Callable[[], bool]
    ) -> int | None:
        """Remove the bytes of a blob or manifest.

        :param before: seconds since the epoch; bytes that were stored later stay.
        :param still: called right before the removal, on any thread; False keeps the bytes.
        :returns: the number of bytes removed; None if the blob stays or does not exist.
        """
        try:
            entry = await self.driver.stat(layout.blob_data(digest))
            if entry.modified_s is None or entry.modified_s >= before:
                return None
            removed = await self.deleter.delete_blob(digest, still)
        except PathNotFound:
            return None
        return entry.size if removed else None

    @translate_storage_errors
    async def remove_revision(self, name: str, digest: Digest, before: float) -> bool:
        """Take a manifest out of a repository, unless it was pushed again.

        A revision folder without a link, which a crash left, is removed as well.

        :param before: seconds since the epoch; a revision that was pushed later stays.
        :returns: whether it was removed.
        """
        try:
            try:
                entry = await self.driver.stat(layout.revision_link(name, digest))
            except PathNotFound:
                await self.driver.delete(layout.revision_folder(name, digest))
                return True
            if entry.modified_s is None or entry.modified_s >= before:
                return False
            return await self.deleter.delete_revision(name, digest, TrashReason.COLLECTED)
        except PathNotFound:
            return False

    async def unlink_blobs(self, digests: Collection[Digest]) -> None:
        """Remove the links of all repositories to blobs that no longer exist.

        :raises RegistryError: after all links, if one of them failed.
        """
        failure: RegistryError | None = None
        by_algorithm: dict[str, set[str]] = {}
        for digest in digests:
            by_algorithm.setdefault(digest.algorithm, set()).add(digest.hex)
        async for name in catalog.walk_repositories(self.driver, markers=layout.LAYER_MARKERS):
            for algorithm, hex_digests in by_algorithm.items():
                try:
                    await self._unlink(name, algorithm, hex_digests)
                except RegistryError as error:
                    failure = error
        if failure is not None:
            raise failure

    async def prune_empty_repositories(self) -> int:
        """Remove repositories without content from the catalog, and return how many that were.

        :raises RegistryError: after all repositories, if one of them failed.
        """
        count = 0
        failure: RegistryError | None = None
        async for name in catalog.walk_repositories(self.driver, markers=layout.LEFTOVER_MARKERS):
            try:
                count += await prune_empty_repository(self.driver, name)
            except RegistryError as error:
                failure = error
        if failure is not None:
            raise failure
        return count

    @translate_storage_errors
    async def _unlink(self, name: str, algorithm: str, removed: Container[str]) -> None:
        failure: StorageError | None = None

        async def delete_link(hex_digest: str) -> None:
            nonlocal failure
            digest = Digest(algorithm, hex_digest)
            try:
                await self.deleter.delete_layer(name, digest, TrashReason.COLLECTED)
            except StorageError as error:
                failure = error

        folder = f"{layout.layers_folder(name)}/{algorithm}"
        async for names in iterate_folders(self._bulk, folder):
            await map_in_batches(
                delete_link, [hex_digest for hex_digest in names if hex_digest in removed]
            )
        if failure is not None:
            raise failure
