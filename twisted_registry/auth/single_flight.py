"""One operation with several waiters; it is cancelled when the last waiter is."""

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
    """Passes the result of one Deferred to several waiters.

    :ivar on_end: called when there is a result, or when the last waiter has been cancelled. From
        then on :meth:`wait` must not be called.
    """

    _on_end: Callable[[], object]
    _work: Deferred[None] | None = field(init=False, default=None)
    _waiters: list[Deferred[T]] = field(init=False, factory=list)

    def wait(self) -> Deferred[T]:
        """Fire with the result. Cancelling the last waiter cancels the operation."""
        waiter: Deferred[T] = Deferred(self._waiter_cancelled)
        self._waiters.append(waiter)
        return waiter

    def start(self, work: Deferred[T]) -> None:
        """Set the operation to wait for. Call :meth:`wait` for the first waiter before this."""
        self._work = work.addBoth(self._fire_waiters)

    def _fire_waiters(self, result: T | Failure) -> None:
        waiters, self._waiters = self._waiters, []
        if waiters:
            self._on_end()
        for waiter in waiters:
            waiter.callback(result)

    def _waiter_cancelled(self, waiter: Deferred[T]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters and self._work is not None:
            self._on_end()
            self._work.cancel()
