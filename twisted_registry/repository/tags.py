"""Tags: names that move from manifest to manifest (distribution specification, "Listing Tags")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.reference import TagInvalid, check_tag
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import each
from twisted_registry.repository.failures import translated
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.interfaces import PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from twisted_registry.digest import Digest
    from twisted_registry.repository.concurrency import KeyedLock
    from twisted_registry.repository.interfaces import Announcer
    from twisted_registry.repository.recent import Recent
    from twisted_registry.storage.interfaces import IStorageDriver

#: Names that are asked of the store at once.
_PAGE = 5000


@define(eq=False, repr=False)
class Tags:
    """The tags of one repository."""

    driver: IStorageDriver
    recent: Recent
    locks: KeyedLock
    name: str
    announce: Announcer

    def hold(self, tag: str) -> AbstractAsyncContextManager[None]:
        """Keep others of this process from moving a tag between a look at it and its change."""
        return self.locks.hold(("tag", self.name, tag))

    @translated
    async def resolve(self, tag: str) -> Digest | None:
        """Which manifest a tag names, or None if there is no such tag."""
        return await self.recent.link(layout.tag_current(self.name, tag))

    @translated
    async def set(self, tag: str, digest: Digest, *, only_new: bool = False) -> bool:
        """Let a tag name a manifest.

        :param only_new: leave a tag that there is already alone.
        :returns: whether the tag names the manifest now; false only with ``only_new``.
        """
        await write_link(self.driver, layout.tag_index(self.name, tag, digest), digest)
        current = layout.tag_current(self.name, tag)
        if not only_new:
            await write_link(self.driver, current, digest)
            return True
        try:
            await self.driver.create(current, str(digest).encode("ascii"))
        except PathExists:
            # A torn link counts as no tag at all.
            if await read_link(self.driver, current) is not None:
                return False
            await write_link(self.driver, current, digest)
        return True

    @translated
    async def delete(self, tag: str) -> None:
        """Remove a tag, and what it once named.

        :raises RegistryError: MANIFEST_UNKNOWN if there is no such tag.
        """
        if not await self._remove(tag):
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"tag": tag})

    @translated
    async def delete_all_of(self, digest: Digest) -> list[str]:
        """Remove every tag that names a manifest, and return them."""

        async def check(tag: str) -> str | None:
            if await self.resolve(tag) != digest:
                return None
            async with self.hold(tag):
                # A push may have moved it on while we waited.
                if await self.resolve(tag) != digest or not await self._remove(tag):
                    return None
            return tag

        removed: list[str] = []
        async for names in self.pages():
            removed += [tag for tag in await each(check, names) if tag is not None]
        return removed

    async def pages(self, after: str = "") -> AsyncIterator[list[str]]:
        """All tags in the order of their code points, in lists of bounded length.

        :param after: only tags greater than this.
        """
        while True:
            names, more = await self.page(after, _PAGE)
            if names:
                yield names
                after = names[-1]
            if not more:
                return

    @translated
    async def page(self, after: str, limit: int) -> tuple[list[str], bool]:
        """One page of tags, and whether there are more.

        :param after: only tags greater than this; it need not be one.
        :param limit: how many; a folder with no link, or an empty one, is no tag.
        """
        names: list[str] = []
        while len(names) <= limit:
            try:
                # One more than asked for tells whether there are more.
                wanted = limit + 1 - len(names)
                entries = await self.driver.list(layout.tags(self.name), after, wanted)
            except PathNotFound:
                break
            found = [entry.path for entry in entries if entry.is_folder and _is_tag(entry.path)]
            linked = await each(self._is_set, found)
            names += [tag for tag, there in zip(found, linked, strict=True) if there]
            if len(entries) < wanted:
                break
            after = entries[-1].path
        return names[:limit], len(names) > limit

    async def _remove(self, tag: str) -> bool:
        try:
            await self.driver.delete(layout.tag(self.name, tag))
        except PathNotFound:
            return False
        self.announce("delete", "tag", None, tag=tag)
        return True

    async def _is_set(self, tag: str) -> bool:
        try:
            link = await self.driver.stat(layout.tag_current(self.name, tag))
        except PathNotFound:
            return False
        # A link without bytes is what a crash of a registry that does not sync leaves.
        return bool(link.size)


def _is_tag(name: str) -> bool:
    try:
        check_tag(name)
    except TagInvalid:
        return False
    return True
