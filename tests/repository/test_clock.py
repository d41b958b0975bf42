"""The clock of the machine, and how its jumps change ages."""

from __future__ import annotations

import time

import pytest
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from zope.interface.verify import verifyObject

from tests.repository.clock_kit import JumpingClock
from tests.repository.worlds import World, done
from twisted_registry.repository.clock import (
    ClockJumps,
    MonotonicClock,
    seconds_since_boot,
    time_before,
)

DAY = 86_400.0


@pytest.fixture
def clock():
    return JumpingClock()


def test_monotonic_clock_reads_the_time_since_boot_and_calls_later():
    calls, called = Clock(), []
    clock = MonotonicClock(calls)
    verifyObject(IReactorTime, clock)
    before = seconds_since_boot()
    assert before <= clock.seconds() <= seconds_since_boot()
    call = clock.callLater(5, called.append, 1)
    assert clock.getDelayedCalls() == [call]
    calls.advance(5)
    assert called == [1]


def test_looping_call_continues_on_a_monotonic_clock():
    calls, called = Clock(), []
    loop = LoopingCall(called.append, 1)
    loop.clock = MonotonicClock(calls)
    loop.start(1000)
    calls.advance(1001)
    assert called == [1, 1]


def test_boot_clock_and_wall_clock_advance_together():
    jumps = ClockJumps(reactor.seconds)
    before_s = jumps.offset_s()
    time.sleep(0.05)
    assert abs(jumps.offset_s() - before_s) < 0.04


def test_slow_corrections_are_no_jumps(clock, log_lines):
    jumps = clock.jumps()
    for _ in range(100):
        clock.advance(60)
        clock.jump(1)
        jumps.look()
    assert jumps.count == 0
    assert jumps.forward_s(DAY) == 0
    assert log_lines == []


@pytest.mark.parametrize(("seconds", "forward_s"), [(10 * DAY, 10 * DAY), (-10 * DAY, 0)])
def test_jump_is_logged_once(clock, seconds, forward_s, log_lines):
    jumps = clock.jumps()
    clock.jump(seconds)
    for _ in range(3):
        clock.advance(10)
        jumps.look()
    assert jumps.count == 1
    (line,) = log_lines
    assert f"was set seconds={seconds:+.0f}" in line
    assert jumps.forward_s(60) == pytest.approx(forward_s)


def test_jumps_count_while_they_are_within_the_span(clock):
    jumps = clock.jumps()
    for days in (10, 1):
        clock.jump(days * DAY)
        assert jumps.forward_s(60) == pytest.approx(days * DAY)
        clock.advance(100)
    assert jumps.forward_s(60) == 0
    assert jumps.forward_s(150) == pytest.approx(DAY)
    assert jumps.forward_s(1000) == pytest.approx(11 * DAY)


def test_time_before_is_that_of_files_that_are_really_older():
    world = World()
    clock = JumpingClock(world.clock)
    jumps = clock.jumps()

    def stored():
        return done(time_before(world.driver, 3600, jumps))

    clock.advance(DAY)
    assert stored() == pytest.approx(clock.wall() - 3600)
    stamp = clock.wall()
    clock.jump(10 * DAY)
    clock.advance(3000)
    assert stored() < stamp
    clock.advance(601)
    assert stored() > stamp


def test_unwatched_clock_never_jumps():
    jumps = ClockJumps.unwatched()
    jumps.look()
    assert (jumps.count, jumps.forward_s(3600)) == (0, 0)
