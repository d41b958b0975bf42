"""The way of events into the queue."""

from __future__ import annotations

import sqlite3
import weakref

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.notifications.events import SOURCE, pull_blob, push
from twisted_registry.notifications.listener import (
    MAX_PENDING,
    MAX_WAIT_S,
    PULL_DELAY_S,
    RETRY_S,
    EventFilter,
    NotificationListener,
)
from twisted_registry.notifications.queue import IN_MEMORY, EventQueue
from twisted_registry.repository.interfaces import IRegistryListener


class ManualThread:
    """Makes calls when the test says so."""

    def __init__(self):
        self.calls = []

    def run_blocking(self, work, *arguments):
        done = Deferred()
        self.calls.append((done, work, arguments))
        return done

    def work(self, error=None):
        """Make one call, which fails with an error if one is given."""
        done, work, arguments = self.calls.pop(0)
        if error is not None:
            done.errback(error)
        else:
            done.callback(work(*arguments))


@pytest.fixture
def thread():
    return ManualThread()


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


@pytest.fixture
def queue():
    queue = EventQueue(IN_MEMORY, 1_000_000)
    yield queue
    queue.close()


@pytest.fixture
def stored():
    return []


@pytest.fixture
def make(queue, thread, clock, stored):
    """Return a function that makes a listener for the endpoint ``a``, or for given filters."""

    def make_one(*filters):
        return NotificationListener(
            filters or [EventFilter("a")], queue, thread, clock, SOURCE, False,
            lambda added, dropped: stored.append((added, dropped)),
        )  # fmt: skip

    return make_one


def tags(queue, endpoint="a"):
    events = queue.next_events(endpoint, 1_000_000)
    return [event.record["target"].get("tag") for event in events]


def test_a_pull_is_stored_after_a_moment(make, queue, thread, clock, stored):
    listener = make()
    verifyObject(IRegistryListener, listener)
    listener.handle_event(push("1"))
    listener.handle_event(push("2"))
    assert thread.calls == []
    clock.advance(PULL_DELAY_S)
    thread.work()
    assert tags(queue) == ["1", "2"]
    assert stored == [({"a": 2}, {})]
    assert thread.calls == clock.getDelayedCalls() == []


def test_a_response_waits_until_its_event_is_stored(make, queue, thread, clock):
    listener = make()
    assert listener.wait_until_stored() is None
    listener.handle_event(push("1"))
    first = listener.wait_until_stored()
    listener.handle_event(push("2"))
    second = listener.wait_until_stored()
    assert not first.called
    thread.work()
    assert (first.called, second.called) == (True, False)
    assert tags(queue) == ["1"]
    thread.work()
    assert second.called
    assert tags(queue) == ["1", "2"]
    assert listener.wait_until_stored() is None
    assert clock.getDelayedCalls() == []


def test_a_response_waits_for_a_write_that_has_begun(make, thread, clock):
    listener = make()
    listener.handle_event(push("1"))
    clock.advance(PULL_DELAY_S)
    waiting = listener.wait_until_stored()
    assert not waiting.called
    thread.work()
    assert waiting.called


def test_a_response_does_not_wait_for_ever(make, queue, thread, clock):
    listener = make()
    listener.handle_event(push("1"))
    waiting = listener.wait_until_stored()
    clock.advance(MAX_WAIT_S)
    assert waiting.called
    assert waiting.result is None
    thread.work()
    assert tags(queue) == ["1"]


def test_a_client_that_leaves_stops_waiting(make, queue, thread):
    listener = make()
    listener.handle_event(push("1"))
    waiting = listener.wait_until_stored()
    waiting.cancel()
    failures = []
    waiting.addErrback(lambda reason: failures.append(reason.check(CancelledError)))
    assert failures == [CancelledError]
    thread.work()
    assert tags(queue) == ["1"]


def test_each_endpoint_gets_what_it_does_not_ignore(make, queue, clock, thread):
    listener = make(
        EventFilter("all"),
        EventFilter("manifests", frozenset({"application/octet-stream"})),
        EventFilter("pushes", frozenset(), frozenset({"pull"})),
        EventFilter("nothing", frozenset({"application/octet-stream"}), frozenset({"push"})),
    )
    listener.handle_event(push("1"))
    listener.handle_event(pull_blob())
    clock.advance(PULL_DELAY_S)
    thread.work()
    assert tags(queue, "all") == ["1", None]
    assert tags(queue, "manifests") == tags(queue, "pushes") == ["1"]
    assert tags(queue, "nothing") == []


def test_an_event_that_no_endpoint_gets_costs_no_write(make, clock):
    listener = make(EventFilter("a", frozenset(), frozenset({"push"})))
    listener.handle_event(push("1"))
    assert listener.wait_until_stored() is None
    assert clock.getDelayedCalls() == []


def test_the_time_is_that_of_the_event(make, queue, thread, clock):
    listener = make()
    listener.handle_event(push("1"))
    clock.advance(PULL_DELAY_S)
    thread.work()
    (event,) = queue.next_events("a", 1)
    assert event.record["timestamp"] == "2023-11-14T22:13:20.000000Z"


def test_what_cannot_be_stored_is_kept_and_delays_nobody(make, queue, thread, clock, log_lines):
    listener = make()
    listener.handle_event(push("1"))
    waiting = listener.wait_until_stored()
    thread.work(sqlite3.OperationalError("database or disk is full"))
    assert waiting.called
    listener.handle_event(push("2"))
    assert listener.wait_until_stored() is None
    assert len(log_lines) == 1
    assert "in_memory=1: it cannot be written: database or disk is full" in log_lines[0]
    clock.advance(RETRY_S)
    thread.work(OSError("no space"))
    assert len(log_lines) == 1
    clock.advance(RETRY_S)
    thread.work()
    assert tags(queue) == ["1", "2"]
    listener.handle_event(push("3"))
    assert not listener.wait_until_stored().called
    thread.work()
    assert tags(queue) == ["1", "2", "3"]


class FullDisk(EventQueue):
    """A queue whose first write fails.

    :ivar tried: the events of all writes.
    """

    def __init__(self):
        super().__init__(IN_MEMORY, 1000)
        self.tried = []

    def add(self, events):
        self.tried.append(list(events))
        if len(self.tried) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        return super().add(self.tried[-1])


def test_a_repeated_write_has_the_same_events(thread, clock, stored):
    queue = FullDisk()
    listener = NotificationListener(
        [EventFilter("a")], queue, thread, clock, SOURCE, True,
        lambda added, dropped: stored.append(added),
    )  # fmt: skip
    listener.handle_event(push("1"))
    clock.advance(PULL_DELAY_S)
    done, work, arguments = thread.calls.pop()
    with pytest.raises(sqlite3.Error) as raised:
        work(*arguments)
    done.errback(raised.value)
    clock.advance(RETRY_S)
    thread.work()
    first, second = queue.tried
    assert first == second
    assert stored == [{"a": 1}]
    queue.close()


def test_the_bytes_of_a_manifest_are_not_kept_without_references(make):
    class Content:
        """Stands for bytes, which cannot be referred to weakly."""

    content = Content()
    seen = weakref.ref(content)
    listener = make()
    listener.handle_event(push("1", content=content))
    del content
    assert seen() is None


def test_memory_is_bounded_while_the_queue_cannot_be_written(make, queue, thread, clock):
    listener = make()
    for number in range(MAX_PENDING):
        listener.handle_event(push(str(number)))
    clock.advance(PULL_DELAY_S)
    for number in (MAX_PENDING, MAX_PENDING + 1):
        listener.handle_event(push(str(number)))
    thread.work(OSError("no space"))
    clock.advance(RETRY_S)
    thread.work()
    kept = tags(queue)
    assert (len(kept), kept[0], kept[-1]) == (MAX_PENDING, "2", str(MAX_PENDING + 1))
    assert listener.wait_until_stored() is None


def test_an_event_that_cannot_be_encoded_does_not_stop_the_others(make, queue, thread, clock):
    listener = make()
    listener.handle_event(push("1"))
    waiting = listener.wait_until_stored()
    thread.work(ZeroDivisionError())
    assert waiting.called
    listener.handle_event(push("2"))
    clock.advance(PULL_DELAY_S)
    thread.work()
    assert tags(queue) == ["2"]


def test_the_stop_stores_what_is_left(make, queue, thread, clock):
    listener = make()
    listener.handle_event(push("1"))
    closing = Deferred.fromCoroutine(listener.close())
    assert not closing.called
    thread.work()
    assert closing.called
    assert tags(queue) == ["1"]
    assert clock.getDelayedCalls() == []


def test_the_stop_reports_what_is_lost(make, thread, clock, log_lines):
    listener = make()
    listener.handle_event(push("1"))
    closing = Deferred.fromCoroutine(listener.close())
    thread.work(OSError("no space"))
    assert closing.called
    assert "notifications: queue=:memory: lost=1: it cannot be written at the stop" in log_lines
    assert clock.getDelayedCalls() == []


def test_dropped_events_are_logged_once_a_minute(thread, clock, stored, log_lines):
    queue = EventQueue(IN_MEMORY, 1)
    listener = NotificationListener(
        [EventFilter("a"), EventFilter("b")], queue, thread, clock, SOURCE, False,
        lambda added, dropped: stored.append(dropped),
    )  # fmt: skip
    for number in range(4):
        listener.handle_event(push(str(number)))
        clock.advance(PULL_DELAY_S)
        thread.work()
    assert stored == [{}, *[{"a": 1, "b": 1}] * 3]
    reason = "old events are dropped: the queue is full; raise notifications.queue.maxevents"
    assert [line[: len(line) - len(", or look at the endpoint")] for line in log_lines] == [
        f"notifications: endpoint={name} dropped=1: {reason}" for name in "ab"
    ]
    queue.close()


def test_events_beyond_the_bound_of_memory_are_counted_and_logged(
    make, thread, clock, stored, log_lines
):
    listener = make()
    listener.handle_event(push("1"))
    clock.advance(PULL_DELAY_S)
    thread.work(OSError("no space"))
    for _ in range(MAX_PENDING + 1):
        listener.handle_event(push("2"))
    assert stored == [({"a": 1}, {"a": 1})] * 2
    reason = "old events are dropped: the queue cannot be written, and memory has a bound"
    assert log_lines[1:] == [f"notifications: endpoint=a dropped=1: {reason}"]


def test_nothing_is_lost_when_the_thread_works_at_once(make, queue, thread, clock):
    thread.run_blocking = lambda work, *arguments: succeed(work(*arguments))
    listener = make()
    listener.handle_event(push("1"))
    assert listener.wait_until_stored().called
    listener.handle_event(push("2"))
    clock.advance(PULL_DELAY_S)
    assert tags(queue) == ["1", "2"]
