"""The service that keeps the reserve complete, with a clock and a store that the test controls."""

from __future__ import annotations

import pytest
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from twisted_registry.maintenance.reserve import REFILL_INTERVAL_S, ReserveKeeper
from twisted_registry.storage.interfaces import StorageError


class Reserve:
    """A reserve whose refills end as the test says."""

    def __init__(self):
        self.answer = succeed(True)
        self.refills = 0
        self.changes = []

    def refill(self):
        self.refills += 1
        answer, self.answer = self.answer, succeed(True)
        return answer


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reserve():
    return Reserve()


@pytest.fixture
def keeper(reserve, clock):
    keeper = ReserveKeeper(reserve, reserve.changes.append, clock)
    verifyObject(IService, keeper)
    yield keeper
    keeper.stopService()


def test_a_reserve_is_made_at_the_start_and_looked_after(keeper, reserve, clock):
    keeper.startService()
    assert reserve.refills == 1
    clock.pump([REFILL_INTERVAL_S] * 3)
    assert reserve.refills == 4
    assert reserve.changes == []
    keeper.stopService()
    clock.advance(100)
    assert reserve.refills == 4


def test_an_incomplete_reserve_is_reported_once_until_it_is_complete(
    keeper, reserve, clock, log_events
):
    reserve.answer = succeed(False)
    keeper.startService()
    assert (reserve.changes, keeper.is_complete) == ([False], False)
    reserve.answer = succeed(False)
    clock.advance(REFILL_INTERVAL_S)
    assert reserve.changes == [False]
    clock.advance(REFILL_INTERVAL_S)
    assert (reserve.changes, keeper.is_complete) == ([False, True], True)
    levels = [event["log_level"] for event in log_events]
    assert levels == [LogLevel.error, LogLevel.info]


@pytest.mark.parametrize("error", [StorageError("", "not permitted"), ValueError("unexpected")])
def test_a_reserve_that_cannot_be_made_refuses_no_push(keeper, reserve, clock, log_lines, error):
    reserve.answer = fail(error)
    keeper.startService()
    reserve.answer = fail(error)
    clock.advance(REFILL_INTERVAL_S)
    assert (reserve.changes, keeper.is_complete) == ([], True)
    assert sum("cannot be made" in line for line in log_lines) == 1
    clock.advance(REFILL_INTERVAL_S)
    assert reserve.refills == 3


def test_a_stop_cancels_the_refill_under_way(keeper, reserve, clock):
    cancelled = []
    reserve.answer = waiting = Deferred(cancelled.append)
    keeper.startService()
    keeper.stopService()
    assert cancelled == [waiting]
    assert reserve.changes == []
