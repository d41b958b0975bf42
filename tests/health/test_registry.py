"""States of checks, with a clock and checks that the test controls."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_registry.health.interfaces import CheckFailed, HealthState, ICheck, IHealth
from twisted_registry.health.registry import (
    FollowedHealth,
    HealthChecks,
    HealthRegistry,
    ScheduledCheck,
)


@implementer(ICheck)
@define
class Check:
    """A check whose result the test sets.

    :ivar error: what it raises; None to pass.
    :ivar hangs: whether it never ends by itself.
    """

    name: str = "one"
    error: Exception | None = None
    hangs: bool = False
    runs: int = field(default=0, init=False)
    cancelled: int = field(default=0, init=False)

    async def run(self):
        self.runs += 1
        if self.hangs:
            try:
                await Deferred()
            except CancelledError:
                self.cancelled += 1
                raise
        if self.error is not None:
            raise self.error


class Run:
    """Checks that run: each every 10 s, with a timeout of 5 s."""

    def __init__(self, *checks, threshold=1):
        self.clock = Clock()
        scheduled = [ScheduledCheck(check, 10, 5, threshold) for check in checks]
        self.registry = HealthRegistry(scheduled)
        self.states = []
        self.registry.share(self.states.append)
        self.service = HealthChecks(self.registry, scheduled, self.clock)
        verifyObject(IService, self.service)
        self.service.startService()


def changes(events):
    return [
        (event["log_level"], event["check"], event.get("reason", ""))
        for event in events
        if "check" in event
    ]


def test_interfaces():
    verifyObject(ICheck, Check())
    verifyObject(IHealth, HealthRegistry())
    verifyObject(IHealth, FollowedHealth())


def test_a_registry_without_checks_is_healthy():
    assert HealthRegistry().state() == HealthState.HEALTHY
    assert HealthRegistry().failing() == {}


def test_a_check_runs_at_once_and_at_its_interval():
    check = Check()
    run = Run(check)
    assert check.runs == 1
    run.clock.advance(9)
    assert check.runs == 1
    run.clock.advance(1)
    assert check.runs == 2
    assert run.states == [HealthState.STARTING, HealthState.HEALTHY]


def test_a_registry_is_starting_until_each_check_has_run():
    slow = Check("slow", hangs=True)
    run = Run(Check(), slow)
    assert run.registry.state() == HealthState.STARTING
    slow.hangs = False
    run.clock.advance(5)  # its first run ends by its timeout
    assert run.registry.state() == HealthState.FAILING
    run.clock.advance(5)
    assert run.registry.state() == HealthState.HEALTHY


def test_a_change_is_logged_once(log_events):
    check = Check(error=CheckFailed("file exists"))
    run = Run(check)
    for _ in range(3):
        assert run.registry.failing() == {"one": "file exists"}
        run.clock.advance(10)
    check.error = None
    for _ in range(3):
        run.clock.advance(10)
        assert run.registry.failing() == {}
    assert changes(log_events) == [
        (LogLevel.error, "one", "file exists"),
        (LogLevel.info, "one", ""),
    ]
    assert run.states == [HealthState.STARTING, HealthState.FAILING, HealthState.HEALTHY]


def test_the_latest_reason_is_shown(log_events):
    check = Check(error=CheckFailed("first"))
    run = Run(check)
    check.error = OSError()
    run.clock.advance(10)
    assert run.registry.failing() == {"one": "OSError"}
    assert len(changes(log_events)) == 1


def test_a_check_fails_after_as_many_faults_in_a_row_as_its_threshold():
    check = Check(error=CheckFailed("down"))
    run = Run(check, threshold=3)
    run.clock.advance(10)
    assert run.registry.state() == HealthState.HEALTHY
    check.error = None
    run.clock.advance(10)
    check.error = CheckFailed("down again")
    for _ in range(2):
        run.clock.advance(10)
        assert run.registry.state() == HealthState.HEALTHY
    run.clock.advance(10)
    assert run.registry.failing() == {"one": "down again"}
    check.error = None
    run.clock.advance(10)  # one success is enough
    assert run.registry.state() == HealthState.HEALTHY


def test_a_check_that_hangs_fails_and_is_run_again():
    check = Check(hangs=True)
    run = Run(check)
    run.clock.advance(5)
    assert run.registry.failing() == {"one": "no result after 5 s"}
    assert (check.runs, check.cancelled) == (1, 1)
    check.hangs = False
    run.clock.advance(5)
    assert run.registry.state() == HealthState.HEALTHY


def test_one_check_that_fails_is_enough():
    run = Run(Check("good"), Check("bad", CheckFailed("no")), Check("worse", CheckFailed("never")))
    assert run.registry.failing() == {"bad": "no", "worse": "never"}
    assert run.registry.state() == HealthState.FAILING


def test_checks_of_the_same_name_do_not_hide_each_other():
    run = Run(Check(error=CheckFailed("no")), Check())
    assert run.registry.failing() == {"one": "no"}


def test_checks_that_pass_do_not_end_what_an_operator_set():
    check = Check()
    run = Run(check)
    run.registry.set_down(down=True)
    run.clock.advance(10)
    assert run.registry.failing() == {"manual_http_status": "manual check"}
    run.registry.set_down(down=False)
    assert run.registry.state() == HealthState.HEALTHY


def test_a_stop_cancels_a_check_and_notes_nothing():
    check = Check(hangs=True)
    run = Run(check)
    run.service.stopService()
    assert check.cancelled == 1
    assert run.states == [HealthState.STARTING]
    assert run.clock.getDelayedCalls() == []


def test_a_stop_before_the_start_is_harmless():
    service = HealthChecks(HealthRegistry(), [], Clock())
    service.stopService()


def test_another_process_follows():
    health = FollowedHealth()
    assert health.state() == HealthState.STARTING
    health.read = HealthRegistry().state
    assert health.state() == HealthState.HEALTHY


@pytest.mark.parametrize(
    ("error", "reason"), [(ValueError("a\nb"), "a b"), (RuntimeError(), "RuntimeError")]
)
def test_an_unexpected_error_is_a_fault(error, reason):
    run = Run(Check(error=error))
    assert run.registry.failing() == {"one": reason}
