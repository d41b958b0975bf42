"""Run a registry, a worker, or one command on a reactor, without twistd.

This module and :mod:`twisted_registry.tap` are the only ones that import the global reactor.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import define, field
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner

from twisted_registry.app.gc_freeze import freeze_imports
from twisted_registry.frame.errors import CommandFailed
from twisted_registry.logs.lines import make_observer
from twisted_registry.oci.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.python.failure import Failure

    from twisted_registry.config.loading import LoadedConfiguration

T = TypeVar("T")


def serve(loaded: LoadedConfiguration, reactor: Any = default_reactor) -> int:
    """Serve until a signal stops the reactor.

    :returns: the exit status: 1 if the registry could not start.
    """
    with freeze_imports():
        from twisted_registry.app.process import serve_until_stopped  # noqa: PLC0415
    return serve_until_stopped(loaded, reactor)


def run_worker_process(reactor: Any = default_reactor) -> int:
    """Serve as a worker of the first process.

    :returns: the exit status.
    """
    with freeze_imports():
        from twisted_registry.app.worker import run_worker  # noqa: PLC0415
    return run_worker(reactor)


@define(eq=False)
class _RunOnce(Generic[T]):
    """Runs a coroutine on a reactor, and stops the reactor when it ends."""

    work: Callable[[Any], Coroutine[Any, Any, T]]
    reactor: Any
    results: list[T] = field(init=False, factory=list)
    failure: Failure | None = field(init=False, default=None)
    _running: Deferred[None] | None = field(init=False, default=None)

    def start(self) -> None:
        running = Deferred.fromCoroutine(self.work(self.reactor))
        self._running = running.addCallbacks(self.results.append, self._failed).addBoth(self._ended)

    def stop(self) -> Deferred[None] | None:
        if self._running is not None:
            self._running.cancel()
        return self._running

    def _failed(self, failure: Failure) -> None:
        self.failure = failure

    def _ended(self, _: None) -> None:
        # The reactor may be stopping already, because of a signal.
        with suppress(ReactorNotRunning):
            self.reactor.stop()


def run_once(work: Callable[[Any], Coroutine[Any, Any, T]], reactor: Any = default_reactor) -> T:
    """Run the reactor until a coroutine ends, or until a signal cancels it.

    Warnings are logged to standard error. So is a failure: as one line for an interrupt, a
    :class:`~twisted_registry.frame.errors.CommandFailed` or a
    :class:`~twisted_registry.oci.errors.RegistryError`, otherwise as a traceback.

    :param work: returns the coroutine, given the reactor.
    :returns: the result of the coroutine.
    :raises SystemExit: with status 1 if it failed, or 2 for wrong usage.
    :raises OSError: if the coroutine raised it, as for output that nobody reads.
    """
    observer = make_observer(sys.stderr, "warn")
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    running = _RunOnce(work, reactor)
    reactor.callWhenRunning(running.start)
    reactor.addSystemEventTrigger("before", "shutdown", running.stop)
    reactor.run()
    if running.results:
        return running.results[0]
    failure, status = running.failure, 1
    if failure is None or failure.check(CancelledError):
        sys.stderr.write("twisted-registry: interrupted; it is safe to run the command again\n")
    elif failure.check(CommandFailed, RegistryError):
        sys.stderr.write(f"twisted-registry: {failure.value}\n")
        status = getattr(failure.value, "exit_status", status)
    elif failure.check(OSError):
        # Of the output, or of a file that the command was given; the command line reports it.
        failure.raiseException()
    else:
        failure.printTraceback(sys.stderr)
    raise SystemExit(status)
