"""Bounded concurrency, keyed locks and rate limits for coroutines."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    FirstError,
    gatherResults,
)
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from twisted.internet.interfaces import IReactorTime

_T = TypeVar("_T")
_A = TypeVar("_A")

#: Calls to the store at the same time for one request.
MAX_CONCURRENT = 16
#: Items of :func:`map_in_batches` in memory at the same time; about 2 KiB each.
_BATCH_ITEMS = 512


async def map_concurrently(
    function: Callable[[_A], Coroutine[Deferred[object], object, _T]],
    items: Iterable[_A],
    at_once: int = MAX_CONCURRENT,
) -> list[_T]:
    """Await ``function(item)`` for all items, and return the results in the order of the items.

    The first error cancels the other calls and is raised. Cancelling cancels all calls.

    :param at_once: calls at the same time, at most.
    """
    queue = _WorkQueue(function, list(items))
    workers = [
        Deferred.fromCoroutine(queue.run_worker()) for _ in range(min(at_once, len(queue.items)))
    ]
    # Cancelling begins with the call that started last.
    workers.reverse()
    gathered = gatherResults(workers, consumeErrors=True)

    def cancel(_: Deferred[list[None]]) -> None:
        # First: a worker that ignores the cancellation must not start the next item.
        queue.is_stopped = True
        gathered.cancel()

    done: Deferred[list[None]] = Deferred(cancel)
    gathered.chainDeferred(done)
    try:
        await done
    except FirstError as first:
        queue.is_stopped = True
        for worker in workers:
            worker.cancel()
        error = first.subFailure.value
        assert error is not None
        raise error from None
    if queue.is_stopped:
        raise CancelledError
    return [queue.results[number] for number in range(len(queue.items))]


@define(eq=False, repr=False)
class _WorkQueue(Generic[_A, _T]):
    """Items, and the workers that take them.

    Each worker takes the next item itself. If instead the end of one call started the next, a
    thousand calls that end at once would need a stack of a thousand calls.
    """

    function: Callable[[_A], Coroutine[Deferred[object], object, _T]]
    items: Sequence[_A]
    results: dict[int, _T] = field(init=False, factory=dict)
    is_stopped: bool = field(init=False, default=False)
    _next: int = field(init=False, default=0)

    async def run_worker(self) -> None:
        """Process items until none is left or a call has failed."""
        while not self.is_stopped and self._next < len(self.items):
            number = self._next
            self._next += 1
            try:
                self.results[number] = await self.function(self.items[number])
            except BaseException:
                self.is_stopped = True
                raise


async def map_in_batches(
    function: Callable[[_A], Coroutine[Deferred[object], object, _T]], items: Sequence[_A]
) -> list[_T]:
    """Call :func:`map_concurrently` for many items, a batch at a time, to bound the memory used."""
    results: list[_T] = []
    for start in range(0, len(items), _BATCH_ITEMS):
        results += await map_concurrently(function, items[start : start + _BATCH_ITEMS])
    return results


@define(eq=False, repr=False)
class KeyedLock:
    """A lock for each key. It exists only while a coroutine holds it or waits for it."""

    #: the lock of each key, and the number of its holders and waiters
    _locks: dict[object, tuple[DeferredLock, int]] = field(init=False, factory=dict)

    @property
    def key_count(self) -> int:
        """The number of keys that are held or waited for."""
        return len(self._locks)

    @asynccontextmanager
    async def lock(self, key: object) -> AsyncIterator[None]:
        """Exclude other coroutines with the same key inside the block."""
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


@define(eq=False, repr=False)
class RateLimiter:
    """Delays work that exceeds a rate.

    :ivar rate: the amount of work per second, in any unit; 0 means no limit.
    """

    clock: IReactorTime
    rate: float
    _next_free_at_s: float = field(init=False, default=0.0)

    async def throttle(self, amount: float) -> None:
        """Wait until the time for all earlier work has passed, then account for ``amount``."""
        if not self.rate:
            return
        now = self.clock.seconds()
        due = max(now, self._next_free_at_s)
        self._next_free_at_s = due + amount / self.rate
        if due > now:
            await deferLater(self.clock, due - now, lambda: None)
