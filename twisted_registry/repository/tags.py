"""Tags: names that move from manifest to manifest (distribution specification, "Listing Tags")."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import compress
from typing import TYPE_CHECKING

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import match_links, read_link, write_link
from twisted_registry.repository.policy import immutable_error
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.cache import MetadataCache
    from twisted_registry.repository.concurrency import KeyedLock
    from twisted_registry.repository.interfaces import EventPublisher
    from twisted_registry.repository.policy import TagSelector
    from twisted_registry.repository.trash import Deleter
    from twisted_registry.storage.interfaces import IBulkLookup, IHostLock, IStorageDriver

#: Names that are asked of the store at once.
_PAGE_ENTRIES = 5000


class Tags:
    """The tags of one repository.

    :ivar immutable: those that are neither moved nor deleted once they are there.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        bulk: IBulkLookup,
        host_lock: IHostLock,
        cache: MetadataCache,
        locks: KeyedLock,
        deleter: Deleter,
        name: str,
        publish_event: EventPublisher,
        immutable: tuple[TagSelector, ...] = (),
    ) -> None:
        self.driver = driver
        self.bulk = bulk
        self.host_lock = host_lock
        self.cache = cache
        self.locks = locks
        self.deleter = deleter
        self.name = name
        self.publish_event = publish_event
        self.immutable = immutable

    @property
    def has_immutable(self) -> bool:
        """Whether any tag here could be immutable."""
        return any(self.name in choice.repositories for choice in self.immutable)

    def is_immutable(self, tag: str) -> bool:
        """Whether a tag stays as it is once it is there."""
        return any(choice.matches(self.name, tag) for choice in self.immutable)

    @translate_storage_errors
    async def check_may_set(self, tag: str, digest: Digest) -> None:
        """Refuse to let a tag name a manifest if it is immutable and names another.

        :raises RegistryError: DENIED.
        """
        if self.is_immutable(tag) and await self.resolve(tag) not in (None, digest):
            raise immutable_error(tag)

    @asynccontextmanager
    async def lock(self, tag: str) -> AsyncIterator[None]:
        """Keep others of this host from moving a tag between a look at it and its change.

        Who moves it without a look takes part: else a delete by digest could take away what was
        set meanwhile.
        """
        async with self.locks.lock(("tag", self.name, tag)):
            release = await self.host_lock.lock(f"{self.name}:{tag}")
            try:
                yield
            finally:
                release()

    @translate_storage_errors
    async def resolve(self, tag: str) -> Digest | None:
        """Which manifest a tag names, or None if there is no such tag."""
        return await self.cache.read_link(layout.tag_current(self.name, tag))

    @translate_storage_errors
    async def set(self, tag: str, digest: Digest, *, only_new: bool = False) -> bool:
        """Let a tag name a manifest.

        :param only_new: leave a tag that there is already alone.
        :returns: whether the tag names the manifest now; false only with ``only_new``.
        :raises RegistryError: DENIED if it is immutable and names another.
        """
        if not self.deleter.keeps_deleted:
            return await self._set(tag, digest, only_new=only_new)
        before = await self.resolve(tag)
        done = await self._set(tag, digest, only_new=only_new)
        if done and before != digest:
            await self.deleter.record_tag_change(self.name, tag, before, digest)
        return done

    async def _set(self, tag: str, digest: Digest, *, only_new: bool) -> bool:
        if self.is_immutable(tag):
            return await self._set_immutable(tag, digest, only_new=only_new)
        await write_link(self.driver, layout.tag_index(self.name, tag, digest), digest)
        current = layout.tag_current(self.name, tag)
        if not only_new:
            await write_link(self.driver, current, digest)
            return True
        return await self._create(tag, digest)

    async def _create(self, tag: str, digest: Digest) -> bool:
        current = layout.tag_current(self.name, tag)
        try:
            await self.driver.create(current, str(digest).encode("ascii"))
        except (PathExists, MethodUnsupported):
            # A torn link counts as no tag at all. A store without conditional writes is looked at
            # first, and only requests to this process are kept from coming between.
            if await read_link(self.driver, current) is not None:
                return False
            await write_link(self.driver, current, digest)
        return True

    async def _set_immutable(self, tag: str, digest: Digest, *, only_new: bool) -> bool:
        # Another machine may set it at the same time, and one of the two stays.
        await write_link(self.driver, layout.tag_index(self.name, tag, digest), digest)
        if await self._create(tag, digest):
            return True
        await self.check_may_set(tag, digest)
        return not only_new

    @translate_storage_errors
    async def delete(self, tag: str) -> None:
        """Remove a tag, and what it once named.

        :raises RegistryError: MANIFEST_UNKNOWN if there is no such tag, DENIED if it is immutable.
        """
        if self.is_immutable(tag) and await self.resolve(tag) is not None:
            raise immutable_error(tag)
        if not await self.remove(tag):
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"tag": tag})

    @translate_storage_errors
    async def delete_if_unchanged(self, tag: str, digest: Digest, pushed: float) -> bool:
        """Remove a tag if it still is what it was found to be; return whether that is done.

        :param digest: what it named.
        :param pushed: when it was set to that, in seconds since the epoch by the store's clock.
        """
        async with self.lock(tag):
            if await self.pushed_at(tag) != pushed or await self.resolve(tag) != digest:
                return False
            return await self.remove(tag)

    @translate_storage_errors
    async def pushed_at(self, tag: str) -> float | None:
        """When a tag was set last, in seconds since the epoch by the store's clock.

        None if there is no such tag, or if the store does not tell.
        """
        try:
            entry = await self.driver.stat(layout.tag_current(self.name, tag))
        except PathNotFound:
            return None
        return None if entry.modified is None else entry.modified / 1e9

    @translate_storage_errors
    async def check_may_delete_manifest(self, digest: Digest) -> None:
        """Refuse to remove a manifest that an immutable tag names.

        :raises RegistryError: DENIED.
        """
        if not self.has_immutable:
            return
        async for names in self._pages("", layout.CURRENT_LINK):
            kept = list(filter(self.is_immutable, names))
            paths = [layout.tag_current(self.name, tag) for tag in kept]
            for tag in compress(kept, await match_links(self.bulk, digest, paths)):
                raise immutable_error(tag)

    @translate_storage_errors
    async def check_may_delete_all(self) -> None:
        """Refuse to remove all tags if one of them is immutable.

        :raises RegistryError: DENIED.
        """
        if self.has_immutable:
            async for names in self._pages("", layout.CURRENT_LINK):
                for tag in filter(self.is_immutable, names):
                    raise immutable_error(tag)

    async def delete_all(self) -> AsyncIterator[int]:
        """Remove all tags, and folders that look like one; yield how many, again and again.

        :raises RegistryError: DENIED at an immutable one.
        """
        async for names in self._pages("", ""):
            yield await self._delete_many(names)

    @translate_storage_errors
    async def _delete_many(self, tags: Sequence[str]) -> int:
        async def remove(tag: str) -> bool:
            async with self.lock(tag):
                if self.is_immutable(tag) and await self.resolve(tag) is not None:
                    raise immutable_error(tag)
                return await self.remove(tag)

        return sum(await map_concurrently(remove, tags))

    @translate_storage_errors
    async def delete_tags_of(self, digest: Digest, *, indexed: bool = False) -> list[str]:
        """Remove every tag that names a manifest, and return them.

        :param indexed: look only at tags that any registry has set to it. One that moves a tag
            writes the index first; so this finds all that were moved since the last look, and
            reads no other tag's link.
        """

        async def remove(tag: str) -> bool:
            async with self.lock(tag):
                # A push may have moved it on meanwhile.
                return await self.resolve(tag) == digest and await self.remove(tag)

        removed: list[str] = []
        async for names in self._pages("", layout.index(digest) if indexed else ""):
            paths = [layout.tag_current(self.name, tag) for tag in names]
            linked = await match_links(self.bulk, digest, paths)
            found = list(compress(names, linked))
            removed += compress(found, await map_concurrently(remove, found))
        return removed

    async def pages(self, after: str = "") -> AsyncIterator[list[str]]:
        """All tags in the order of their code points, in lists of bounded length.

        :param after: only tags greater than this.
        """
        async for names in self._pages(after, layout.CURRENT_LINK):
            yield names

    async def page(self, after: str, limit: int) -> tuple[list[str], bool]:
        """One page of tags, and whether there are more.

        :param after: only tags greater than this; it need not be one.
        :param limit: how many; a folder with no link, or an empty one, is no tag.
        """
        return await self._page(after, limit, layout.CURRENT_LINK)

    async def _pages(self, after: str, holding: str) -> AsyncIterator[list[str]]:
        while True:
            names, more = await self._page(after, _PAGE_ENTRIES, holding)
            if names:
                yield names
                after = names[-1]
            if not more:
                return

    @translate_storage_errors
    async def _page(self, after: str, limit: int, holding: str) -> tuple[list[str], bool]:
        """A page of the tags whose folder holds something, such as a link with bytes.

        A link without any is what a crash of a registry that does not sync leaves.
        """
        names: list[str] = []
        while len(names) <= limit:
            # One more than asked for tells whether there are more.
            wanted = limit + 1 - len(names)
            try:
                found = await self.bulk.list_folders(layout.tags(self.name), after, wanted, holding)
            except PathNotFound:
                break
            names += filter(is_tag, found)
            if len(found) < wanted:
                break
            after = found[-1]
        return names[:limit], len(names) > limit

    async def remove(self, tag: str) -> bool:
        """Remove a tag, whatever it is, and return whether it was there; others may move it."""
        try:
            await self.deleter.delete_tag(self.name, tag)
        except PathNotFound:
            return False
        self.publish_event("delete", "tag", None, tag=tag)
        return True
