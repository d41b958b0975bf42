"""Caches of metadata: links and manifests, and the sizes of blobs.

:class:`MetadataCache` keeps links and manifests that were read. Each hit is validated by one
``stat`` of the file on the reactor thread, where the driver can do that without waiting
(:meth:`~twisted_registry.storage.interfaces.IFastLookup.peek`). So the next request sees a
change by any process. Where the driver cannot, every request reads the store.

:class:`IDescriptorCache` keeps the sizes of blobs. The size of a digest's content never changes, so
it needs no validation, and may be shared between processes. It does not say that the blob exists:
only pulls use it, which fail at the store if the blob is gone. Pushes, HEAD and mounts ask the
store.

Neither says which repository holds what: :mod:`twisted_registry.repository.presence` does.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from twisted_registry.oci.manifest import OCI_IMAGE, parse_document_type
from twisted_registry.repository import layout
from twisted_registry.repository.links import parse_link, read_link
from twisted_registry.repository.parsing import ManifestWorker
from twisted_registry.storage.fallbacks import bulk_lookup, fast_lookup
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import (
        FileVersion,
        IReader,
        IStorageDriver,
    )

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

log = Logger()

_K = TypeVar("_K")
_V = TypeVar("_V")

#: Bytes of manifests that are cached, with the overhead of each.
MAX_CONTENT_BYTES = 64 * 1024 * 1024
#: Links that are cached.
MAX_LINKS = 50_000
#: Pulls of manifests that are cached, and as many of blobs.
MAX_PULLS = 10_000
#: Memory that each cached manifest takes beside its bytes, about.
ENTRY_OVERHEAD_BYTES = 1024
#: Reads of a manifest whose bytes do not have its digest.
_MAX_READS = 2


@define(eq=False, repr=False)
class LRUCache(Generic[_K, _V]):
    """A mapping of bounded size, which evicts the entries that were not used for longest.

    :ivar max_weight: what all entries may weigh together. A heavier one is not stored.
    :ivar weigh: returns the weight of a value; without it, each weighs 1.
    """

    max_weight: int
    weigh: Callable[[_V], int] = lambda _: 1
    _entries: OrderedDict[_K, _V] = field(init=False, factory=OrderedDict)
    _weight: int = field(init=False, default=0)

    def get(self, key: _K) -> _V | None:
        """Return a value, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def pop(self, key: _K) -> _V | None:
        """Remove and return a value, or None."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._weight -= self.weigh(value)
        return value

    def put(self, key: _K, value: _V) -> None:
        """Store a value."""
        self.pop(key)
        weight = self.weigh(value)
        if weight > self.max_weight:
            return
        self._entries[key] = value
        self._weight += weight
        while self._weight > self.max_weight:
            _, evicted = self._entries.popitem(last=False)
            self._weight -= self.weigh(evicted)


@define(eq=False)
class CacheUse:
    """How often a cache was asked.

    :ivar hits: found, and valid.
    :ivar misses: not found, or not valid any more.
    :ivar errors: misses because the cache could not be asked.
    """

    hits: int = 0
    misses: int = 0
    errors: int = 0


class IDescriptorCache(Interface):
    """A cache of blob sizes by digest. Its methods never fail."""

    use: CacheUse = Attribute("How often it was asked.")

    def size(digest: Digest) -> Deferred[int | None]:
        """Fire with the size of the content of a digest in bytes, or None if it is not cached."""

    def remember_size(digest: Digest, size: int) -> None:
        """Cache the size of the content of a digest in bytes."""

    def close() -> Deferred[None]:
        """Close connections; the Deferred fires when that is done."""


@implementer(IDescriptorCache)
class NullDescriptorCache:
    """A descriptor cache that stores nothing."""

    def __init__(self) -> None:
        self.use = CacheUse()

    def size(self, digest: Digest) -> Deferred[int | None]:  # noqa: ARG002
        """Fire with None."""
        return succeed(None)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Do nothing."""

    def close(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


@implementer(IDescriptorCache)
class MemoryDescriptorCache:
    """A descriptor cache in this process (``storage.cache.blobdescriptor: inmemory``).

    :param limit: the most entries. 0 means no limit.
    """

    def __init__(self, limit: int) -> None:
        self._sizes: LRUCache[Digest, int] = LRUCache(limit or sys.maxsize)
        self.use = CacheUse()

    def size(self, digest: Digest) -> Deferred[int | None]:
        """Fire at once."""
        size = self._sizes.get(digest)
        if size is None:
            self.use.misses += 1
        else:
            self.use.hits += 1
        return succeed(size)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Store the size."""
        self._sizes.put(digest, size)

    def close(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


@frozen
class StoredManifest:
    """The bytes of a manifest that matched their digest when they were read.

    :ivar media_type: the media type that the document declares. If it declares none, this is empty
        in the cache; :class:`~.manifests.Manifests` adds the type that the repository has stored.
    :ivar content: the bytes as pushed.
    :ivar fallback_type: the media type if neither the document nor the repository has one.
    """

    digest: Digest
    media_type: str
    content: bytes = field(repr=False)
    fallback_type: str = OCI_IMAGE


@frozen(eq=False)
class _CachedPull:
    """The result of a pull.

    :ivar versions: path and version of each file that the pull has read; the manifest is the last.
    """

    digest: Digest
    versions: tuple[tuple[str, FileVersion], ...]


class MetadataCache:
    """Reads links, blob sizes and manifests of one store, and caches them.

    :ivar lookup: validates cached entries.
    :ivar worker: hashes and parses manifests.
    :ivar manifest_use: how often :meth:`cached_pull` was asked.
    :ivar blob_use: how often :meth:`reopen_blob` was asked.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        max_content_bytes: int = MAX_CONTENT_BYTES,
        max_links: int = MAX_LINKS,
        max_pulls: int = MAX_PULLS,
        descriptors: IDescriptorCache | None = None,
        worker: ManifestWorker | None = None,
    ) -> None:
        """Make empty caches.

        :param max_content_bytes: bytes of manifests that are cached, with their overhead.
        :param max_links: links that are cached.
        :param max_pulls: pulls of manifests that are cached, and as many of blobs.
        :param descriptors: caches blob sizes for drivers that cannot ``peek``.
        :param worker: None hashes and parses on the caller's thread.
        """
        self.driver = driver
        self.worker = ManifestWorker() if worker is None else worker
        self.lookup = fast_lookup(driver)
        self._bulk = bulk_lookup(driver)
        self.descriptors = NullDescriptorCache() if descriptors is None else descriptors
        self.manifest_use, self.blob_use = CacheUse(), CacheUse()
        self._links: LRUCache[str, tuple[FileVersion, Digest]] = LRUCache(max_links)
        self._manifests: LRUCache[Digest, tuple[FileVersion, StoredManifest]] = LRUCache(
            max_content_bytes, lambda cached: len(cached[1].content) + ENTRY_OVERHEAD_BYTES
        )
        self._pulls: LRUCache[tuple[str, Digest | str], _CachedPull] = LRUCache(max_pulls)
        # By repository and digest: path and version of the link and of the blob.
        self._blob_pulls: LRUCache[tuple[str, Digest], tuple[tuple[str, FileVersion], ...]] = (
            LRUCache(max_pulls)
        )

    def cached_pull(self, repository: str, reference: Digest | str) -> StoredManifest | None:
        """Return the manifest that an earlier pull has found, if a pull now would find the same.

        This is so if all files that it read are unchanged: the links of the tag and of the
        revision, and the manifest. They are validated by one call of the driver.

        :param reference: a digest or a tag.
        :returns: None if the result of a pull is not known.
        """
        key = repository, reference
        pull = self._pulls.get(key)
        if pull is None:
            self.manifest_use.misses += 1
            return None
        cached = self._manifests.get(pull.digest)
        # The manifest may have been evicted, or read again since.
        if (
            cached is None
            or cached[0] != pull.versions[-1][1]
            or not self.lookup.validate(pull.versions)
        ):
            self._pulls.pop(key)
            self.manifest_use.misses += 1
            return None
        self.manifest_use.hits += 1
        return cached[1]

    def remember_pull(self, repository: str, reference: Digest | str, digest: Digest) -> None:
        """Cache that a pull of a reference has just found a manifest.

        Nothing is cached if one of the files is not cached, or if the manifest does not declare its
        media type: that depends on a further file of the repository.
        """
        links = [layout.revision_link(repository, digest)]
        if isinstance(reference, str):
            links.insert(0, layout.tag_current_link(repository, reference))
        versions: list[tuple[str, FileVersion]] = []
        for path in links:
            link = self._links.get(path)
            if link is None or link[1] != digest:
                return
            versions.append((path, link[0]))
        cached = self._manifests.get(digest)
        if cached is None or not cached[1].media_type:
            return
        versions.append((layout.blob_data(digest), cached[0]))
        self._pulls.put((repository, reference), _CachedPull(digest, tuple(versions)))

    def reopen_blob(self, repository: str, digest: Digest) -> IReader | None:
        """Open a blob that an earlier pull has opened, if a pull now would find the same.

        This is so if the link and the blob are unchanged; see :meth:`cached_pull`.

        :returns: None if the result of a pull is not known, or if the blob is not open any more.
        """
        key = repository, digest
        versions = self._blob_pulls.get(key)
        if versions is None:
            self.blob_use.misses += 1
            return None
        if self.lookup.validate(versions):
            reader = self.lookup.open_cached(*versions[-1])
            if reader is not None:
                self.blob_use.hits += 1
                return reader
        self.blob_use.misses += 1
        self._blob_pulls.pop(key)
        return None

    def remember_blob_pull(self, repository: str, digest: Digest) -> None:
        """Cache that a pull has just opened a blob.

        Nothing is cached if the link is not cached, or if the driver does not keep the blob open.
        """
        link_path, path = layout.layer_link(repository, digest), layout.blob_data(digest)
        link, version = self._links.get(link_path), self.lookup.peek(path)
        if link is None or link[1] != digest or version is None or not version.size:
            return
        reader = self.lookup.open_cached(path, version)
        if reader is None:
            return
        reader.close()
        self._blob_pulls.put((repository, digest), ((link_path, link[0]), (path, version)))

    async def read_link(self, path: str, *, strict: bool = False) -> Digest | None:
        """Return the digest in a link, or None if there is no valid link.

        :param strict: see :func:`~twisted_registry.repository.links.read_link`.
        """
        # Taken before the read: if the file changes in between, the next validation fails.
        version = self.lookup.peek(path)
        if version is None:
            return await read_link(self.driver, path, strict=strict)
        cached = self._links.get(path)
        if cached is not None and cached[0] == version:
            return cached[1]
        digest = await read_link(self.driver, path, strict=strict)
        if digest is not None:
            self._links.put(path, (version, digest))
        return digest

    async def read_links(self, paths: Sequence[str]) -> list[Digest | None]:
        """Return the digests in many links, in order; None where there is no valid link."""
        found: list[Digest | None] = []
        unknown: dict[int, FileVersion | None] = {}
        for number, path in enumerate(paths):
            version, cached = self.lookup.peek(path), self._links.get(path)
            is_known = cached is not None and cached[0] == version
            found.append(cached[1] if cached is not None and is_known else None)
            if not is_known:
                unknown[number] = version
        missing = [paths[number] for number in unknown]
        contents = await self._bulk.get_many(missing, layout.MAX_LINK_BYTES) if missing else ()
        for (number, version), content in zip(unknown.items(), contents, strict=True):
            if content is None:
                continue
            digest = parse_link(content)
            if digest is None:
                found[number] = await self.read_link(paths[number])
                continue
            found[number] = digest
            if version is not None:
                self._links.put(paths[number], (version, digest))
        return found

    async def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in the store in bytes, or None if there is none.

        An empty file counts as missing, unless the digest is that of empty content: a crash of a
        registry that does not sync leaves such files.
        """
        path = layout.blob_data(digest)
        version = self.lookup.peek(path)
        if version is not None:
            size: int | None = version.size
        else:
            try:
                size = (await self.driver.stat(path)).size
            except PathNotFound:
                return None
        return None if size == 0 and not digest.is_of_empty_content else size

    async def cached_size(self, digest: Digest) -> int | None:
        """Return :meth:`blob_size`, from the descriptor cache where the driver cannot ``peek``.

        Only for pulls: a cached size does not prove that the blob still exists.
        """
        if self.lookup.peek(layout.blob_data(digest)) is not None:
            return await self.blob_size(digest)
        size: int | None = await self.descriptors.size(digest)
        if size is None:
            size = await self.blob_size(digest)
            if size is not None:
                self.descriptors.remember_size(digest, size)
        return size

    async def open_blob(self, digest: Digest) -> IReader | None:
        """Open a blob in the store, or return None if there is none; see :meth:`blob_size`."""
        try:
            reader: IReader = await self.driver.open(layout.blob_data(digest))
        except PathNotFound:
            return None
        if reader.size == 0 and not digest.is_of_empty_content:
            reader.close()
            return None
        return reader

    async def read_manifest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest of the store, or None if it is missing or damaged."""
        path = layout.blob_data(digest)
        version = self.lookup.peek(path)
        if version is not None:
            cached = self._manifests.get(digest)
            if cached is not None and cached[0] == version:
                return cached[1]
        found = None
        try:
            # If the digest is wrong, the transfer may be at fault, and not the stored bytes.
            for _ in range(_MAX_READS):
                content = await self.driver.get(path, layout.MAX_MANIFEST_READ_BYTES)
                found = await self.worker.find(digest, content, parse_document_type)
                if found is not None:
                    break
        except PathNotFound:
            return None
        if found is None:
            log.error(
                "manifest {digest} is damaged and treated as missing; push it again to repair it",
                digest=str(digest),
            )
            return None
        manifest = StoredManifest(digest, found.declared or "", content, found.fallback)
        if version is not None:
            self._manifests.put(digest, (version, manifest))
        return manifest
