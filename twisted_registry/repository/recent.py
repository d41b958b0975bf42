"""What was read before and has not changed since.

A pull asks for the same links and manifests again and again. Each hit is checked against the
store by one look at the file, on the reactor's thread, where the driver can do that without
waiting (:meth:`~twisted_registry.storage.interfaces.IStorageDriver.glance`): so a change made by
anybody is seen by the next request, and what is gone is gone. Where it can not, everything is
read anew. Nothing here says who holds what; :mod:`twisted_registry.repository.presence` does.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted.logger import Logger

from twisted_registry.manifest import media_type_in
from twisted_registry.repository import layout
from twisted_registry.repository.descriptors import NoDescriptors
from twisted_registry.repository.links import read_link
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted_registry.digest import Digest
    from twisted_registry.repository.descriptors import IDescriptorCache
    from twisted_registry.repository.fingerprints import Fingerprints
    from twisted_registry.repository.manifests import StoredManifest
    from twisted_registry.storage.interfaces import Glance, IStorageDriver
    from twisted_registry.storage.streams import IReader

log = Logger()

#: Bytes of a stored manifest that are read at most: far beyond what any registry takes, since
#: the one that wrote it may have had another limit.
READ_LIMIT = 64 * 1024 * 1024
#: Bytes of manifests that are kept, with what is made of each; how many links, and how many
#: names under which manifests were pulled.
CONTENT_LIMIT = 64 * 1024 * 1024
LINK_LIMIT = 50_000
PULL_LIMIT = 10_000
#: Bytes beside each manifest, about.
BESIDE = 1024


class Content:
    """The bytes of a manifest, sound when they were read.

    :ivar declared: the media type that the document gives itself, or None.
    :ivar served: what is told of it in every repository, once it was; None if that depends.
    """

    __slots__ = ("content", "declared", "served")

    def __init__(self, content: bytes, declared: str | None) -> None:
        self.content = content
        self.declared = declared
        self.served: StoredManifest | None = None


class _Pull:
    """What a pull found, and how each file looked that it found it by."""

    __slots__ = ("digest", "looks")

    def __init__(self, digest: Digest, looks: tuple[tuple[str, Glance], ...]) -> None:
        self.digest = digest
        self.looks = looks


class Recent:
    """Reads links and manifests of one store, and keeps what it read.

    :ivar content_limit: bytes of manifests that are kept, about.
    :ivar link_limit: links that are kept.
    :ivar pull_limit: names under which manifests were pulled that are kept.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        content_limit: int = CONTENT_LIMIT,
        link_limit: int = LINK_LIMIT,
        pull_limit: int = PULL_LIMIT,
        descriptors: IDescriptorCache | None = None,
    ) -> None:
        self.driver = driver
        self.content_limit = content_limit
        self.link_limit = link_limit
        self.pull_limit = pull_limit
        self.descriptors = NoDescriptors() if descriptors is None else descriptors
        self._links: OrderedDict[str, tuple[Glance, Digest]] = OrderedDict()
        self._contents: OrderedDict[Digest, tuple[Glance, Content]] = OrderedDict()
        self._pulls: OrderedDict[tuple[str, Digest | str], _Pull] = OrderedDict()
        #: by repository and hex of the digest: the link and the blob, and how they looked
        self._opened: OrderedDict[
            tuple[str, str], tuple[tuple[str, Glance], tuple[str, Glance]]
        ] = OrderedDict()
        self._bytes = 0
        self._fingerprints: Fingerprints | None = None

    def pulled(self, repository: str, reference: Digest | str) -> Content | None:
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
        if kept is None or kept[0] != pull.looks[-1][1] or not self.driver.unchanged(pull.looks):
            del self._pulls[key]
            return None
        self._contents.move_to_end(pull.digest)
        return kept[1]

    def remember(self, repository: str, reference: Digest | str, digest: Digest) -> None:
        """Note that a pull of ``reference`` has just found ``digest``, for :meth:`pulled`."""
        links = [layout.revision_link(repository, digest)]
        if isinstance(reference, str):
            links.insert(0, layout.tag_current(repository, reference))
        looks: list[tuple[str, Glance]] = []
        for path in links:
            link = self._links.get(path)
            if link is None or link[1] != digest:
                return
            looks.append((path, link[0]))
        kept = self._contents.get(digest)
        if kept is None:
            return
        looks.append((layout.blob(digest), kept[0]))
        self._pulls[repository, reference] = _Pull(digest, tuple(looks))
        if len(self._pulls) > self.pull_limit:
            self._pulls.popitem(last=False)

    def opened(self, repository: str, digest: Digest) -> IReader | None:
        """A blob that a pull opened before, open again, if another pull would find it again.

        None says nothing: look it up.
        """
        key = repository, digest.hex
        looks = self._opened.get(key)
        if looks is None:
            return None
        if not self.driver.unchanged(looks):
            del self._opened[key]
            return None
        return self.driver.reopen(*looks[1])

    def remember_opened(self, repository: str, digest: Digest) -> None:
        """Note that a pull has just opened a blob, for :meth:`opened`."""
        link = self._links.get(path := layout.layer_link(repository, digest))
        file = layout.blob(digest)
        seen = self.driver.glance(file)
        if link is None or link[1] != digest or seen is None or seen.size == 0:
            return
        self._opened[repository, digest.hex] = (path, link[0]), (file, seen)
        if len(self._opened) > self.pull_limit:
            self._opened.popitem(last=False)

    def passed(self, digest: Digest) -> bool:
        """Whether a large blob came from afar before, and was right."""
        return self._fingerprints is not None and self._fingerprints.of(digest) is not None

    async def link(self, path: str) -> Digest | None:
        """The digest that a link holds, or None if there is no sound link."""
        seen = self.driver.glance(path)
        if seen is None:
            return await read_link(self.driver, path)
        kept = self._links.get(path)
        if kept is not None and kept[0] == seen:
            self._links.move_to_end(path)
            return kept[1]
        digest = await read_link(self.driver, path)
        if digest is not None:
            # Seen before it was read: if it changed in between, the next look tells.
            self._links[path] = seen, digest
            if len(self._links) > self.link_limit:
                self._links.popitem(last=False)
        return digest

    async def size(self, digest: Digest) -> int | None:
        """The size of a blob that the store holds, or None.

        A file without bytes is none, unless that is its digest: a crash of a registry that does
        not sync leaves such files.
        """
        path = layout.blob(digest)
        seen = self.driver.glance(path)
        if seen is not None:
            size: int | None = seen.size
        else:
            try:
                size = (await self.driver.stat(path)).size
            except PathNotFound:
                return None
        return None if size == 0 and not digest.is_of_nothing else size

    async def known_size(self, digest: Digest) -> int | None:
        """What :meth:`size` tells, or told once if the store can not be looked at without waiting.

        For pulls alone: whoever follows it to the store sees there if the blob is gone.
        """
        if self.driver.glance(layout.blob(digest)) is not None:
            return await self.size(digest)
        size: int | None = await self.descriptors.size(digest)
        if size is None:
            size = await self.size(digest)
            if size is not None:
                self.descriptors.note(digest, size)
        return size

    async def reader(self, digest: Digest) -> IReader | None:
        """A blob that the store holds, open to be read, or None; see :meth:`size`.

        One that comes from afar is compared with its digest while it is read. Files of this
        machine are not: they leave it without passing through this process.
        """
        path = layout.blob(digest)
        try:
            reader: IReader = await self.driver.open(path)
        except PathNotFound:
            return None
        if reader.size == 0 and not digest.is_of_nothing:
            reader.close()
            return None
        if reader.fileno() is None and self.driver.glance(path) is None:
            # Most read files of this machine.
            from twisted_registry.repository.fingerprints import Fingerprints  # noqa: PLC0415
            from twisted_registry.repository.verified import VerifiedReader  # noqa: PLC0415

            if self._fingerprints is None:
                self._fingerprints = Fingerprints()
            return VerifiedReader(reader, digest, self._fingerprints)
        return reader

    async def content(self, digest: Digest) -> Content | None:
        """The bytes of a manifest that the store holds, or None if it has none or damaged ones."""
        path = layout.blob(digest)
        seen = self.driver.glance(path)
        if seen is not None:
            kept = self._contents.get(digest)
            if kept is not None and kept[0] == seen:
                self._contents.move_to_end(digest)
                return kept[1]
        try:
            content = await self.driver.get(path, READ_LIMIT)
            if not digest.matches(content):
                # The way may be bad, and not the store.
                content = await self.driver.get(path, READ_LIMIT)
        except PathNotFound:
            return None
        if not digest.matches(content):
            log.error(
                "the bytes of manifest {digest} are damaged; it counts as missing, and a push of "
                "it repairs it",
                digest=str(digest),
            )
            return None
        found = Content(content, media_type_in(content))
        if seen is not None:
            self._keep(digest, seen, found)
        return found

    def _keep(self, digest: Digest, seen: Glance, content: Content) -> None:
        before = self._contents.pop(digest, None)
        if before is not None:
            self._bytes -= _weight(before[1])
        if _weight(content) > self.content_limit:
            return
        self._contents[digest] = seen, content
        self._bytes += _weight(content)
        while self._bytes > self.content_limit:
            _, (_, dropped) = self._contents.popitem(last=False)
            self._bytes -= _weight(dropped)


def _weight(content: Content) -> int:
    return len(content.content) + BESIDE
