"""A pool of threads for blocking calls.

The reactor's own pool is not used: it resolves host names, which a slow disk must not delay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.threadpool import ThreadPool

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.base import ReactorBase

_T = TypeVar("_T")


@frozen
class PoolUse:
    """How much of a pool is in use.

    :ivar name: name of the threads.
    :ivar maximum: calls that can run at a time.
    :ivar busy: calls that run.
    :ivar queued: calls that wait for a thread.
    """

    name: str
    maximum: int
    busy: int
    queued: int


class Threads:
    """Makes blocking calls on threads. The first call starts the pool, ``close`` ends it."""

    def __init__(self, reactor: ReactorBase, maximum: int, name: str) -> None:
        """Make a pool; no thread is started yet.

        :param reactor: where results are delivered.
        :param maximum: calls that run at a time; others wait.
        :param name: name of the threads.
        """
        self._reactor = reactor
        self._maximum = maximum
        self._name = name
        self._pool: ThreadPool | None = None
        self._trigger: Any = None
        self._running = 0
        self._closed = False
        self._closing: list[Deferred[None]] = []
        _pools.add(self)

    @property
    def use(self) -> PoolUse:
        """How much of the pool is in use; a call counts until its result is delivered."""
        busy = min(self._running, self._maximum)
        return PoolUse(self._name, self._maximum, busy, self._running - busy)

    def run_blocking(
        self, work: Callable[..., _T], *arguments: Any, undo: Callable[[_T], object] | None = None
    ) -> Deferred[_T]:
        """Fire with the result of ``work(*arguments)``.

        A call that is cancelled before it starts is dropped; later it runs to its end.

        :param undo: called on a thread with the result of a call that was cancelled, to free its
            resources.
        :raises StorageError: if the pool is closed and no call is running. While calls are running
            after ``close``, their callbacks may make further calls.
        """
        if self._closed and not self._running:
            return fail(StorageError("", "the driver is closed"))
        answer: Deferred[_T] = Deferred()

        def call() -> _T | None:
            return None if answer.called else work(*arguments)

        def arrive(success: bool, result: Any) -> None:  # noqa: FBT001
            if not answer.called:
                (answer.callback if success else answer.errback)(result)
            elif success and undo is not None and result is not None:
                self._start().callInThread(undo, result)
            # Not before: the callback may make another call although the pool is closing.
            self._running -= 1
            self._stop_if_idle()

        self._running += 1
        self._start().callInThreadWithCallback(
            lambda success, result: self._reactor.callFromThread(arrive, success, result), call
        )
        return answer

    def call_from_thread(self, what: Callable[[], object]) -> None:
        """Call a function on the reactor's thread, from a thread of this pool."""
        self._reactor.callFromThread(what)

    def close(self) -> Deferred[None]:
        """Fire once the running calls and the threads have ended."""
        self._closed = True
        if not self._running:
            self._stop_if_idle()
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._closing.append(waiting)
        return waiting

    def _start(self) -> ThreadPool:
        if self._pool is None:
            self._pool = ThreadPool(0, self._maximum, self._name)
            self._pool.start()
            # Threads that are not stopped would keep the process running.
            self._trigger = self._reactor.addSystemEventTrigger(
                "after", "shutdown", self._stop_pool
            )
        return self._pool

    def _stop_pool(self) -> None:
        """Stop the threads. The pool remains, so that no later call starts other threads."""
        self._trigger = None
        assert self._pool is not None
        self._pool.stop()

    def _stop_if_idle(self) -> None:
        if not self._closed or self._running:
            return
        if self._trigger is not None:  # otherwise the reactor was stopped, and the pool with it
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._stop_pool()
        waiting, self._closing = self._closing, []
        for one in waiting:
            one.callback(None)


#: The pools of this process, as ``threading`` knows its threads.
_pools: WeakSet[Threads] = WeakSet()


def enumerate_pools() -> list[PoolUse]:
    """Return how much of each pool of this process is in use, open or closed, in any order."""
    return [pool.use for pool in _pools]
