"""The delay of the event loop."""

from __future__ import annotations

from twisted.internet.task import Clock

from twisted_registry.metrics.event_loop import MEASURE_INTERVAL_S, EventLoopMonitor


def test_a_late_call_is_measured():
    clock, delays = Clock(), []
    monitor = EventLoopMonitor(clock, delays.append)
    monitor.startService()
    clock.advance(MEASURE_INTERVAL_S)
    clock.advance(MEASURE_INTERVAL_S + 0.25)
    assert delays == [0.0, 0.25]
    monitor.stopService()
    assert clock.getDelayedCalls() == []


def test_a_clock_that_goes_back_is_no_delay():
    clock, delays = Clock(), []
    monitor = EventLoopMonitor(clock, delays.append)
    monitor.startService()
    (call,) = clock.getDelayedCalls()
    clock.rightNow -= 100
    call.func()
    monitor.stopService()
    assert delays == [0.0]
