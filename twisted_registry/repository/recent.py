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

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.manifest import media_type_in
from twisted_registry.repository import layout
from twisted_registry.repository.links import read_link
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted_registry.digest import Digest
    from twisted_registry.storage.interfaces import Glance, IStorageDriver

log = Logger()

#: Bytes of a stored manifest that are read at most: far beyond what any registry takes, since
#: the one that wrote it may have had another limit.
READ_LIMIT = 64 * 1024 * 1024
#: Bytes of manifests that are kept, and how many links.
CONTENT_LIMIT = 64 * 1024 * 1024
LINK_LIMIT = 50_000


@frozen
class Content:
    """The bytes of a manifest, sound when they were read.

    :ivar declared: the media type that the document gives itself, or None.
    """

    content: bytes
    declared: str | None


@define(eq=False, repr=False)
class Recent:
    """Reads links and manifests of one store, and keeps what it read.

    :ivar content_limit: bytes of manifests that are kept.
    :ivar link_limit: links that are kept.
    """

    driver: IStorageDriver
    content_limit: int = CONTENT_LIMIT
    link_limit: int = LINK_LIMIT
    _links: OrderedDict[str, tuple[Glance, Digest]] = field(factory=OrderedDict, init=False)
    _contents: OrderedDict[Digest, tuple[Glance, Content]] = field(factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)

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
            self._bytes -= len(before[1].content)
        if len(content.content) > self.content_limit:
            return
        self._contents[digest] = seen, content
        self._bytes += len(content.content)
        while self._bytes > self.content_limit:
            _, (_, dropped) = self._contents.popitem(last=False)
            self._bytes -= len(dropped.content)
