"""A reactor on a thread, for code without one.

:class:`BackgroundReactor` makes a new reactor, which is not that of ``twisted.internet.reactor``. A
reactor can run only once, and only one can be installed; but the registry takes its reactor as an
argument and never uses the installed one. So a program can have any number of them, one after the
other and at once, beside an installed reactor that runs or does not run, and each one ends
completely: its thread, its descriptors and its delayed calls.

The thread is a daemon, as are those that it starts: a registry that was not stopped does not keep
the interpreter from exiting.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar, overload

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.pollreactor import PollReactor
from twisted.python import threadable
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.defer import Deferred

_T = TypeVar("_T")


class WouldDeadlock(RuntimeError):
    """A blocking call was made on the thread of the reactor that would have to answer it."""


class ReactorStopped(RuntimeError):
    """A call was made to a reactor that does not run, or that stopped during the call."""


class ReactorThread:
    """Calls functions on the thread of a reactor, and waits for their results.

    :ivar reactor: the reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def is_current(self) -> bool:
        """Whether the caller is on the thread of the reactor."""
        return bool(threadable.isInIOThread())

    def is_running(self) -> bool:
        """Whether the reactor accepts calls."""
        return bool(self.reactor.running)

    @overload
    def call(
        self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any, **keywords: Any
    ) -> _T: ...
    @overload
    def call(
        self, function: Callable[..., Deferred[_T]], *arguments: Any, **keywords: Any
    ) -> _T: ...
    @overload
    def call(self, function: Callable[..., _T], *arguments: Any, **keywords: Any) -> _T: ...

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a function on the reactor's thread, and return its result.

        :param function: a result that is a coroutine or a Deferred is awaited there.
        :raises WouldDeadlock: on the reactor's own thread.
        :raises ReactorStopped: if the reactor does not run, or stops before there is a result.
        :raises Exception: what the function raised.
        """
        if self.is_current():
            raise WouldDeadlock(
                "a blocking call on the reactor's thread would wait for itself forever; here, use"
                " AsyncRegistry(reactor) and await its methods, or make the call on another thread"
                " (twisted.internet.threads.deferToThread)"
            )
        future: Future[Any] = Future()
        with self._lock:
            if not self.is_running():
                raise ReactorStopped("the reactor does not run")
            self._pending.add(future)

        def succeeded(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        def failed(failure: Failure) -> None:
            if not future.done():
                future.set_exception(failure.value)

        def run() -> None:
            maybeDeferred(function, *arguments, **keywords).addCallbacks(succeeded, failed)

        try:
            self.reactor.callFromThread(run)
            return future.result()
        finally:
            with self._lock:
                self._pending.discard(future)

    def fail_pending(self) -> None:
        """Fail the calls that wait, after the reactor has stopped."""
        with self._lock:
            for future in list(self._pending):
                if not future.done():
                    future.set_exception(ReactorStopped("the reactor stopped during the call"))


class BackgroundReactor(ReactorThread):
    """A new reactor on a new thread."""

    def __init__(self, name: str) -> None:
        """Start the reactor; it runs when this returns.

        :param name: the name of the thread.
        """
        super().__init__(PollReactor())
        self._accepts = False
        ready = threading.Event()
        io_thread = threadable.ioThread

        def started() -> None:
            # A reactor that starts makes its thread the one of isInIOThread(), which belongs to the
            # installed reactor.
            threadable.ioThread = io_thread
            self._accepts = True
            ready.set()

        self.reactor.callWhenRunning(started)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        ready.wait()

    def is_current(self) -> bool:
        """Whether the caller is on the thread of the reactor."""
        return threading.current_thread() is self._thread

    def is_running(self) -> bool:
        """Whether the reactor accepts calls."""
        return self._accepts

    def stop(self) -> None:
        """Stop the reactor, and wait for its thread; does nothing if it has stopped."""
        self.stop_soon()
        if not self.is_current():
            self._thread.join()

    def stop_soon(self) -> None:
        """Stop the reactor without waiting for its thread."""
        with self._lock:
            accepts, self._accepts = self._accepts, False
        if accepts:
            self.reactor.callFromThread(self.reactor.stop)

    def _run(self) -> None:
        self.reactor.run(installSignalHandlers=False)
        # The reactor keeps the pipe that wakes it for another run, which cannot be.
        self.reactor.waker.connectionLost(Failure(ConnectionDone()))
        self.fail_pending()
