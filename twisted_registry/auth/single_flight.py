"""One piece of work that several wait for; it is given up when none of them does any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

T = TypeVar("T")


@define(eq=False, repr=False)
class SingleFlight(Generic[T]):
    """Hands the outcome of a Deferred to whoever waits.

    :ivar over: called when there is an outcome, or nobody waits any more: from then on nobody
        may join.
    """

    _on_end: Callable[[], object]
    _work: Deferred[None] | None = field(init=False, default=None)
    _waiters: list[Deferred[T]] = field(init=False, factory=list)

    def wait(self) -> Deferred[T]:
        """Fire with the outcome. Cancelling ends the work if nobody else waits."""
        waiting: Deferred[T] = Deferred(self._waiter_cancelled)
        self._waiters.append(waiting)
        return waiting

    def start(self, work: Deferred[T]) -> None:
        """Take the work, for the first who waits already."""
        self._work = work.addBoth(self._fire_waiters)

    def _fire_waiters(self, outcome: T | Failure) -> None:
        waiting, self._waiters = self._waiters, []
        if waiting:
            self._on_end()
        for one in waiting:
            one.callback(outcome)

    def _waiter_cancelled(self, waiting: Deferred[T]) -> None:
        self._waiters.remove(waiting)
        if not self._waiters and self._work is not None:
            self._on_end()
            self._work.cancel()
