"""Hashing and parsing of manifests without blocking the reactor.

What is small is done at once. The rest is done on one thread, one manifest at a time: parsing holds
the interpreter's lock, so that a second thread would only delay the reactor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field

from twisted_registry.oci.document import MAX_BYTES_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from twisted_registry.oci.digest import Digest

_T = TypeVar("_T")

#: Bytes of manifests that are hashed and parsed at once: a few milliseconds at worst.
MAX_INLINE_BYTES = MAX_BYTES_AT_ONCE
#: Results of large manifests that are cached; the oldest one is evicted.
_MAX_RESULTS = 4096


@define(eq=False, repr=False)
class ManifestWorker:
    """Calls functions with the bytes of manifests.

    :ivar run_blocking: runs a function on a thread, one call at a time, as
        :meth:`~twisted_registry.storage.threads.Threads.run_blocking` of a pool of one; None calls
        every function at once, for commands and tests.
    """

    run_blocking: Callable[..., Deferred[Any]] | None = None
    #: Used on the thread only. What a function finds in the content of a digest never changes.
    _results: dict[tuple[Digest, Callable[..., Any]], Any] = field(init=False, factory=dict)

    async def run(self, size: int, work: Callable[..., _T], *arguments: Any) -> _T:
        """Return ``work(*arguments)``.

        A call that is cancelled before it has started is dropped.

        :param size: bytes of the manifests that it processes.
        """
        if size <= MAX_INLINE_BYTES or self.run_blocking is None:
            return work(*arguments)
        result: _T = await self.run_blocking(work, *arguments)
        return result

    async def find(self, digest: Digest, content: bytes, find: Callable[[bytes], _T]) -> _T | None:
        """Return what a function finds in a manifest; that of a large one is cached.

        Since one thread makes all calls, a manifest is parsed once, however many requests wait.

        :param find: returns something small that is not None.
        :returns: None if the content does not have the digest.
        """
        if len(content) <= MAX_INLINE_BYTES:
            return find(content) if digest.matches(content) else None
        return await self.run(len(content), self._find, digest, content, find)

    def _find(self, digest: Digest, content: bytes, find: Callable[[bytes], _T]) -> _T | None:
        if not digest.matches(content):
            return None
        found: _T | None = self._results.get((digest, find))
        if found is None:
            found = self._results[digest, find] = find(content)
            if len(self._results) > _MAX_RESULTS:
                del self._results[next(iter(self._results))]
        return found
