"""The schedule of a chore, by a clock that the test turns."""

from __future__ import annotations

import pytest
from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from twisted_registry.maintenance.task import MAX_START_DELAY_S, PeriodicTask

DAY = 86_400.0


class TaskDefinition:
    """Work whose runs end when the test says so."""

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
def chore():
    return TaskDefinition()


def task(chore, clock, interval=DAY, random=0.5):
    made = PeriodicTask("sweeping", chore, clock, interval, lambda: random)
    verifyObject(IService, made)
    return made


@pytest.mark.parametrize(
    ("interval", "random", "first"),
    [(DAY, 0.5, MAX_START_DELAY_S / 2), (DAY, 0.0, 0.0), (60.0, 0.5, 30.0), (DAY, 0.99, 3564.0)],
)
def test_the_first_run_begins_somewhere_in_the_interval_or_hour(
    chore, clock, interval, random, first
):
    sweeping = task(chore, clock, interval, random)
    assert sweeping.next is None
    sweeping.startService()
    assert sweeping.next == pytest.approx(first)
    clock.advance(first * 0.999 if first else 0)
    assert len(chore.begun) == (0 if first else 1)
    clock.advance(first * 0.002)
    assert len(chore.begun) == 1


def test_runs_follow_at_the_interval(chore, clock):
    chore.at_once = True
    sweeping = task(chore, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    for number in range(1, 4):
        assert (sweeping.runs, sweeping.last_run.result) == (number, number)
        assert sweeping.next == 60.0 * number
        clock.advance(60)


def test_a_run_does_not_begin_while_one_is_under_way(chore, clock):
    sweeping = task(chore, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    assert sweeping.is_running
    clock.advance(150)
    assert len(chore.begun) == 1
    chore.begun[0].callback("done")
    assert not sweeping.is_running
    assert sweeping.last_run.seconds == 150
    clock.advance(30)
    assert len(chore.begun) == 2


def test_a_failure_is_logged_and_counted_and_the_schedule_goes_on(chore, clock):
    sweeping = task(chore, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        chore.begun[0].errback(OSError("the disk is gone"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["task"] for event in events] == ["sweeping"]
    assert (sweeping.runs, sweeping.failures) == (1, 1)
    assert sweeping.last_run.failure == "OSError: the disk is gone"
    assert sweeping.last_run.result is None
    clock.advance(60)
    chore.begun[1].callback(7)
    assert (sweeping.runs, sweeping.failures, sweeping.last_run.result) == (2, 1, 7)


def test_stopping_cancels_the_run_and_waits_for_its_end(chore, clock):
    sweeping = task(chore, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    stopped = []
    sweeping.stopService().addCallback(stopped.append)
    assert chore.cancelled == 1
    assert stopped == [None]
    assert sweeping.last_run.failure == "it was stopped"
    clock.advance(600)
    assert len(chore.begun) == 1
    assert clock.getDelayedCalls() == []


def test_stopping_waits_for_work_that_does_not_end_at_once(clock):
    last_words = Deferred()

    async def stubborn():
        try:
            await Deferred()
        finally:
            await last_words

    sweeping = task(stubborn, clock, 60.0, 0.0)
    sweeping.startService()
    clock.advance(0)
    stopped = []
    sweeping.stopService().addCallback(stopped.append)
    assert stopped == []
    last_words.callback(None)
    assert stopped == [None]


def test_stopping_before_the_first_run(chore, clock):
    sweeping = task(chore, clock)
    sweeping.startService()
    stopped = []
    sweeping.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert clock.getDelayedCalls() == []
    assert sweeping.next is None


def test_a_service_can_be_started_again(chore, clock):
    chore.at_once = True
    sweeping = task(chore, clock, 60.0, 0.0)
    for _ in range(2):
        sweeping.startService()
        clock.advance(0)
        sweeping.stopService()
    assert sweeping.runs == 2


def test_a_run_by_hand_joins_the_one_under_way(chore, clock):
    sweeping = task(chore, clock)
    ended = []
    sweeping.run().addCallback(ended.append)
    sweeping.run().addCallback(ended.append)
    clock.advance(2)
    assert len(chore.begun) == 1
    chore.begun[0].callback("clean")
    assert [(run.result, run.seconds) for run in ended] == [("clean", 2), ("clean", 2)]


def test_whoever_waits_may_leave_without_stopping_the_run(chore, clock):
    sweeping = task(chore, clock)
    gone = sweeping.run()
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    stays = sweeping.run()
    gone.cancel()
    assert sweeping.is_running
    chore.begun[0].callback(3)
    ended = []
    stays.addCallback(ended.append)
    assert ended[0].result == 3
    assert chore.cancelled == 0


def test_a_run_by_hand_that_ends_at_once(chore, clock):
    chore.at_once = True
    sweeping = task(chore, clock)
    ended = []
    for number in (1, 2):
        sweeping.run().addCallback(ended.append)
        assert [run.result for run in ended] == list(range(1, number + 1))
        assert not sweeping.is_running
