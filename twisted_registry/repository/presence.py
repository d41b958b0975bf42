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

    from twisted_registry.digest import Digest
    from twisted_registry.repository.recall import Recall
    from twisted_registry.repository.recent import Content, Recent
    from twisted_registry.storage.streams import IReader


@implementer(IPresenceGate)
class OpenGate:
    """No collector: whatever is stored may be called present."""

    def admits(self, repository: str | None, digest: Digest) -> bool:  # noqa: ARG002
        """Yes."""
        return True

    def passed(
        self,
        repository: str,  # noqa: ARG002
        digests: Iterable[Digest],  # noqa: ARG002
    ) -> Deferred[None]:
        """At once."""
        return succeed(None)

    def storing(
        self,
        repository: str,  # noqa: ARG002
        digest: Digest,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """Nothing is ever removed."""
        return nullcontext()

    def refused(
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
        self, recent: Recent, gate: IPresenceGate | None = None, recall: Recall | None = None
    ) -> None:
        self.recent = recent
        self.gate = OpenGate() if gate is None else gate
        self.recall = recall

    async def blob(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob that the repository holds, or None."""
        link = layout.layer_link(repository, digest)
        return await self._linked(repository, link, digest, self.recent.size)

    async def pullable(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob, for a pull: it may be remembered, the link never is."""
        link = layout.layer_link(repository, digest)
        return await self._linked(repository, link, digest, self.recent.known_size, pull=True)

    async def reader(self, repository: str, digest: Digest) -> IReader | None:
        """A blob that the repository holds, open to be read to its end, or None."""
        reader = self.recent.opened(repository, digest)
        if reader is None:
            reader = await self._open(repository, digest)
            if reader is None:
                return None
            self.recent.remember_opened(repository, digest)
        heard = False
        try:
            answer = self.gate.admits(repository, digest)
            if not isinstance(answer, bool):
                await answer
            heard = True
        finally:
            if not heard:
                reader.close()
        return reader

    async def manifest(self, repository: str, digest: Digest) -> int | None:
        """The size of a manifest that the repository holds, or None."""
        link = layout.revision_link(repository, digest)
        return await self._linked(repository, link, digest, self.recent.size)

    async def pulled(
        self, repository: str, reference: Digest | str, *, asked: bool = False
    ) -> Content | None:
        """The manifest that a pull of ``reference`` found before and would find again.

        None says nothing: look it up.

        :param asked: see :meth:`content`.
        """
        content = self.recent.pulled(repository, reference)
        if content is None or content.served is None:
            return None
        answer = self.gate.admits(repository, content.served.digest)
        return content if answer is True or await _waited_for(answer) or not asked else None

    async def content(
        self, repository: str, digest: Digest, *, asked: bool = False
    ) -> Content | None:
        """The bytes of a manifest that the repository holds, or None if it has none or bad ones.

        :param asked: whether this is no pull, but a question, upon which a push may be left out.
        """
        if await self.recent.link(layout.revision_link(repository, digest)) != digest:
            return None
        content = await self.recent.content(digest)
        if content is None:
            return None
        admitted = await _waited_for(self.gate.admits(repository, digest))
        return content if admitted or not asked else None

    async def anywhere(self, digest: Digest) -> int | None:
        """The size of a blob that the store holds, whichever repository links it, or None."""
        size = await self.recent.size(digest)
        if size is None or not await _waited_for(self.gate.admits(None, digest)):
            return None
        return size

    async def _open(self, repository: str, digest: Digest) -> IReader | None:
        link = layout.layer_link(repository, digest)
        if not self.recent.passed(digest):
            linked = await self.recent.link(link) == digest
            return await self.recent.reader(digest) if linked else None
        # From afar each question takes long, and the bytes are likely to be wanted: ask both.
        opening = Deferred.fromCoroutine(self.recent.reader(digest))
        linked = False
        try:
            linked = await self.recent.link(link) == digest
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
        if await self.recent.link(link) != digest:
            return None
        size = await size_of(digest)
        if size is None:
            return None
        admitted = await _waited_for(self.gate.admits(repository, digest))
        return size if admitted or pull else None


def _close(reader: IReader | None) -> None:
    if reader is not None:
        reader.close()


async def _waited_for(answer: bool | Deferred[bool]) -> bool:  # noqa: FBT001
    """What a gate answers, sooner or later."""
    return answer if isinstance(answer, bool) else await answer
