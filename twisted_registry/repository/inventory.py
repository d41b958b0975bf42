"""What a store holds, for those who go through all of it: in batches, never as a whole."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.oci.manifest import parse_references
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.oci.manifest import References
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Names that are asked of the store at once.
_PAGE_ENTRIES = 5000
#: Manifests that are read at once: they may be large.
_MANIFESTS_AT_ONCE = 64


@frozen
class StoredBlob:
    """Bytes in the store.

    :ivar modified: when they were stored, in seconds since the epoch, or None if the store does
        not tell.
    """

    digest: Digest
    size: int
    modified: float | None


@translate_storage_errors
async def store_time(driver: IStorageDriver) -> float:
    """Return the current time of the store, in seconds since the epoch.

    Ages of files are measured by the clock that stamps them, which may be another machine's.

    :raises RegistryError: if the store fails.
    """
    await driver.put(layout.CLOCK, b"", durable=False)
    entry = await driver.stat(layout.CLOCK)
    return (entry.modified or 0) / 1e9


class Inventory:
    """Goes through a store. What is damaged counts as not there, and is said to be so."""

    def __init__(self, driver: IStorageDriver) -> None:
        self.driver = driver
        self.bulk = bulk_lookup(driver)

    def repositories(self) -> AsyncIterator[str]:
        """Yield the names of all repositories that have manifests, in order."""
        return catalog.walk_repositories(self.driver, markers=layout.MANIFEST_MARKERS)

    async def blobs(self) -> AsyncIterator[Sequence[StoredBlob]]:
        """Yield all blobs and manifests, in batches, in the order of the tree."""
        last = ""
        while True:
            entries = await self._walk(last)
            found = []
            for entry in entries:
                digest = layout.digest_of_blob(entry.path)
                if digest is not None:
                    modified = None if entry.modified is None else entry.modified / 1e9
                    found.append(StoredBlob(digest, entry.size or 0, modified))
            yield found
            if len(entries) < _PAGE_ENTRIES:
                return
            last = entries[-1].path

    @translate_storage_errors
    async def stat_blob(self, digest: Digest) -> StoredBlob | None:
        """A blob or manifest, or None if there is none."""
        try:
            entry = await self.driver.stat(layout.blob(digest))
        except PathNotFound:
            return None
        modified = None if entry.modified is None else entry.modified / 1e9
        return StoredBlob(digest, entry.size or 0, modified)

    async def revisions(self, name: str) -> AsyncIterator[Sequence[Digest]]:
        """Yield the manifests of a repository, in batches: whatever has a folder, to be safe."""
        for algorithm in ALGORITHMS:
            async for digests in self._digests(layout.revisions(name, algorithm), algorithm):
                yield digests

    async def layers(self, name: str) -> AsyncIterator[Sequence[Digest]]:
        """Yield the blobs that a repository links, in batches."""
        for algorithm in ALGORITHMS:
            async for digests in self._digests(f"{layout.layers(name)}/{algorithm}", algorithm):
                yield digests

    async def tags(self, name: str) -> AsyncIterator[Sequence[tuple[str, Digest]]]:
        """Yield the tags of a repository and what they name, in batches."""
        last = ""
        while True:
            names = await self._folders(layout.tags(name), last)
            links = await self._contents(
                [layout.tag_current(name, tag) for tag in names], layout.MAX_LINK_BYTES
            )
            found = []
            for tag, content in zip(names, links, strict=True):
                with suppress(DigestInvalid, UnicodeDecodeError):
                    if content is not None:
                        found.append((tag, Digest.parse(content.decode("ascii").strip())))
            yield found
            if len(names) < _PAGE_ENTRIES:
                return
            last = names[-1]

    async def manifests(
        self, digests: Sequence[Digest]
    ) -> AsyncIterator[tuple[Digest, References | None]]:
        """Read what manifests refer to; None stands for one that is missing or damaged."""
        for start in range(0, len(digests), _MANIFESTS_AT_ONCE):
            batch = digests[start : start + _MANIFESTS_AT_ONCE]
            contents = await self._contents(
                [layout.blob(digest) for digest in batch], layout.MAX_MANIFEST_READ_BYTES
            )
            for digest, content in zip(batch, contents, strict=True):
                if content is None or not digest.matches(content):
                    yield digest, None
                else:
                    yield digest, parse_references(content)

    @translate_storage_errors
    async def pushed_at(self, name: str, digest: Digest) -> float | None:
        """When a manifest was pushed to a repository last, in seconds since the epoch.

        None if the store does not tell; 0 if it is not there: a crash may have left its folder.
        """
        try:
            entry = await self.driver.stat(layout.revision_link(name, digest))
        except PathNotFound:
            return 0.0
        return None if entry.modified is None else entry.modified / 1e9

    async def _digests(self, folder: str, algorithm: str) -> AsyncIterator[Sequence[Digest]]:
        last = ""
        while True:
            names = await self._folders(folder, last)
            found = []
            for name in names:
                with suppress(DigestInvalid):
                    found.append(Digest.parse(f"{algorithm}:{name}"))
            yield found
            if len(names) < _PAGE_ENTRIES:
                return
            last = names[-1]

    @translate_storage_errors
    async def _folders(self, path: str, after: str) -> Sequence[str]:
        try:
            return await self.bulk.list_folders(path, after, _PAGE_ENTRIES)
        except PathNotFound:
            return ()

    @translate_storage_errors
    async def _contents(self, paths: Sequence[str], limit: int) -> Sequence[bytes | None]:
        try:
            return await self.bulk.get_many(paths, limit)
        except StorageError:
            # One by one, so that a bad one does not hide the others.
            return [await self._content(path, limit) for path in paths]

    async def _content(self, path: str, limit: int) -> bytes | None:
        try:
            return await self.driver.get(path, limit)
        except StorageError:
            return None

    @translate_storage_errors
    async def _walk(self, after: str) -> Sequence[Entry]:
        return await self.driver.walk(layout.BLOBS, after, _PAGE_ENTRIES)
