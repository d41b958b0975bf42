"""The schedule of a task, by a clock that the test advances."""

from __future__ import annotations

import pytest
from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from twisted_registry.maintenance.task import MAX_START_DELAY_S, PeriodicTask

DAY = 86_400.0


class ManualWork:
    """Work whose runs the test ends."""

    def __init__(self):
        self.begun = []
        self.at_once = False
        self.cancelled = 0

    async def __call__(self):
        if self.at_once:
            self.begun.append(None)
            return len(self.begun)
        waiting = Deferred()
        self.begun.append(waiting)
        try:
            return await waiting
        except CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def work():
    return ManualWork()


def make_task(work, clock, interval=DAY, random=0.5):
    task = PeriodicTask("sweeping", work, clock, interval, lambda: random)
    verifyObject(IService, task)
    return task


@pytest.mark.parametrize(
    ("interval", "random", "first"),
    [(DAY, 0.5, MAX_START_DELAY_S / 2), (DAY, 0.0, 0.0), (60.0, 0.5, 30.0), (DAY, 0.99, 3564.0)],
)
def test_first_run_starts_at_a_random_time_within_the_interval_or_an_hour(
    work, clock, interval, random, first
):
    sweeping = make_task(work, clock, interval, random)
    assert sweeping.next is None
    sweeping.startService()
    assert sweeping.next == pytest.approx(first)
    clock.advance(first * 0.999 if first else 0)
    assert len(work.begun) == (0 if first else 1)
    clock.advance(first * 0.002)
    assert len(work.begun) == 1


def test_runs_follow_at_the_interval(work, clock):
    work.at_once = True
    sweeping = make_task(work, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    for number in range(1, 4):
        assert (sweeping.runs, sweeping.last_run.result) == (number, number)
        assert sweeping.next == 60.0 * number
        clock.advance(60)


def test_runs_do_not_overlap(work, clock):
    sweeping = make_task(work, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    assert sweeping.is_running
    clock.advance(150)
    assert len(work.begun) == 1
    work.begun[0].callback("done")
    assert not sweeping.is_running
    assert sweeping.last_run.seconds == 150
    clock.advance(30)
    assert len(work.begun) == 2


def test_failure_is_logged_and_counted_and_the_task_is_run_again(work, clock):
    sweeping = make_task(work, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        work.begun[0].errback(OSError("the disk is gone"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["task"] for event in events] == ["sweeping"]
    assert (sweeping.runs, sweeping.failures) == (1, 1)
    assert sweeping.last_run.failure == "OSError: the disk is gone"
    assert sweeping.last_run.result is None
    clock.advance(60)
    work.begun[1].callback(7)
    assert (sweeping.runs, sweeping.failures, sweeping.last_run.result) == (2, 1, 7)


def test_stopping_cancels_the_run_and_waits_for_its_end(work, clock):
    sweeping = make_task(work, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    stopped = []
    sweeping.stopService().addCallback(stopped.append)
    assert work.cancelled == 1
    assert stopped == [None]
    assert sweeping.last_run.failure == "it was stopped"
    clock.advance(600)
    assert len(work.begun) == 1
    assert clock.getDelayedCalls() == []


def test_stopping_waits_for_work_that_ends_late(clock):
    last_words = Deferred()

    async def stubborn():
        try:
            await Deferred()
        finally:
            await last_words

    sweeping = make_task(stubborn, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    stopped = []
    sweeping.stopService().addCallback(stopped.append)
    assert stopped == []
    last_words.callback(None)
    assert stopped == [None]


def test_stopping_before_the_first_run_cancels_it(work, clock):
    sweeping = make_task(work, clock)
    sweeping.startService()
    stopped = []
    sweeping.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert clock.getDelayedCalls() == []
    assert sweeping.next is None


def test_service_can_be_restarted(work, clock):
    work.at_once = True
    sweeping = make_task(work, clock, 60.0, 0.0)
    for _ in range(2):
        sweeping.startService()
        clock.advance(0)
        sweeping.stopService()
    assert sweeping.runs == 2


def test_manual_run_joins_the_current_run(work, clock):
    sweeping = make_task(work, clock)
    ended = []
    sweeping.run().addCallback(ended.append)
    sweeping.run().addCallback(ended.append)
    clock.advance(2)
    assert len(work.begun) == 1
    work.begun[0].callback("clean")
    assert [(run.result, run.seconds) for run in ended] == [("clean", 2), ("clean", 2)]


def test_cancelling_the_wait_does_not_cancel_the_run(work, clock):
    sweeping = make_task(work, clock)
    gone = sweeping.run()
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    stays = sweeping.run()
    gone.cancel()
    assert sweeping.is_running
    work.begun[0].callback(3)
    ended = []
    stays.addCallback(ended.append)
    assert ended[0].result == 3
    assert work.cancelled == 0


def test_manual_run_may_end_at_once(work, clock):
    work.at_once = True
    sweeping = make_task(work, clock)
    ended = []
    for number in (1, 2):
        sweeping.run().addCallback(ended.append)
        assert [run.result for run in ended] == list(range(1, number + 1))
        assert not sweeping.is_running
