"""What is known of a digest, whoever holds it: how large its content is.

That never changes, so it may be remembered anywhere and for ever. Nothing here says that any
repository holds the content, or that the store does: pushes, HEAD and mounts ask the store, and a
pull asks it for the link. What is saved is the second question of a pull.

What was read before and has not changed since.

A pull asks for the same links and manifests again and again. Each hit is checked against the
store by one look at the file, on the reactor's thread, where the driver can do that without
waiting (:meth:`~twisted_registry.storage.interfaces.IFastLookup.peek`): so a change made by
anybody is seen by the next request, and what is gone is gone. Where it can not, everything is
read anew. Nothing here says who holds what; :mod:`twisted_registry.repository.presence` does.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import Interface, implementer

from twisted_registry.oci.manifest import declared_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.links import read_link
from twisted_registry.storage.fallbacks import fast_lookup
from twisted_registry.storage.interfaces import ILocalFileReader, PathNotFound

if TYPE_CHECKING:
    from twisted_registry.oci.digest import Digest

    # @@EMPTY
    from twisted_registry.repository.manifests import StoredManifest
    from twisted_registry.repository.verification import Fingerprints
    from twisted_registry.storage.interfaces import FileVersion, IReader, IStorageDriver

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"


class IDescriptorCache(Interface):
    """Remembers sizes. It never fails: what it can not tell, it does not know."""

    def size(digest: Digest) -> Deferred[int | None]:
        """Fire with the bytes that the content of a digest has, or None if that is not known."""

    def remember_size(digest: Digest, size: int) -> None:
        """Remember the size of the content of a digest."""

    def close() -> Deferred[None]:
        """Free connections."""


@implementer(IDescriptorCache)
class NullDescriptorCache:
    """Remembers nothing."""

    def size(self, digest: Digest) -> Deferred[int | None]:  # noqa: ARG002
        """Nothing is known."""
        return succeed(None)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Forget."""

    def close(self) -> Deferred[None]:
        """Nothing is held."""
        return succeed(None)


@implementer(IDescriptorCache)
class MemoryDescriptorCache:
    """Remembers in this process (``storage.cache.blobdescriptor: inmemory``).

    :ivar limit: how many; the one longest unused is dropped. 0 is no limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._sizes: OrderedDict[Digest, int] = OrderedDict()

    def size(self, digest: Digest) -> Deferred[int | None]:
        """Fire at once."""
        size = self._sizes.get(digest)
        if size is not None:
            self._sizes.move_to_end(digest)
        return succeed(size)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Remember."""
        self._sizes[digest] = size
        self._sizes.move_to_end(digest)
        if self.limit and len(self._sizes) > self.limit:
            self._sizes.popitem(last=False)

    def close(self) -> Deferred[None]:
        """Nothing is held."""
        return succeed(None)


log = Logger()

#: Bytes of a stored manifest that are read at most: far beyond what any registry takes, since
#: the one that wrote it may have had another limit.
MAX_MANIFEST_READ_BYTES = 64 * 1024 * 1024
#: Bytes of manifests that are kept, with what is made of each; how many links, and how many
#: names under which manifests were pulled.
MAX_CONTENT_BYTES = 64 * 1024 * 1024
MAX_LINKS = 50_000
MAX_PULLS = 10_000
#: Bytes beside each manifest, about.
ENTRY_OVERHEAD_BYTES = 1024


class CachedManifest:
    """The bytes of a manifest, sound when they were read.

    :ivar declared: the media type that the document gives itself, or None.
    :ivar served: what is told of it in every repository, once it was; None if that depends.
    """

    __slots__ = ("content", "media_type", "stored_manifest")

    def __init__(self, content: bytes, media_type: str | None) -> None:
        self.content = content
        self.media_type = media_type
        self.stored_manifest: StoredManifest | None = None


class _CachedPull:
    """What a pull found, and how each file looked that it found it by."""

    __slots__ = ("digest", "versions")

    def __init__(self, digest: Digest, versions: tuple[tuple[str, FileVersion], ...]) -> None:
        self.digest = digest
        self.versions = versions


class MetadataCache:
    """Reads links and manifests of one store, and keeps what it read.

    :ivar content_limit: bytes of manifests that are kept, about.
    :ivar link_limit: links that are kept.
    :ivar pull_limit: names under which manifests were pulled that are kept.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        max_content_bytes: int = MAX_CONTENT_BYTES,
        max_links: int = MAX_LINKS,
        max_pulls: int = MAX_PULLS,
        descriptors: IDescriptorCache | None = None,
    ) -> None:
        self.driver = driver
        self.lookup = fast_lookup(driver)
        self.max_content_bytes = max_content_bytes
        self.max_links = max_links
        self.max_pulls = max_pulls
        self.descriptors = NullDescriptorCache() if descriptors is None else descriptors
        self._links: OrderedDict[str, tuple[FileVersion, Digest]] = OrderedDict()
        self._contents: OrderedDict[Digest, tuple[FileVersion, CachedManifest]] = OrderedDict()
        self._pulls: OrderedDict[tuple[str, Digest | str], _CachedPull] = OrderedDict()
        #: by repository and hex of the digest: the link and the blob, and how they looked
        self._opened_blobs: OrderedDict[
            tuple[str, str], tuple[tuple[str, FileVersion], tuple[str, FileVersion]]
        ] = OrderedDict()
        self._bytes = 0
        self._fingerprints: Fingerprints | None = None

    def cached_pull(self, repository: str, reference: Digest | str) -> CachedManifest | None:
        """The manifest that a pull of ``reference`` found before, if another would find it again.

        That is so if all files that it was found by look as they did: the links of the tag and
        of the revision, and the manifest itself. None says nothing.
        """
        key = (repository, reference)
        pull = self._pulls.get(key)
        if pull is None:
            return None
        kept = self._contents.get(pull.digest)
        # It may have been dropped to make room for others, or read again since.
        if (
            kept is None
            or kept[0] != pull.versions[-1][1]
            or not self.lookup.validate(pull.versions)
        ):
            del self._pulls[key]
            return None
        self._contents.move_to_end(pull.digest)
        return kept[1]

    def remember_pull(self, repository: str, reference: Digest | str, digest: Digest) -> None:
        """Note that a pull of ``reference`` has just found ``digest``, for :meth:`cached_pull`."""
        links = [layout.revision_link(repository, digest)]
        if isinstance(reference, str):
            links.insert(0, layout.tag_current(repository, reference))
        versions: list[tuple[str, FileVersion]] = []
        for path in links:
            link = self._links.get(path)
            if link is None or link[1] != digest:
                return
            versions.append((path, link[0]))
        kept = self._contents.get(digest)
        if kept is None:
            return
        versions.append((layout.blob(digest), kept[0]))
        self._pulls[repository, reference] = _CachedPull(digest, tuple(versions))
        if len(self._pulls) > self.max_pulls:
            self._pulls.popitem(last=False)

    def reopen_blob(self, repository: str, digest: Digest) -> IReader | None:
        """A blob that a pull opened before, open again, if another pull would find it again.

        None says nothing: look it up.
        """
        key = repository, digest.hex
        versions = self._opened_blobs.get(key)
        if versions is None:
            return None
        if not self.lookup.validate(versions):
            del self._opened_blobs[key]
            return None
        return self.lookup.open_cached(*versions[1])

    def remember_opened_blob(self, repository: str, digest: Digest) -> None:
        """Note that a pull has just opened a blob, for :meth:`reopen_blob`."""
        link = self._links.get(path := layout.layer_link(repository, digest))
        file = layout.blob(digest)
        version = self.lookup.peek(file)
        if link is None or link[1] != digest or version is None or version.size == 0:
            return
        self._opened_blobs[repository, digest.hex] = (path, link[0]), (file, version)
        if len(self._opened_blobs) > self.max_pulls:
            self._opened_blobs.popitem(last=False)

    def was_verified(self, digest: Digest) -> bool:
        """Whether a large blob came from afar before, and was right."""
        return self._fingerprints is not None and self._fingerprints.of(digest) is not None

    async def read_link(self, path: str) -> Digest | None:
        """The digest that a link holds, or None if there is no sound link."""
        version = self.lookup.peek(path)
        if version is None:
            return await read_link(self.driver, path)
        kept = self._links.get(path)
        if kept is not None and kept[0] == version:
            self._links.move_to_end(path)
            return kept[1]
        digest = await read_link(self.driver, path)
        if digest is not None:
            # Seen before it was read: if it changed in between, the next look tells.
            self._links[path] = version, digest
            if len(self._links) > self.max_links:
                self._links.popitem(last=False)
        return digest

    async def blob_size(self, digest: Digest) -> int | None:
        """The size of a blob that the store holds, or None.

        A file without bytes is none, unless that is its digest: a crash of a registry that does
        not sync leaves such files.
        """
        path = layout.blob(digest)
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
        """What :meth:`size` tells, or told once if the store can not be looked at without waiting.

        For pulls alone: whoever follows it to the store sees there if the blob is gone.
        """
        if self.lookup.peek(layout.blob(digest)) is not None:
            return await self.blob_size(digest)
        size: int | None = await self.descriptors.size(digest)
        if size is None:
            size = await self.blob_size(digest)
            if size is not None:
                self.descriptors.remember_size(digest, size)
        return size

    async def open_blob(self, digest: Digest) -> IReader | None:
        """A blob that the store holds, open to be read, or None; see :meth:`size`.

        One that comes from afar is compared with its digest while it is read. Files of this
        machine are not: they leave it without passing through this process.
        """
        path = layout.blob(digest)
        try:
            reader: IReader = await self.driver.open(path)
        except PathNotFound:
            return None
        if reader.size == 0 and not digest.is_of_empty_content:
            reader.close()
            return None
        if not ILocalFileReader.providedBy(reader) and self.lookup.peek(path) is None:
            # Most read files of this machine.
            from twisted_registry.repository.verification import (  # noqa: PLC0415
                Fingerprints,
                VerifiedReader,
            )

            if self._fingerprints is None:
                self._fingerprints = Fingerprints()
            return VerifiedReader(reader, digest, self._fingerprints)
        return reader

    async def read_manifest(self, digest: Digest) -> CachedManifest | None:
        """The bytes of a manifest that the store holds, or None if it has none or damaged ones."""
        path = layout.blob(digest)
        version = self.lookup.peek(path)
        if version is not None:
            kept = self._contents.get(digest)
            if kept is not None and kept[0] == version:
                self._contents.move_to_end(digest)
                return kept[1]
        try:
            content = await self.driver.get(path, MAX_MANIFEST_READ_BYTES)
            if not digest.matches(content):
                # The way may be bad, and not the store.
                content = await self.driver.get(path, MAX_MANIFEST_READ_BYTES)
        except PathNotFound:
            return None
        if not digest.matches(content):
            log.error(
                "the bytes of manifest {digest} are damaged; it counts as missing, and a push of "
                "it repairs it",
                digest=str(digest),
            )
            return None
        found = CachedManifest(content, declared_media_type(content))
        if version is not None:
            self._store_content(digest, version, found)
        return found

    def _store_content(self, digest: Digest, version: FileVersion, content: CachedManifest) -> None:
        before = self._contents.pop(digest, None)
        if before is not None:
            self._bytes -= _size_of_entry(before[1])
        if _size_of_entry(content) > self.max_content_bytes:
            return
        self._contents[digest] = version, content
        self._bytes += _size_of_entry(content)
        while self._bytes > self.max_content_bytes:
            _, (_, dropped) = self._contents.popitem(last=False)
            self._bytes -= _size_of_entry(dropped)


def _size_of_entry(content: CachedManifest) -> int:
    return len(content.content) + ENTRY_OVERHEAD_BYTES
