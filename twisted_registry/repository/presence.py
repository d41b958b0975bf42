"""Is it here? The one place that answers.

HEAD and GET, mounts, commits and the references of a manifest all ask here. A blob is here if
the repository links it, its bytes are there, and the gate admits it. Each answer looks at the
store: a blob that is gone is gone for the next request, so that the next push repairs it.

The gate hears of a pull, but has no say in it: nobody leaves out a push for having pulled, and what
is on a collector's list may be needed all the same, by a manifest that another process has taken
since. It will come off the list, or was condemned by a collector that died.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.repository import layout
from twisted_registry.repository.interfaces import IPresenceGate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.cache import CachedManifest, MetadataCache
    from twisted_registry.repository.recall import Recall
    from twisted_registry.storage.interfaces import IReader


@implementer(IPresenceGate)
class NullGate:
    """No collector: whatever is stored may be called present."""

    def may_report_present(self, repository: str | None, digest: Digest) -> bool:  # noqa: ARG002
        """Yes."""
        return True

    def wait_until_unlisted(
        self,
        repository: str,  # noqa: ARG002
        digests: Iterable[Digest],  # noqa: ARG002
    ) -> Deferred[None]:
        """At once."""
        return succeed(None)

    def protect_push(
        self,
        repository: str,  # noqa: ARG002
        digest: Digest,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """Nothing is ever removed."""
        return nullcontext()

    def find_listed(
        self,
        repository: str,  # noqa: ARG002
        digests: Iterable[Digest],  # noqa: ARG002
    ) -> Deferred[Sequence[Digest]]:
        """None."""
        return succeed(())


class Presence:
    """Answers for all repositories of a store.

    :ivar recall: brings back what a push needs, if there is a trash.
    """

    def __init__(
        self, cache: MetadataCache, gate: IPresenceGate | None = None, recall: Recall | None = None
    ) -> None:
        self.cache = cache
        self.gate = NullGate() if gate is None else gate
        self.recall = recall

    async def blob_size(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob that the repository holds, or None."""
        link = layout.layer_link(repository, digest)
        return await self._linked(repository, link, digest, self.cache.blob_size)

    async def size_for_pull(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob, for a pull: it may be remembered, the link never is."""
        link = layout.layer_link(repository, digest)
        return await self._linked(repository, link, digest, self.cache.cached_size, pull=True)

    async def open_blob(self, repository: str, digest: Digest) -> IReader | None:
        """A blob that the repository holds, open to be read to its end, or None."""
        reader = self.cache.reopen_blob(repository, digest)
        if reader is None:
            reader = await self._open(repository, digest)
            if reader is None:
                return None
            self.cache.remember_opened_blob(repository, digest)
        gate_answered = False
        try:
            answer = self.gate.may_report_present(repository, digest)
            if not isinstance(answer, bool):
                await answer
            gate_answered = True
        finally:
            if not gate_answered:
                reader.close()
        return reader

    async def manifest_size(self, repository: str, digest: Digest) -> int | None:
        """The size of a manifest that the repository holds, or None."""
        link = layout.revision_link(repository, digest)
        return await self._linked(repository, link, digest, self.cache.blob_size)

    async def cached_pull(
        self, repository: str, reference: Digest | str, *, is_query: bool = False
    ) -> CachedManifest | None:
        """The manifest that a pull of ``reference`` found before and would find again.

        None says nothing: look it up.

        :param asked: see :meth:`content`.
        """
        content = self.cache.cached_pull(repository, reference)
        if content is None or content.stored_manifest is None:
            return None
        answer = self.gate.may_report_present(repository, content.stored_manifest.digest)
        return content if answer is True or await _maybe_await(answer) or not is_query else None

    async def manifest_content(
        self, repository: str, digest: Digest, *, is_query: bool = False
    ) -> CachedManifest | None:
        """The bytes of a manifest that the repository holds, or None if it has none or bad ones.

        :param asked: whether this is no pull, but a question, upon which a push may be left out.
        """
        if await self.cache.read_link(layout.revision_link(repository, digest)) != digest:
            return None
        content = await self.cache.read_manifest(digest)
        if content is None:
            return None
        admitted = await _maybe_await(self.gate.may_report_present(repository, digest))
        return content if admitted or not is_query else None

    async def size_in_any_repository(self, digest: Digest) -> int | None:
        """The size of a blob that the store holds, whichever repository links it, or None."""
        size = await self.cache.blob_size(digest)
        if size is None or not await _maybe_await(self.gate.may_report_present(None, digest)):
            return None
        return size

    async def _open(self, repository: str, digest: Digest) -> IReader | None:
        link = layout.layer_link(repository, digest)
        if not self.cache.was_verified(digest):
            linked = await self.cache.read_link(link) == digest
            return await self.cache.open_blob(digest) if linked else None
        # From afar each question takes long, and the bytes are likely to be wanted: ask both.
        opening = Deferred.fromCoroutine(self.cache.open_blob(digest))
        linked = False
        try:
            linked = await self.cache.read_link(link) == digest
        finally:
            if not linked:
                opening.addCallbacks(_close, lambda _: None)
                opening.cancel()
        return await opening if linked else None

    async def _linked(
        self,
        repository: str,
        link: str,
        digest: Digest,
        size_of: Callable[[Digest], Coroutine[Deferred[object], object, int | None]],
        *,
        pull: bool = False,
    ) -> int | None:
        # The link's name already says the digest; reading it tells a sound link from an empty
        # one that a crash left.
        if await self.cache.read_link(link) != digest:
            return None
        size = await size_of(digest)
        if size is None:
            return None
        admitted = await _maybe_await(self.gate.may_report_present(repository, digest))
        return size if admitted or pull else None


def _close(reader: IReader | None) -> None:
    if reader is not None:
        reader.close()


async def _maybe_await(answer: bool | Deferred[bool]) -> bool:  # noqa: FBT001
    """What a gate answers, sooner or later."""
    return answer if isinstance(answer, bool) else await answer
