"""Several questions to the store at once, and one change of a thing at a time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import (
    Deferred,
    DeferredLock,
    DeferredSemaphore,
    FirstError,
    gatherResults,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

T = TypeVar("T")
A = TypeVar("A")

#: Questions to the store under way at once for one request.
AT_ONCE = 16
#: Of many, so many wait for their turn: about 2 KiB each.
_STRETCH = 512


async def each(
    function: Callable[[A], Coroutine[Deferred[object], object, T]],
    items: Iterable[A],
    at_once: int = AT_ONCE,
) -> list[T]:
    """Await ``function(item)`` for all items, a few at a time, and return what they return.

    The first error cancels the rest and is raised. Cancelling cancels all.
    """
    semaphore = DeferredSemaphore(at_once)

    def start(item: A) -> Deferred[T]:
        return Deferred.fromCoroutine(function(item))

    waiting: list[Deferred[T]] = [semaphore.run(start, item) for item in items]
    # The last first, so that cancelling begins with those that still wait for their turn.
    waiting.reverse()
    try:
        results = await gatherResults(waiting, consumeErrors=True)
    except FirstError as first:
        for deferred in waiting:
            deferred.cancel()
        error = first.subFailure.value
        assert error is not None
        raise error from None
    return results[::-1]


async def each_of_many(
    function: Callable[[A], Coroutine[Deferred[object], object, T]], items: Sequence[A]
) -> list[T]:
    """The same as :func:`each`, for so many that their turns must not all wait in memory."""
    results: list[T] = []
    for start in range(0, len(items), _STRETCH):
        results += await each(function, items[start : start + _STRETCH])
    return results


class KeyedLock:
    """A lock for each key, that exists while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[object, tuple[DeferredLock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: object) -> AsyncIterator[None]:
        """Keep others with the same key waiting inside the block."""
        lock, users = self._locks.get(key, (None, 0))
        if lock is None:
            lock = DeferredLock()
        self._locks[key] = lock, users + 1
        try:
            await lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
