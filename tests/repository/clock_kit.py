"""A clock that can be set, beside one that cannot."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.task import Clock

from twisted_registry.repository.clock import ClockJumps


@define(eq=False)
class _Elapsing:
    jumping: JumpingClock

    def seconds(self):
        return self.jumping.elapsed()

    def callLater(self, delay, function, *args, **kwargs):
        return self.jumping.clock.callLater(delay, function, *args, **kwargs)


@define(eq=False)
class JumpingClock:
    """The wall clock of a test, which stamps files, and the time that has really passed."""

    clock: Clock = field(factory=Clock)
    set_s: float = 0.0

    def wall(self):
        return self.clock.seconds()

    def elapsed(self):
        return self.clock.seconds() - self.set_s

    @property
    def elapsing(self):
        """The time that has really passed, with calls."""
        return _Elapsing(self)

    def advance(self, seconds):
        self.clock.advance(seconds)

    def jump(self, seconds):
        """Set the wall clock; pending calls are not made earlier or later."""
        self.set_s += seconds
        for call in self.clock.getDelayedCalls():
            call.delay(seconds)
        self.clock.rightNow += seconds

    def jumps(self):
        return ClockJumps(self.wall, self.elapsed)
