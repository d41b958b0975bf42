"""The service that lets the gate look."""

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
        self.looks = 0
        self.left = False
        self.fails = False
        self.error = OSError("broken")
        self.waits = None
        self.cancelled = False

    async def poll(self):
        self.looks += 1
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
    heartbeat = GateHeartbeat(gate, clock, 2.0)
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


def test_it_looks_at_once_and_again_and_again(heartbeat, gate, clock):
    assert gate.looks == 1
    clock.pump([1.0] * 6)
    assert gate.looks == 4
    assert stopped(heartbeat)
    assert gate.left
    clock.pump([1.0] * 6)
    assert gate.looks == 4
    assert clock.getDelayedCalls() == []


def test_stopping_before_the_start(gate, clock):
    assert stopped(GateHeartbeat(gate, clock, 2.0))
    assert gate.looks == 0


def test_one_look_at_a_time(heartbeat, gate, clock):
    gate.waits = Deferred()
    clock.pump([1.0] * 10)
    assert gate.looks == 2
    gate.waits, waits = succeed(None), gate.waits
    waits.callback(None)
    clock.advance(2)
    assert gate.looks == 3


def test_a_look_that_fails_is_logged_once_and_tried_again(heartbeat, gate, clock, failures):
    gate.fails = True
    clock.pump([1.0] * 6)
    assert gate.looks == 4
    assert len(failures) == 1
    gate.fails = False
    clock.advance(2)
    gate.fails = True
    clock.advance(2)
    assert len(failures) == 2


def test_a_store_that_is_down_is_a_line(heartbeat, gate, clock, failures, log_lines):
    gate.fails, gate.error = True, StorageError("a/path", "refused")
    clock.pump([1.0] * 6)
    assert gate.looks == 4
    assert stopped(heartbeat)
    assert failures == []
    first, second = log_lines
    assert first.startswith("the collector's list could not be looked at; it will be tried again: ")
    assert second.startswith("the record of this process could not be removed: ")
    assert "refused" in first
    assert "refused" in second


def test_stopping_cancels_the_look(heartbeat, gate, clock, failures):
    gate.waits = Deferred()
    clock.advance(2)
    assert stopped(heartbeat)
    assert gate.cancelled
    assert gate.left
    assert failures == []


def test_a_record_that_can_not_be_removed_keeps_nobody(heartbeat, gate, failures):
    gate.fails = True
    assert stopped(heartbeat)
    assert len(failures) == 1


def test_who_knows_of_a_list_looks_more_often(gate, clock):
    heartbeat = GateHeartbeat(gate, clock, 10.0, 2.0)
    heartbeat.startService()
    clock.pump([1.0] * 9)
    assert gate.looks == 1
    clock.advance(1)
    assert gate.looks == 2
    gate.has_list = True
    clock.pump([1.0] * 4)
    assert gate.looks == 4
    gate.has_list = False
    clock.pump([1.0] * 9)
    assert gate.looks == 4
    clock.advance(1)
    assert gate.looks == 5
    heartbeat.stopService()
