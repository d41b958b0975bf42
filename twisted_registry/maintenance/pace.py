"""So many in a second, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


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
