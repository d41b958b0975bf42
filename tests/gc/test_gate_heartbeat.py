"""The service that polls the gate."""

from __future__ import annotations

import pytest
from twisted.application.service import IService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from twisted_registry.gc.gate import GateHeartbeat
from twisted_registry.storage.interfaces import StorageError


class Gate:
    has_list = False

    def __init__(self):
        self.polls = 0
        self.left = False
        self.fails = False
        self.error = OSError("broken")
        self.waits = None
        self.cancelled = False

    async def poll(self):
        self.polls += 1
        if self.fails:
            raise self.error
        if self.waits is not None:
            try:
                await self.waits
            finally:
                self.cancelled = True

    async def unregister(self):
        self.left = True
        if self.fails:
            raise self.error


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def heartbeat(gate, clock):
    heartbeat = GateHeartbeat(gate, clock, 2.0, 2.0)
    verifyObject(IService, heartbeat)
    heartbeat.startService()
    return heartbeat


@pytest.fixture
def failures():
    found = []

    def observe(event):
        if "log_failure" in event:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def stopped(heartbeat):
    results = []
    heartbeat.stopService().addCallback(results.append)
    return results == [None]


def test_gate_is_polled_at_once_and_periodically(heartbeat, gate, clock):
    assert gate.polls == 1
    clock.pump([1.0] * 6)
    assert gate.polls == 4
    assert stopped(heartbeat)
    assert gate.left
    clock.pump([1.0] * 6)
    assert gate.polls == 4
    assert clock.getDelayedCalls() == []


def test_stop_before_start_polls_nothing(gate, clock):
    assert stopped(GateHeartbeat(gate, clock, 2.0, 2.0))
    assert gate.polls == 0


def test_polls_do_not_overlap(heartbeat, gate, clock):
    gate.waits = Deferred()
    clock.pump([1.0] * 10)
    assert gate.polls == 2
    gate.waits, waits = succeed(None), gate.waits
    waits.callback(None)
    clock.advance(2)
    assert gate.polls == 3


def test_repeated_failure_is_logged_once_and_retried(heartbeat, gate, clock, failures):
    gate.fails = True
    clock.pump([1.0] * 6)
    assert gate.polls == 4
    assert len(failures) == 1
    gate.fails = False
    clock.advance(2)
    gate.fails = True
    clock.advance(2)
    assert len(failures) == 2


def test_storage_error_is_logged_without_traceback(heartbeat, gate, clock, failures, log_lines):
    gate.fails, gate.error = True, StorageError("a/path", "refused")
    clock.pump([1.0] * 6)
    assert gate.polls == 4
    assert stopped(heartbeat)
    assert failures == []
    first, second = log_lines
    assert first.startswith("the store fails; pushes may be refused until it works, ")
    assert second.startswith("record of this process could not be deleted: ")
    assert "refused" in first
    assert "refused" in second


def test_stop_cancels_the_poll_under_way(heartbeat, gate, clock, failures):
    gate.waits = Deferred()
    clock.advance(2)
    assert stopped(heartbeat)
    assert gate.cancelled
    assert gate.left
    assert failures == []


def test_stop_succeeds_although_the_record_cannot_be_deleted(heartbeat, gate, failures):
    gate.fails = True
    assert stopped(heartbeat)
    assert len(failures) == 1


def test_gate_is_polled_more_often_while_a_list_is_published(gate, clock):
    heartbeat = GateHeartbeat(gate, clock, 10.0, 2.0)
    heartbeat.startService()
    clock.pump([1.0] * 9)
    assert gate.polls == 1
    clock.advance(1)
    assert gate.polls == 2
    gate.has_list = True
    clock.pump([1.0] * 4)
    assert gate.polls == 4
    gate.has_list = False
    clock.pump([1.0] * 9)
    assert gate.polls == 4
    clock.advance(1)
    assert gate.polls == 5
    heartbeat.stopService()
