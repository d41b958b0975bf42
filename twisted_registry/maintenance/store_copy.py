"""Copy one store into another, while registries serve either.

Everything is copied before what names it: the blobs, then for each repository the links of its
blobs, its manifests (children first, and each only when everything that it refers to is copied) and
its tags. So the destination never shows an incomplete image, whatever is pushed to the source
meanwhile, and wherever the copy is interrupted. What exists at the destination is not copied again,
so a second run copies what the first did not. Blobs are hashed on the way, and get their final name
when the digest is right.

Nothing is deleted at the destination. Unfinished uploads are not copied, and neither is what can be
rebuilt: the links of referrers, and the files of the collector.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import CancelledError

from twisted_registry.oci.manifest import parse_references
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.concurrency import KeyedLock, map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_files
from twisted_registry.repository.links import parse_link, put_link, read_link
from twisted_registry.repository.uploads import RunningHash
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import Move, OffsetInvalid, PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import Change, Entry, IReader, IStorageDriver, IWriter

#: How often a blob is read if its digest is wrong: the network may be at fault, not the store.
_ATTEMPTS = 2
_PAGE_ENTRIES = 1000
#: Blobs, and repositories, that are copied at the same time.
_BLOBS_AT_ONCE = 6
_REPOSITORIES_AT_ONCE = 4
#: Size limit of links and of the other small files of a repository.
_MAX_SMALL_FILE_BYTES = 64 * 1024
#: Links of a repository that are remembered as copied.
_MAX_COPIED_LINKS = 100_000


class BlobDamaged(Exception):
    """The source has other bytes under this digest, or cannot read them; the text says which."""


class BlobMissing(Exception):
    """The source has no such blob, or no longer."""


class _DigestMismatch(Exception):
    """The bytes that were read have another digest."""


@define(eq=False, repr=False)
class BlobCopier:
    """Copies blobs between two stores.

    :ivar finished_bytes: bytes of the blobs that were copied completely.
    """

    source: IStorageDriver
    destination: IStorageDriver
    finished_bytes: int = field(init=False, default=0)
    _writers: set[IWriter] = field(init=False, factory=set)

    @property
    def copied_bytes(self) -> int:
        """Bytes that were copied, including those of unfinished blobs."""
        return self.finished_bytes + sum(writer.size for writer in self._writers)

    async def copy(self, digest: Digest) -> int:
        """Copy a blob, replacing one of the same digest at the destination.

        :returns: its size in bytes.
        :raises BlobMissing: if the source does not have it.
        :raises BlobDamaged: if the source has other bytes under its digest, or cannot read them.
        :raises RegistryError: if the destination cannot store it.
        """
        for _ in range(_ATTEMPTS):
            try:
                reader: IReader = await self.source.open(layout.blob_data(digest))
            except PathNotFound as error:
                raise BlobMissing from error
            except StorageError as error:
                raise BlobDamaged(str(error)) from error
            try:
                size = await self._store(digest, reader)
            except _DigestMismatch as error:
                found = error
            else:
                self.finished_bytes += size
                return size
            finally:
                reader.close()
        raise BlobDamaged(str(found))

    @translate_storage_errors
    async def delete_interrupted(self) -> None:
        """Delete what interrupted copies left at the destination."""
        with suppress(PathNotFound):
            await self.destination.delete(layout.INCOMING)

    @translate_storage_errors
    async def _store(self, digest: Digest, reader: IReader) -> int:
        running_hash = RunningHash(digest.algorithm)

        def move_if_verified(size: int) -> Sequence[Change]:
            found = running_hash.digest()
            if found != digest or running_hash.size != size:
                raise _DigestMismatch(f"its bytes are those of {found}")
            return [Move(layout.incoming_blob(digest), layout.blob_data(digest))]

        writer = await self._writer(digest, running_hash)
        self._writers.add(writer)
        try:
            await _copy_stream(reader, writer)
            return await writer.finalize(move_if_verified)
        finally:
            self._writers.remove(writer)
            # Without effect after finalize(); otherwise it discards what was written.
            await writer.cancel()

    async def _writer(self, digest: Digest, running_hash: RunningHash) -> IWriter:
        path, destination = layout.incoming_blob(digest), layout.blob_data(digest)
        try:
            return await self.destination.writer(
                path, 0, running_hash.update, destination=destination
            )
        except OffsetInvalid:
            # An interrupted copy left a file.
            await self.destination.delete(path)
            return await self.destination.writer(
                path, 0, running_hash.update, destination=destination
            )


async def _copy_stream(reader: IReader, writer: IWriter) -> None:
    """Write all that a reader delivers.

    :raises BlobDamaged: if it cannot be read.
    """
    try:
        await reader.deliver(writer)
    except CancelledError:
        # If the writer has stopped the reader, this raises the reason.
        await writer.flush()
        raise
    except StorageError as error:
        raise BlobDamaged(str(error)) from error


@define(eq=False)
class StoreCopyResult:
    """What was copied.

    :ivar repositories: repositories that were visited.
    :ivar blobs: blobs and manifests that were copied.
    :ivar bytes: their bytes.
    :ivar present: blobs and manifests that the destination had already.
    :ivar manifests: links of manifests that were created.
    :ivar tags: tags that were created or changed.
    :ivar damaged: what could not be copied from the source, a sentence each.
    """

    repositories: int = 0
    blobs: int = 0
    bytes: int = 0
    present: int = 0
    manifests: int = 0
    tags: int = 0
    damaged: list[str] = field(factory=list)


@define(eq=False, repr=False)
class StoreCopy:
    """Copies a whole store.

    :ivar done: what was copied so far.
    :ivar total: bytes of all blobs of the source, as far as they were counted.
    :ivar present_bytes: bytes of the blobs that the destination had already.
    :ivar name: the repository that was started last.
    """

    source: IStorageDriver
    destination: IStorageDriver
    done: StoreCopyResult = field(init=False, factory=StoreCopyResult)
    total: int = field(init=False, default=0)
    present_bytes: int = field(init=False, default=0)
    name: str = field(init=False, default="")
    _damaged: set[Digest] = field(init=False, factory=set)
    _copier: BlobCopier = field(init=False)
    _locks: KeyedLock = field(init=False, factory=KeyedLock)

    @_copier.default
    def _make_copier(self) -> BlobCopier:
        return BlobCopier(self.source, self.destination)

    @property
    def processed_bytes(self) -> int:
        """Bytes of blobs that the destination has, including those of unfinished blobs."""
        return self.present_bytes + self._copier.copied_bytes

    async def run(self) -> StoreCopyResult:
        """Copy everything that the destination lacks.

        :raises RegistryError: if one of the stores fails.
        """
        async for entries in iterate_files(self.source, layout.BLOBS):
            self.total += sum(entry.size or 0 for entry in entries)
        async for entries in iterate_files(self.source, layout.BLOBS):
            await self._copy_blobs(entries)
        more, after = True, ""
        while more:
            names, more = await catalog.page_by_walk(self.source, after, _PAGE_ENTRIES)
            await map_concurrently(self._copy_repository, names, _REPOSITORIES_AT_ONCE)
            after = names[-1] if names else ""
        await self._copier.delete_interrupted()
        return self.done

    async def _copy_blobs(self, entries: Sequence[Entry]) -> None:
        missing = await self._missing(layout.BLOBS, entries)
        lacking = {entry.path for entry in missing}
        for entry in entries:
            if entry.path not in lacking:
                self.present_bytes += entry.size or 0
                self.done.present += 1
        digests = (layout.digest_of_blob(entry.path) for entry in missing)
        await map_concurrently(
            self._copy_blob, (one for one in digests if one is not None), _BLOBS_AT_ONCE
        )

    async def _copy_blob(self, digest: Digest) -> bool:
        """Copy a blob, and return whether that is done."""
        if digest in self._damaged:
            return False
        try:
            size = await self._copier.copy(digest)
        except BlobMissing:
            # It was collected after it was listed.
            return False
        except BlobDamaged as error:
            self._damaged.add(digest)
            self.done.damaged.append(f"{digest}: {error}")
            return False
        self.done.blobs += 1
        self.done.bytes += size
        return True

    async def _copy_repository(self, name: str) -> None:
        self.name = name
        self.done.repositories += 1
        copy = _RepositoryCopy(self, name)
        async for entries in iterate_files(self.source, layout.layers_folder(name)):
            await copy.layers(await self._missing(layout.layers_folder(name), entries))
        revisions = layout.revisions_folder(name)
        async for entries in iterate_files(self.source, revisions):
            await copy.revisions(await self._missing(revisions, entries))
        async for entries in iterate_files(self.source, layout.tags_folder(name)):
            await copy.tags(entries, await self._missing(layout.tags_folder(name), entries))
        await catalog.mark_repository(self.destination, name)

    @translate_storage_errors
    async def ensure_blob(self, digest: Digest) -> bool:
        """Copy a blob if the destination lacks it; return False if the source lacks it."""
        async with self._locks.lock(digest):
            try:
                size = (await self.source.stat(layout.blob_data(digest))).size
            except PathNotFound:
                return False
            try:
                if (await self.destination.stat(layout.blob_data(digest))).size == size:
                    return True
            except PathNotFound:
                pass
            return await self._copy_blob(digest)

    async def _missing(self, prefix: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries of a page that the destination lacks or has in another size."""
        wanted = {entry.path: entry for entry in entries}
        # A path that sorts before the first.
        after = entries[0].path[:-1]
        while True:
            found = await _walk(self.destination, prefix, after)
            for entry in found:
                source = wanted.get(entry.path)
                if source is not None and source.size == entry.size:
                    del wanted[entry.path]
            if len(found) < _PAGE_ENTRIES or found[-1].path >= entries[-1].path:
                return list(wanted.values())
            after = found[-1].path


@define(eq=False, repr=False)
class _RepositoryCopy:
    """Copies the content of one repository."""

    store_copy: StoreCopy
    name: str
    _copied_links: set[Digest] = field(init=False, factory=set)
    _skipped: set[Digest] = field(init=False, factory=set)
    _locks: KeyedLock = field(init=False, factory=KeyedLock)

    async def layers(self, missing: Sequence[Entry]) -> None:
        """Copy links of blobs, and their blobs."""
        links, others = _split_links(missing)
        await map_concurrently(self._copy_layer, links)
        await map_concurrently(self._copy_file, others)

    async def revisions(self, missing: Sequence[Entry]) -> None:
        """Copy manifests."""
        links, others = _split_links(missing)
        await map_concurrently(self._copy_manifest, links)
        await map_concurrently(self._copy_file, others)

    async def tags(self, entries: Sequence[Entry], missing: Sequence[Entry]) -> None:
        """Copy tags: their current manifests, then their indexes of earlier ones."""
        current = [one.path for one in entries if one.path.endswith(f"/{layout.CURRENT_LINK}")]
        source, destination = self.store_copy.source, self.store_copy.destination
        wanted, found = await _contents(source, current), await _contents(destination, current)
        changed = [
            (path, new)
            for path, new, old in zip(current, wanted, found, strict=True)
            if new is not None and new != old
        ]
        await map_concurrently(self._copy_tag, changed)
        others = (one.path for one in missing if not one.path.endswith(f"/{layout.CURRENT_LINK}"))
        await map_concurrently(self._copy_file, others)

    async def _copy_tag(self, change: tuple[str, bytes]) -> None:
        path, content = change
        digest = parse_link(content)
        if digest is not None and await self._copy_manifest(digest):
            await _put(self.store_copy.destination, path, content)
            self.store_copy.done.tags += 1

    async def _copy_layer(self, digest: Digest) -> bool:
        """Copy a blob and its link; return whether the destination has both now."""
        if digest in self._copied_links:
            return True
        path = layout.layer_link(self.name, digest)
        if not await _is_link_valid(self.store_copy.destination, path, digest):
            if not await _is_link_valid(self.store_copy.source, path, digest):
                return False
            if not await self.store_copy.ensure_blob(digest):
                return False
            await _put(self.store_copy.destination, path, put_link(path, digest).content)
        if len(self._copied_links) < _MAX_COPIED_LINKS:
            self._copied_links.add(digest)
        return True

    async def _copy_manifest(self, digest: Digest) -> bool:
        """Copy a manifest after everything that it refers to; return whether it is there now."""
        source, destination = self.store_copy.source, self.store_copy.destination
        path = layout.revision_link(self.name, digest)
        async with self._locks.lock(digest):
            if await _is_link_valid(destination, path, digest):
                return True
            if digest in self._skipped or not await _is_link_valid(source, path, digest):
                return False
            content = await _content(source, layout.blob_data(digest))
            if content is None or not digest.matches(content):
                self._skip_manifest(digest, "its content is missing or damaged")
                return False
            for reference in sorted(parse_references(content).digests):
                if not await self._copy_reference(reference):
                    self._skip_manifest(digest, f"{reference}, which it refers to, cannot be read")
                    return False
            if not await self.store_copy.ensure_blob(digest):
                return False
            await self._copy_file(layout.revision_media_type(self.name, digest))
            await _put(destination, path, put_link(path, digest).content)
            self.store_copy.done.manifests += 1
            return True

    async def _copy_reference(self, digest: Digest) -> bool:
        """Copy what a manifest refers to, if the repository holds it.

        :returns: False if the repository holds it and it cannot be copied.
        """
        if digest in self._copied_links:
            return True
        source = self.store_copy.source
        is_layer = await _is_link_valid(source, layout.layer_link(self.name, digest), digest)
        if is_layer and not await self._copy_layer(digest):
            return False
        if await _is_link_valid(source, layout.revision_link(self.name, digest), digest):
            return await self._copy_manifest(digest)
        return True

    async def _copy_file(self, path: str) -> None:
        content = await _content(self.store_copy.source, path)
        if content is not None:
            await _put(self.store_copy.destination, path, content)

    def _skip_manifest(self, digest: Digest, why: str) -> None:
        self._skipped.add(digest)
        self.store_copy.done.damaged.append(f"{self.name}@{digest}: not copied: {why}")


def _split_links(entries: Sequence[Entry]) -> tuple[list[Digest], list[str]]:
    """Return the digests of links, and the paths of all other files."""
    links, others = [], []
    for entry in entries:
        digest = layout.digest_of_link(entry.path)
        if digest is None:
            others.append(entry.path)
        elif entry.size:
            links.append(digest)
    return links, others


@translate_storage_errors
async def _walk(driver: IStorageDriver, prefix: str, after: str) -> Sequence[Entry]:
    return await driver.walk(prefix, after, _PAGE_ENTRIES)


@translate_storage_errors
async def _contents(driver: IStorageDriver, paths: Sequence[str]) -> Sequence[bytes | None]:
    return await bulk_lookup(driver).get_many(paths, _MAX_SMALL_FILE_BYTES)


@translate_storage_errors
async def _content(driver: IStorageDriver, path: str) -> bytes | None:
    try:
        return await driver.get(path, layout.MAX_MANIFEST_READ_BYTES)
    except PathNotFound:
        return None


@translate_storage_errors
async def _is_link_valid(driver: IStorageDriver, path: str, digest: Digest) -> bool:
    return await read_link(driver, path) == digest


@translate_storage_errors
async def _put(driver: IStorageDriver, path: str, content: bytes) -> None:
    await driver.put(path, content)
