"""Existence checks for blobs and manifests.

HEAD and GET, mounts, commits and the references of a manifest all use this module. A blob exists in
a repository if the repository links it, its bytes are in the store, and the gate admits it. Each
answer looks at the store: a blob that is gone is missing for the next request, so that the next
push repairs it. Only pulls of blobs may use what was read from a remote store a moment ago.

Pulls tell the gate, but ignore its verdict. A pull makes no client skip a push, and content on a
collector's list may still be needed, by a manifest that another process has accepted since. Then
it leaves the list, or the collector that listed it has died.

HEAD of a manifest by its digest precedes pushes with some clients and pulls with others. It waits
until the verdict is final. Deletes do not ask the gate.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.interfaces import IPresenceGate
from twisted_registry.repository.links import LinkDamaged
from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.cache import MetadataCache, StoredManifest
    from twisted_registry.repository.recent_links import RecentLinks
    from twisted_registry.repository.trash import Trash
    from twisted_registry.storage.interfaces import IReader


#: Seconds after which a client that was refused because of a collector should try again.
_RETRY_AFTER_S = 10


def content_unavailable(reason: str) -> RegistryError:
    """Return the error for a request that a collector has held up for too long.

    :param reason: for the message.
    """
    return RegistryError(
        ErrorCode.UNAVAILABLE,
        message=f"{reason}; try again",
        headers=(("Retry-After", str(_RETRY_AFTER_S)),),
    )


@implementer(IPresenceGate)
class NullGate:
    """A gate for stores without a collector: it admits everything."""

    def may_report_present(self, repository: str | None, digest: Digest) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def wait_until_unlisted(
        self,
        repository: str,  # noqa: ARG002
        digests: Iterable[Digest],  # noqa: ARG002
    ) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)

    def protect_push(
        self,
        repository: str,  # noqa: ARG002
        digest: Digest,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """Return a context manager that does nothing."""
        return nullcontext()

    def find_listed(
        self,
        repository: str,  # noqa: ARG002
        digests: Iterable[Digest],  # noqa: ARG002
    ) -> Deferred[Sequence[Digest]]:
        """Fire with no digests."""
        return succeed(())


@define(eq=False, repr=False)
class Presence:
    """Existence checks for all repositories of a store.

    :ivar gate: asked before content is reported present.
    :ivar trash: restores collected content that a push needs; None if there is no trash.
    :ivar recent_links: links to blobs that need not be read again before a pull; None reads each.
    """

    cache: MetadataCache
    gate: IPresenceGate = field(factory=NullGate)
    trash: Trash | None = None
    recent_links: RecentLinks | None = None

    async def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a blob of a repository in bytes, or None if it has none."""
        # The name of the link already contains the digest. Reading the link tells a valid one from
        # an empty one that a crash has left.
        if await self.cache.read_link(layout.layer_link(repository, digest)) != digest:
            return None
        return await self._admitted_size(repository, digest)

    async def manifest_size(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a manifest of a repository in bytes, or None if it has none."""
        if await self.cache.read_link(layout.revision_link(repository, digest)) != digest:
            return None
        return await self._admitted_size(repository, digest)

    async def manifests_exist(self, repository: str, digests: Sequence[Digest]) -> list[bool]:
        """Return which manifests a repository has, for a list.

        The gate is not asked: no client leaves out a push because of a list.
        """
        paths = [layout.revision_link(repository, digest) for digest in digests]
        links = await self.cache.read_links(paths)
        sizes = await map_concurrently(self.cache.blob_size, digests)
        return [
            link == digest and size is not None
            for digest, link, size in zip(digests, links, sizes, strict=True)
        ]

    async def has_blob(self, repository: str, digest: Digest) -> bool:
        """Return whether a repository has a blob, whatever a collector means to do with it."""
        return await self._is_stored(layout.layer_link(repository, digest), digest)

    async def has_manifest(self, repository: str, digest: Digest) -> bool:
        """Return whether a repository has a manifest, whatever a collector means to do with it."""
        return await self._is_stored(layout.revision_link(repository, digest), digest)

    async def size_in_any_repository(self, digest: Digest) -> int | None:
        """Return the size of a blob in the store, whichever repository links it, or None."""
        return await self._admitted_size(None, digest)

    async def size_for_pull(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a blob for a pull, or None if the repository has none.

        The size may be cached, see :class:`~.cache.IDescriptorCache`, and so may the link, see
        :class:`~.recent_links.RecentLinks`.

        :raises LinkDamaged: if it is unknown whether the repository has it.
        """
        if not await self._is_layer_linked(repository, digest):
            return None
        size = await self.cache.cached_size(digest)
        if size is not None:
            await self._is_admitted(repository, digest, is_query=False)
        return size

    async def open_blob(self, repository: str, digest: Digest) -> IReader | None:
        """Open a blob of a repository for a pull of all of it, or return None if it has none.

        :raises LinkDamaged: if it is unknown whether the repository has it.
        """
        reader = self.cache.reopen_blob(repository, digest)
        if reader is None:
            if not await self._is_layer_linked(repository, digest):
                return None
            reader = await self.cache.open_blob(digest)
            if reader is None:
                return None
            self.cache.remember_blob_pull(repository, digest)
        try:
            await self._is_admitted(repository, digest, is_query=False)
        except BaseException:
            reader.close()
            raise
        return reader

    async def cached_pull(
        self, repository: str, reference: Digest | str, *, is_query: bool = False
    ) -> StoredManifest | None:
        """Return the manifest that a pull would find if that is cached, else None.

        :param reference: a digest or a tag.
        :param is_query: see :meth:`manifest_content`.
        """
        manifest = self.cache.cached_pull(repository, reference)
        if manifest is None:
            return None
        admitted = await self._is_admitted(repository, manifest.digest, is_query=is_query)
        return manifest if admitted or not is_query else None

    async def manifest_content(
        self, repository: str, digest: Digest, *, is_query: bool = False, is_pull: bool = False
    ) -> StoredManifest | None:
        """Return a manifest of a repository, or None if it is missing or damaged.

        :param is_query: whether the client may skip a push if it exists. Then a manifest on a
            collector's list is neither present nor absent until the list is withdrawn.
        :param is_pull: whether a damaged link is an error.
        :raises LinkDamaged: if ``is_pull``, and it is unknown whether the repository has it.
        :raises RegistryError: UNAVAILABLE if that takes more than 20 seconds.
        """
        has_waited = False
        while True:
            link = layout.revision_link(repository, digest)
            if not await self._is_linked(link, digest, is_pull=is_pull):
                return None
            manifest = await self.cache.read_manifest(digest)
            if manifest is None:
                return None
            if await self._is_admitted(repository, digest, is_query=is_query) or not is_query:
                return manifest
            if has_waited:
                raise content_unavailable("this content is being removed")
            await self.gate.wait_until_unlisted(repository, [digest])
            has_waited = True

    async def _is_layer_linked(self, repository: str, digest: Digest) -> bool:
        """Return whether a pull may have a blob of a repository."""
        link = layout.layer_link(repository, digest)
        if self.recent_links is None:
            return await self._is_linked(link, digest)
        return await self.recent_links.is_valid(link, lambda: self._is_linked(link, digest))

    async def _is_linked(self, link: str, digest: Digest, *, is_pull: bool = True) -> bool:
        held = await self.cache.read_link(link, strict=is_pull)
        if held is not None and held != digest and is_pull:
            raise LinkDamaged(link, f"names {held}; push the same content again to repair it")
        return held == digest

    async def _is_stored(self, link: str, digest: Digest) -> bool:
        if await self.cache.read_link(link) != digest:
            return False
        return await self.cache.blob_size(digest) is not None

    async def _admitted_size(self, repository: str | None, digest: Digest) -> int | None:
        size = await self.cache.blob_size(digest)
        if size is None:
            return None
        return size if await self._is_admitted(repository, digest) else None

    async def _is_admitted(
        self, repository: str | None, digest: Digest, *, is_query: bool = True
    ) -> bool:
        """Ask the gate.

        A pull ignores the answer, so it does not fail if the gate cannot store a lease.
        """
        answer = self.gate.may_report_present(repository, digest)
        if isinstance(answer, bool):
            return answer
        try:
            return await answer
        except StorageError:
            if is_query:
                raise
            return True
