"""A pool of threads of the driver's own.

Not the reactor's: that one resolves names, and a slow disk must not stop it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.threadpool import ThreadPool

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.base import ReactorBase

_T = TypeVar("_T")


class Threads:
    """Runs blocking calls on threads; the first call starts the pool, ``close`` ends it.

    :ivar reactor: where the answers arrive.
    :ivar maximum: how many calls run at a time; more wait their turn.
    :ivar name: what the threads are called.
    """

    def __init__(self, reactor: ReactorBase, maximum: int, name: str) -> None:
        self._reactor = reactor
        self._maximum = maximum
        self._name = name
        self._pool: ThreadPool | None = None
        self._trigger: Any = None
        self._running = 0
        self._closed = False
        self._closing: list[Deferred[None]] = []

    def run_blocking(
        self, work: Callable[..., _T], *arguments: Any, undo: Callable[[_T], object] | None = None
    ) -> Deferred[_T]:
        """Fire with what ``work(*arguments)`` returns.

        Cancelled before its turn, the call is dropped. Cancelled later, it runs to its end.

        :param undo: called on a thread with the result that a cancelled caller no longer takes,
            to free what it holds.
        :raises StorageError: if the pool is closed, and idle: what is under way may go on to
            its end.
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
            # Only now: whoever got the answer may have to go on, even while we are closing.
            self._running -= 1
            self._stop_if_idle()

        self._running += 1
        self._start().callInThreadWithCallback(
            lambda success, result: self._reactor.callFromThread(arrive, success, result), call
        )
        return answer

    def call_from_thread(self, what: Callable[[], object]) -> None:
        """Call a function on the reactor's thread; to be called on one of ours."""
        self._reactor.callFromThread(what)

    def close(self) -> Deferred[None]:
        """Fire once the calls under way have ended and the threads are gone."""
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
            # Threads that nobody stops keep the interpreter from ending.
            self._trigger = self._reactor.addSystemEventTrigger(
                "after", "shutdown", self._pool.stop
            )
        return self._pool

    def _stop_if_idle(self) -> None:
        if not self._closed or self._running:
            return
        pool, self._pool = self._pool, None
        if pool is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            pool.stop()
        waiting, self._closing = self._closing, []
        for one in waiting:
            one.callback(None)
