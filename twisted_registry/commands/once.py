"""One piece of work on a reactor that runs for it alone."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner

from twisted_registry.commands.configured import print_error
from twisted_registry.errors import RegistryError
from twisted_registry.logs import make_observer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.python.failure import Failure

T = TypeVar("T")


class CommandFailed(Exception):
    """A command can not go on; the text is one line for whoever ran it."""


@define(eq=False)
class _RunOnce(Generic[T]):
    work: Callable[[], Coroutine[Any, Any, T]]
    reactor: Any
    results: list[T] = field(init=False, factory=list)
    failure: Failure | None = field(init=False, default=None)
    _running: Deferred[None] | None = field(init=False, default=None)

    def start(self) -> None:
        running = Deferred.fromCoroutine(self.work())
        self._running = running.addCallbacks(self.results.append, self._failed).addBoth(self._over)

    def stop(self) -> Deferred[None] | None:
        if self._running is not None:
            self._running.cancel()
        return self._running

    def _failed(self, failure: Failure) -> None:
        self.failure = failure

    def _over(self, _: None) -> None:
        # While it stops already, it must not be told to.
        with suppress(ReactorNotRunning):
            self.reactor.stop()


def run_once(work: Callable[[], Coroutine[Any, Any, T]], reactor: Any) -> T | None:
    """Run the reactor until *work* is done, or until a signal comes, which cancels it.

    Warnings are logged to standard error. What goes wrong is said there, too: in one line where
    it is a :class:`CommandFailed` or a :class:`~twisted_registry.errors.RegistryError`, and where
    it was interrupted; with a traceback where nobody thought of it.

    :returns: what *work* returned, which must not be None; None if it failed.
    """
    observer = make_observer(sys.stderr, "warn", "text", {})
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    running = _RunOnce(work, reactor)
    reactor.callWhenRunning(running.start)
    reactor.addSystemEventTrigger("before", "shutdown", running.stop)
    reactor.run()
    if running.results:
        return running.results[0]
    failure = running.failure
    if failure is None or failure.check(CancelledError):
        print_error("interrupted; nothing is lost, and it can be run again")
    elif failure.check(CommandFailed, RegistryError):
        print_error(str(failure.value))
    else:
        failure.printTraceback(sys.stderr)
    return None
