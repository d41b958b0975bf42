"""Tags: names that move from manifest to manifest (distribution specification, "Listing Tags")."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import compress
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_folders
from twisted_registry.repository.links import match_links, read_link, write_link
from twisted_registry.repository.policy import immutable_error
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.context import StoreContext
    from twisted_registry.repository.interfaces import EventPublisher


@define(eq=False, repr=False)
class Tags:
    """The tags of one repository."""

    store: StoreContext
    name: str
    publish_event: EventPublisher

    @property
    def has_immutable(self) -> bool:
        """Whether a tag of this repository can be immutable."""
        return any(self.name in selector.repositories for selector in self.store.policy.immutable)

    def is_immutable(self, tag: str) -> bool:
        """Return whether a tag is neither moved nor deleted once it exists."""
        return any(selector.matches(self.name, tag) for selector in self.store.policy.immutable)

    @translate_storage_errors
    async def check_may_set(self, tag: str, digest: Digest) -> None:
        """Check that a tag may name a manifest.

        :raises RegistryError: DENIED if it is immutable and names another.
        """
        if self.is_immutable(tag) and await self.resolve(tag) not in (None, digest):
            raise immutable_error(tag)

    @asynccontextmanager
    async def lock(self, tag: str) -> AsyncIterator[None]:
        """Exclude other requests on this host between reading a tag and changing it.

        Requests that set a tag without reading it use it as well: otherwise a delete by digest
        could delete a tag that was set meanwhile.
        """
        async with self.store.locks.lock(("tag", self.name, tag)):
            release = await self.store.host_lock.lock(f"{self.name}:{tag}")
            try:
                yield
            finally:
                release()

    @translate_storage_errors
    async def resolve(self, tag: str, *, is_pull: bool = False) -> Digest | None:
        """Return the digest that a tag names, or None if there is no such tag.

        :param is_pull: whether a damaged link is an error: UNAVAILABLE.
        """
        link = layout.tag_current_link(self.name, tag)
        return await self.store.cache.read_link(link, strict=is_pull)

    @translate_storage_errors
    async def set(self, tag: str, digest: Digest, *, only_new: bool = False) -> bool:
        """Make a tag name a manifest.

        :param only_new: do not change a tag that exists.
        :returns: whether the tag names the manifest now; False only with ``only_new``.
        :raises RegistryError: DENIED if it is immutable and names another.
        """
        if not self.store.deleter.keeps_deleted:
            return await self._set(tag, digest, only_new=only_new)
        before = await self.resolve(tag)
        done = await self._set(tag, digest, only_new=only_new)
        if done and before != digest:
            await self.store.deleter.record_tag_change(self.name, tag, before, digest)
        return done

    async def _set(self, tag: str, digest: Digest, *, only_new: bool) -> bool:
        driver = self.store.driver
        await write_link(driver, layout.tag_index_link(self.name, tag, digest), digest)
        if self.is_immutable(tag):
            # If two machines set it at the same time, one of the two remains.
            if await self._create(tag, digest):
                return True
            await self.check_may_set(tag, digest)
            return not only_new
        if only_new:
            return await self._create(tag, digest)
        await write_link(driver, layout.tag_current_link(self.name, tag), digest)
        return True

    async def _create(self, tag: str, digest: Digest) -> bool:
        driver, current = self.store.driver, layout.tag_current_link(self.name, tag)
        try:
            await driver.create(current, str(digest).encode("ascii"))
        except (PathExists, MethodUnsupported):
            # A torn link counts as no tag. On a store without conditional writes, only requests on
            # this host are excluded between the read and the write.
            if await read_link(driver, current) is not None:
                return False
            await write_link(driver, current, digest)
        return True

    @translate_storage_errors
    async def delete(self, tag: str) -> None:
        """Delete a tag, and its history of digests.

        :raises RegistryError: MANIFEST_UNKNOWN if there is no such tag, DENIED if it is immutable.
        """
        if self.is_immutable(tag) and await self.resolve(tag) is not None:
            raise immutable_error(tag)
        if not await self.remove(tag):
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"tag": tag})

    @translate_storage_errors
    async def delete_if_unchanged(self, tag: str, digest: Digest, pushed: float) -> bool:
        """Delete a tag unless it was set since; return whether it was deleted.

        :param digest: the digest that it named.
        :param pushed: when it was set, in seconds since the epoch by the store's clock.
        """
        async with self.lock(tag):
            if await self.pushed_at(tag) != pushed or await self.resolve(tag) != digest:
                return False
            return await self.remove(tag)

    @translate_storage_errors
    async def pushed_at(self, tag: str) -> float | None:
        """Return when a tag was set last, in seconds since the epoch by the store's clock.

        :returns: None if there is no such tag, or if the store has no times.
        """
        try:
            return (
                await self.store.driver.stat(layout.tag_current_link(self.name, tag))
            ).modified_s
        except PathNotFound:
            return None

    @translate_storage_errors
    async def check_may_delete_manifest(self, digest: Digest) -> None:
        """Check that no immutable tag names a manifest.

        :raises RegistryError: DENIED.
        """
        if not self.has_immutable:
            return
        async for names in self.pages():
            immutable = list(filter(self.is_immutable, names))
            paths = [layout.tag_current_link(self.name, tag) for tag in immutable]
            for tag in compress(immutable, await match_links(self.store.bulk, digest, paths)):
                raise immutable_error(tag)

    @translate_storage_errors
    async def check_may_delete_all(self) -> None:
        """Check that no tag is immutable.

        :raises RegistryError: DENIED.
        """
        if self.has_immutable:
            async for names in self.pages():
                for tag in filter(self.is_immutable, names):
                    raise immutable_error(tag)

    async def delete_all(self) -> AsyncIterator[int]:
        """Delete all tags, and folders that look like one; yield counts of deleted tags.

        :raises RegistryError: DENIED at an immutable one.
        """
        async for names in self.pages(containing=""):
            yield await self._delete_many(names)

    @translate_storage_errors
    async def _delete_many(self, tags: Sequence[str]) -> int:
        async def delete(tag: str) -> bool:
            async with self.lock(tag):
                if self.is_immutable(tag) and await self.resolve(tag) is not None:
                    raise immutable_error(tag)
                return await self.remove(tag)

        return sum(await map_concurrently(delete, tags))

    @translate_storage_errors
    async def delete_tags_of(self, digest: Digest, *, indexed: bool = False) -> list[str]:
        """Delete every tag that names a manifest, and return them.

        :param indexed: look only at tags whose index says that they were set to it. A push that
            moves a tag writes the index first. So this finds all tags that were moved since the
            last look, without reading the link of every tag.
        """

        async def delete(tag: str) -> bool:
            async with self.lock(tag):
                # A push may have moved it meanwhile.
                return await self.resolve(tag) == digest and await self.remove(tag)

        deleted: list[str] = []
        async for names in self.pages(containing=layout.index_link(digest) if indexed else ""):
            paths = [layout.tag_current_link(self.name, tag) for tag in names]
            found = list(compress(names, await match_links(self.store.bulk, digest, paths)))
            deleted += compress(found, await map_concurrently(delete, found))
        return deleted

    async def pages(
        self, after: str = "", containing: str = layout.CURRENT_LINK
    ) -> AsyncIterator[list[str]]:
        """Yield all tags in the order of their code points, in lists of bounded length.

        :param after: yield only tags greater than this.
        :param containing: a path in the folder of each tag, where a file must be that is not empty.
            Without it, folders that only look like a tag are yielded too.
        """
        folder = layout.tags_folder(self.name)
        async for names in iterate_folders(self.store.bulk, folder, after, containing):
            yield list(filter(is_tag, names))

    @translate_storage_errors
    async def page(self, after: str, limit: int) -> tuple[list[str], bool]:
        """Return one page of tags, and whether there are more.

        A folder without a link, or with an empty one, is not a tag: a crash of a registry that does
        not sync leaves them.

        :param after: return only tags greater than this; it need not exist.
        :param limit: the number of tags, at most.
        """
        names: list[str] = []
        while len(names) <= limit:
            # One more than the limit tells whether there are more.
            missing = limit + 1 - len(names)
            try:
                found = await self.store.bulk.list_folders(
                    layout.tags_folder(self.name), after, missing, layout.CURRENT_LINK
                )
            except PathNotFound:
                break
            names += filter(is_tag, found)
            if len(found) < missing:
                break
            after = found[-1]
        return names[:limit], len(names) > limit

    async def remove(self, tag: str) -> bool:
        """Delete a tag without further checks, and return whether it existed."""
        deleted = await self.store.deleter.delete_tag(self.name, tag)
        if deleted:
            self.publish_event("delete", "tag", None, tag=tag)
        return deleted
