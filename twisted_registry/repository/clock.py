"""The monotonic clock, and the jumps of the clock that sets modification times.

Ages of files are differences of two readings of the store's clock. When somebody sets that clock
forward by ten days (NTP, a virtual machine that resumes, a mistake), everything that was stored
before looks ten days older than it is. :class:`ClockJumps` measures such jumps against a clock that
runs from the start of the machine, and :func:`time_before` corrects ages by them.

How long a process has waited is measured with :func:`monotonic_clock`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.repository.inventory import store_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Seconds by which the clock has to change at once. Smaller changes do not matter to any age.
_MIN_JUMP_S = 5.0
#: Jumps that are remembered. Of more, the oldest ages look greater than they are.
_MAX_JUMPS = 1000


class ClockWasSet(Exception):
    """The clock was set during a run that removes what is old, so that its ages are in doubt."""


def seconds_since_boot() -> float:
    """Return the seconds since the machine was started, with times of suspension if possible."""
    # Only Linux has it. Elsewhere a resumed machine looks like one whose clock was set.
    boot_clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_clock is None else time.clock_gettime(boot_clock)


@implementer(IReactorTime)
@define(eq=False, repr=False)
class MonotonicClock:
    """A reactor's clock whose time is never set.

    :ivar reactor: the reactor, which calls later.
    """

    reactor: IReactorTime

    def seconds(self) -> float:
        """Return the seconds since the machine was started."""
        return seconds_since_boot()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002 - the name of the interface
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """Call a function later, see :class:`twisted.internet.interfaces.IReactorTime`."""
        return self.reactor.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Return the pending calls of the reactor."""
        return self.reactor.getDelayedCalls()


def monotonic_clock(reactor: IReactorTime) -> IReactorTime:
    """Return a clock that nobody sets.

    :param reactor: a reactor, whose time is that of the machine; any other clock, such as that of a
        test, is returned as it is.
    """
    return MonotonicClock(reactor) if isinstance(reactor, ReactorBase) else reactor


@define(eq=False, repr=False)
class ClockJumps:
    """The jumps of this machine's clock since this object was made.

    It looks when it is asked; between two looks, jumps there and back cancel each other.

    :ivar wall: returns the time that may be set, in seconds since the epoch.
    :ivar elapsed: returns the time that nobody sets, in seconds.
    :ivar count: the number of jumps that were seen, in either direction.
    """

    wall: Callable[[], float]
    elapsed: Callable[[], float] = seconds_since_boot
    count: int = field(init=False, default=0)
    #: the difference of the two clocks at the last look
    _last_offset_s: float = field(init=False)
    #: when each jump forward was seen by ``elapsed``, and its size in seconds
    _forward: list[tuple[float, float]] = field(init=False, factory=list)

    @classmethod
    def unwatched(cls) -> ClockJumps:
        """Return an object that never sees a jump."""
        return cls(lambda: 0.0, lambda: 0.0)

    @_last_offset_s.default
    def offset_s(self) -> float:
        """Return the difference of the two clocks now, in seconds. Any thread may call it."""
        return self.wall() - self.elapsed()

    def look(self) -> None:
        """Look for a jump since the last look, and log it."""
        before_s, self._last_offset_s = self._last_offset_s, self.offset_s()
        jump_s = self._last_offset_s - before_s
        if abs(jump_s) < _MIN_JUMP_S:
            return
        self.count += 1
        log.warn(
            "the clock of this machine was set seconds={jump}; ages are corrected, and the next "
            "run of each maintenance task is skipped",
            jump=f"{jump_s:+.0f}",
        )
        if jump_s > 0:
            self._forward = [*self._forward, (self.elapsed(), jump_s)][-_MAX_JUMPS:]

    def check_unset(self, count: int) -> None:
        """Check that the clock was not set since :attr:`count` had a value.

        :raises ClockWasSet: if it was.
        """
        self.look()
        if self.count != count:
            raise ClockWasSet("the clock of this machine was set during the run")

    def forward_s(self, span_s: float) -> float:
        """Return the seconds by which the clock was set forward within the last ``span_s`` seconds.

        Jumps backward do not count: they make files look younger, which keeps them.
        """
        self.look()
        since = self.elapsed() - span_s
        return sum(jump_s for seen_at, jump_s in self._forward if seen_at >= since)


async def time_before(driver: IStorageDriver, age_s: float, jumps: ClockJumps) -> float:
    """Return the time of the store before which a file was stored that is older than an age.

    :param age_s: the age in seconds.
    :param jumps: what this process knows about the clock.
    :returns: seconds since the epoch, to be compared with modification times.
    :raises RegistryError: if the store fails.
    """
    now = await store_time(driver)
    return now - age_s - jumps.forward_s(age_s)
