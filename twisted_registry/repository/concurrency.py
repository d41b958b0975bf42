"""Several questions to the store at once, and one change of a thing at a time.

So many in a second, and no more.
"""

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

T = TypeVar("T")
A = TypeVar("A")

#: Questions to the store under way at once for one request.
MAX_CONCURRENT = 16
#: Of many, so many wait for their turn: about 2 KiB each.
_BATCH_ITEMS = 512


async def map_concurrently(
    function: Callable[[A], Coroutine[Deferred[object], object, T]],
    items: Iterable[A],
    at_once: int = MAX_CONCURRENT,
) -> list[T]:
    """Await ``function(item)`` for all items, a few at a time, and return what they return.

    The first error cancels the rest and is raised. Cancelling cancels all.
    """
    queue = _WorkQueue(function, list(items))
    working = [
        Deferred.fromCoroutine(queue.run_worker()) for _ in range(min(at_once, len(queue.items)))
    ]
    # The last first, so that cancelling begins with those that still wait for their turn.
    working.reverse()
    gathered = gatherResults(working, consumeErrors=True)

    def stop(_: Deferred[list[None]]) -> None:
        # Before they are cancelled: who takes no notice of that must not go on to the next item.
        queue.stopped = True
        gathered.cancel()

    done: Deferred[list[None]] = Deferred(stop)
    gathered.chainDeferred(done)
    try:
        await done
    except FirstError as first:
        queue.stopped = True
        for deferred in working:
            deferred.cancel()
        error = first.subFailure.value
        assert error is not None
        raise error from None
    if queue.stopped:
        raise CancelledError
    return [queue.results[number] for number in range(len(queue.items))]


@define(eq=False)
class _WorkQueue(Generic[A, T]):
    """Items that wait for their turn.

    Each of those who take them goes on to the next by itself: were it begun by the end of another,
    a thousand that end at once would be a stack of a thousand.
    """

    function: Callable[[A], Coroutine[Deferred[object], object, T]]
    items: Sequence[A]
    results: dict[int, T] = field(init=False, factory=dict)
    stopped: bool = field(init=False, default=False)
    _next: int = field(init=False, default=0)

    async def run_worker(self) -> None:
        """Do one after another, until none is left or one has failed."""
        while not self.stopped and self._next < len(self.items):
            number = self._next
            self._next += 1
            try:
                self.results[number] = await self.function(self.items[number])
            except BaseException:
                self.stopped = True
                raise


async def map_in_batches(
    function: Callable[[A], Coroutine[Deferred[object], object, T]], items: Sequence[A]
) -> list[T]:
    """Call :func:`map_concurrently` for many items, a batch at a time, to bound the memory used."""
    results: list[T] = []
    for start in range(0, len(items), _BATCH_ITEMS):
        results += await map_concurrently(function, items[start : start + _BATCH_ITEMS])
    return results


class KeyedLock:
    """A lock for each key, that exists while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[object, tuple[DeferredLock, int]] = {}

    @asynccontextmanager
    async def lock(self, key: object) -> AsyncIterator[None]:
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


@define(eq=False)
class RateLimiter:
    """Holds work up that goes too fast.

    :ivar rate: how much is let through in a second, in whatever is counted; 0 is no limit.
    """

    clock: IReactorTime
    rate: float
    _next_free_at_s: float = 0.0

    async def throttle(self, amount: float) -> None:
        """Wait until what was let through before is paid for; then let *amount* through."""
        if not self.rate:
            return
        now = self.clock.seconds()
        due = max(now, self._next_free_at_s)
        self._next_free_at_s = due + amount / self.rate
        if due > now:
            await deferLater(self.clock, due - now, lambda: None)
