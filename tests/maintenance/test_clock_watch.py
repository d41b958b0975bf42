"""The thread that notices when the clock of the machine is set."""

from __future__ import annotations

from threading import Event, active_count

import pytest
from twisted.application.service import IService
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_registry.maintenance.clock_watch import ClockWatch
from twisted_registry.repository.clock import ClockJumps

HOUR = 3600.0


class ThreadedClock(Clock):
    """A reactor whose calls from threads a test makes."""

    def __init__(self):
        super().__init__()
        self.from_threads = []
        self.is_called = Event()

    def callFromThread(self, function, *arguments):
        self.from_threads.append((function, arguments))
        self.is_called.set()

    def make_calls(self):
        assert self.is_called.wait(60)
        for function, arguments in self.from_threads:
            function(*arguments)


@pytest.fixture
def reactor():
    reactor = ThreadedClock()
    reactor.advance(1_800_000_000)
    return reactor


@pytest.fixture
def jumps(reactor):
    return ClockJumps(reactor.seconds, lambda: 0.0)


@pytest.fixture
def watch(reactor, jumps):
    watch = ClockWatch(reactor, jumps, 0.01)
    verifyObject(IService, watch)
    watch.startService()
    yield watch
    if watch.running:
        watch.stopService()


def test_calls_that_are_pending_happen_in_time_after_the_clock_was_set_back(
    watch, reactor, jumps, log_lines
):
    happened = []
    for seconds in (5, 10, HOUR):
        reactor.callLater(seconds, happened.append, seconds)
    reactor.rightNow -= HOUR
    new = reactor.callLater(7, happened.append, 7)
    reactor.make_calls()
    assert jumps.count == 1
    assert len(log_lines) == 1
    assert new.getTime() == reactor.seconds() + 7
    for due in (5, 7, 10):
        reactor.advance(due - (reactor.seconds() - 1_800_000_000 + HOUR))
        assert happened[-1] == due
    reactor.advance(HOUR)
    assert happened == [5, 7, 10, HOUR]


def test_calls_are_not_delayed_after_the_clock_was_set_forward(watch, reactor, jumps):
    reactor.callLater(5, lambda: None)
    reactor.rightNow += HOUR
    new = reactor.callLater(7, lambda: None)
    reactor.make_calls()
    assert jumps.count == 1
    assert new.getTime() == reactor.seconds() + 7


def test_thread_ends_with_the_service(watch):
    threads = active_count()
    watch.stopService()
    assert active_count() == threads - 1
    watch.startService()
    assert active_count() == threads
