"""Iteration over a store in batches of bounded size: folders, files, and what they contain."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.oci.manifest import parse_references
from twisted_registry.oci.names import is_upload_id
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import parse_link
from twisted_registry.repository.parsing import MAX_INLINE_BYTES, ManifestWorker
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from twisted_registry.oci.manifest import References
    from twisted_registry.storage.interfaces import Entry, IBulkLookup, IStorageDriver

log = Logger()

#: Entries in one listing.
_PAGE_ENTRIES = 5000
#: Manifests that are read by one call: they may be large.
_MANIFESTS_PER_READ = 64


async def iterate_folders(
    bulk: IBulkLookup, path: str, after: str = "", containing: str = ""
) -> AsyncIterator[Sequence[str]]:
    """Yield the names of the folders in a folder, in pages and in order.

    Folders may be deleted meanwhile.

    :param after: yield only names greater than this.
    :param containing: yield only folders in which this path is a file that is not empty.
    :raises RegistryError: if the store fails. A folder that does not exist is empty.
    """
    while True:
        names = await _list_folders(bulk, path, after, containing)
        if names:
            yield names
        if len(names) < _PAGE_ENTRIES:
            return
        after = names[-1]


async def iterate_digests(bulk: IBulkLookup, path: str) -> AsyncIterator[list[Digest]]:
    """Yield the digests of the folders ``<algorithm>/<hex>`` in a folder, in pages and in order.

    Other folders are skipped.

    :raises RegistryError: if the store fails.
    """
    for algorithm in sorted(ALGORITHMS):
        async for names in iterate_folders(bulk, f"{path}/{algorithm}"):
            digests = []
            for name in names:
                with suppress(DigestInvalid):
                    digests.append(Digest.parse(f"{algorithm}:{name}"))
            yield digests


async def iterate_files(driver: IStorageDriver, path: str) -> AsyncIterator[Sequence[Entry]]:
    """Yield all files below a folder, in pages, in the order of the tree.

    Files may be deleted meanwhile.

    :raises RegistryError: if the store fails. A folder that does not exist is empty.
    """
    after = ""
    while True:
        entries = await _walk(driver, path, after)
        if entries:
            yield entries
        if len(entries) < _PAGE_ENTRIES:
            return
        after = entries[-1].path


async def list_folder(driver: IStorageDriver, folder: str) -> list[Entry]:
    """Return the entries directly in a folder; none if it does not exist.

    :raises StorageError: if it cannot be read.
    """
    found: list[Entry] = []
    while True:
        try:
            page = await driver.list(folder, found[-1].path if found else "", _PAGE_ENTRIES)
        except PathNotFound:
            return found
        found += page
        if len(page) < _PAGE_ENTRIES:
            return found


@translate_storage_errors
async def _list_folders(bulk: IBulkLookup, path: str, after: str, containing: str) -> Sequence[str]:
    try:
        return await bulk.list_folders(path, after, _PAGE_ENTRIES, containing)
    except PathNotFound:
        return ()


@translate_storage_errors
async def _walk(driver: IStorageDriver, path: str, after: str) -> Sequence[Entry]:
    return await driver.walk(path, after, _PAGE_ENTRIES)


@translate_storage_errors
async def store_time(driver: IStorageDriver) -> float:
    """Return the current time of the store, in seconds since the epoch.

    Ages of files are measured by the clock that stamps them, which may be another machine's.

    :raises RegistryError: if the store fails.
    """
    await driver.put(layout.CLOCK, b"", durable=False)
    return (await driver.stat(layout.CLOCK)).modified_s or 0


@frozen
class StoredBlob:
    """The bytes of a blob or manifest in the store.

    :ivar size: in bytes.
    :ivar modified: when they were stored, in seconds since the epoch, or None if the store has no
        times.
    """

    digest: Digest
    size: int
    modified: float | None


class TagUnreadable(Exception):
    """Raised if it is unknown which manifest a tag names; the text has repository and tag."""


@define(eq=False, repr=False)
class Inventory:
    """Iterates over the content of a store.

    Damaged links and manifests count as missing.

    :ivar worker: hashes and parses manifests.
    """

    driver: IStorageDriver
    worker: ManifestWorker = field(factory=ManifestWorker)
    _bulk: IBulkLookup = field(init=False)

    @_bulk.default
    def _adapt_driver(self) -> IBulkLookup:
        return bulk_lookup(self.driver)

    def repositories(self) -> AsyncIterator[str]:
        """Yield the names of all repositories that have manifests, in order."""
        return catalog.walk_repositories(self.driver, markers=layout.MANIFEST_MARKERS)

    async def blobs(self) -> AsyncIterator[Sequence[StoredBlob]]:
        """Yield all blobs and manifests, in batches, in the order of the tree."""
        async for entries in iterate_files(self.driver, layout.BLOBS):
            found = []
            for entry in entries:
                digest = layout.digest_of_blob(entry.path)
                if digest is not None:
                    found.append(StoredBlob(digest, entry.size or 0, entry.modified_s))
            yield found

    @translate_storage_errors
    async def stat_blob(self, digest: Digest) -> StoredBlob | None:
        """Return a blob or manifest, or None if the store has none."""
        try:
            entry = await self.driver.stat(layout.blob_data(digest))
        except PathNotFound:
            return None
        return StoredBlob(digest, entry.size or 0, entry.modified_s)

    def revisions(self, name: str) -> AsyncIterator[Sequence[Digest]]:
        """Yield the manifests of a repository, in batches.

        A manifest counts if it has a folder, also without a link: this errs on the safe side.
        """
        return iterate_digests(self._bulk, layout.revisions_folder(name))

    def layers(self, name: str) -> AsyncIterator[Sequence[Digest]]:
        """Yield the blobs that a repository links, in batches."""
        return iterate_digests(self._bulk, layout.layers_folder(name))

    async def uploads(self, name: str) -> AsyncIterator[tuple[str, int]]:
        """Yield the IDs of the unfinished uploads of a repository, and their bytes so far."""
        async for names in iterate_folders(self._bulk, layout.uploads_folder(name)):
            for upload_id in filter(is_upload_id, names):
                yield upload_id, await self._file_size(layout.upload_data(name, upload_id))

    async def tags(
        self, name: str, *, strict: bool = False
    ) -> AsyncIterator[Sequence[tuple[str, Digest]]]:
        """Yield the tags of a repository and the digests that they name, in batches.

        :param strict: whether a tag must not be left out because its link cannot be read.
        :raises TagUnreadable: if ``strict``, for a link that cannot be read, or that has content
            but no digest. A crash of a registry that does not sync leaves empty links, which are no
            tags.
        """
        async for names in iterate_folders(self._bulk, layout.tags_folder(name)):
            links = await self._read_many(
                [layout.tag_current_link(name, tag) for tag in names], layout.MAX_LINK_BYTES
            )
            found = []
            for tag, content in zip(names, links, strict=True):
                digest = parse_link(content) if isinstance(content, bytes) else None
                if digest is not None:
                    found.append((tag, digest))
                elif strict and not _is_empty(content):
                    log.error(
                        "the link of a tag is damaged or unreadable: {name}:{tag}",
                        name=name,
                        tag=tag,
                    )
                    raise TagUnreadable(f"{name}:{tag}")
            yield found

    async def manifests(
        self, digests: Sequence[Digest]
    ) -> AsyncIterator[tuple[Digest, References | None]]:
        """Yield the references of manifests; None for one that is missing or damaged."""
        for start in range(0, len(digests), _MANIFESTS_PER_READ):
            batch = digests[start : start + _MANIFESTS_PER_READ]
            read = await self._read_many(
                [layout.blob_data(digest) for digest in batch], layout.MAX_MANIFEST_READ_BYTES
            )
            contents = [content if isinstance(content, bytes) else None for content in read]
            size = sum(len(content) for content in contents if content is not None)
            for group in _group(list(zip(batch, contents, strict=True))):
                for pair in await self.worker.run(size, _parse_group, group):
                    yield pair

    @translate_storage_errors
    async def pushed_at(self, name: str, digest: Digest) -> float | None:
        """Return when a manifest was pushed to a repository last, in seconds since the epoch.

        :returns: None if the store has no times; 0 if there is no link: a crash may have left the
            folder alone.
        """
        try:
            entry = await self.driver.stat(layout.revision_link(name, digest))
        except PathNotFound:
            return 0.0
        return entry.modified_s

    @translate_storage_errors
    async def _file_size(self, path: str) -> int:
        """Return the size of a file in bytes; 0 if there is none."""
        try:
            return (await self.driver.stat(path)).size or 0
        except PathNotFound:
            return 0

    @translate_storage_errors
    async def _read_many(
        self, paths: Sequence[str], limit: int
    ) -> Sequence[bytes | StorageError | None]:
        try:
            return await self._bulk.get_many(paths, limit)
        except StorageError:
            # One by one, so that an unreadable file does not hide the others.
            return [await self._read(path, limit) for path in paths]

    async def _read(self, path: str, limit: int) -> bytes | StorageError | None:
        try:
            return await self.driver.get(path, limit)
        except PathNotFound:
            return None
        except StorageError as error:
            return error


def _is_empty(content: bytes | StorageError | None) -> bool:
    """Return whether a link is missing, or empty as after a crash."""
    return content is None or (isinstance(content, bytes) and not content.strip())


def _group(
    manifests: Sequence[tuple[Digest, bytes | None]],
) -> Iterator[list[tuple[Digest, bytes | None]]]:
    """Yield manifests in groups of at most 64 KiB, or of one: pulls wait while one is parsed."""
    group: list[tuple[Digest, bytes | None]] = []
    size = 0
    for digest, content in manifests:
        size += len(content or b"")
        if group and size > MAX_INLINE_BYTES:
            yield group
            group, size = [], len(content or b"")
        group.append((digest, content))
    if group:
        yield group


def _parse_group(
    group: Sequence[tuple[Digest, bytes | None]],
) -> list[tuple[Digest, References | None]]:
    """Parse the references of manifests; None for one that is missing or damaged."""
    return [
        (
            digest,
            parse_references(content) if content is not None and digest.matches(content) else None,
        )
        for digest, content in group
    ]
