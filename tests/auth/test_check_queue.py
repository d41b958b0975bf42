"""The queue of password checks: its order, its limits, and delays after failures."""

from __future__ import annotations

from itertools import count

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.support.passwords import basic_header
from twisted_registry.auth import check_queue
from twisted_registry.auth.access import AuthenticationUnavailable, LoginFailed
from twisted_registry.auth.check_queue import (
    FORGET_S,
    FREE_FAILURES,
    MAX_DELAY_S,
    MAX_WAITING,
    MAX_WAITING_PER_ADDRESS,
    MAX_WAITING_PER_NAME,
    CheckQueue,
)
from twisted_registry.oci.errors import RegistryError

HOME, AWAY = "192.0.2.1", "198.51.100.1"
FULL = "too many logins wait for their turn"
DELAYED = "too many failed logins of this user from this address"
WRONG = LoginFailed("wrong")


class Submitted:
    """A check that was submitted, with its result once there is one."""

    def __init__(self, waiting):
        self.waiting = waiting
        self.results = []
        waiting.addBoth(self.results.append)

    @property
    def result(self):
        """The result or error; None if there is none yet."""
        if not self.results:
            return None
        (result,) = self.results
        return getattr(result, "value", result)

    @property
    def refusal(self):
        """The message of a refusal, and the seconds of its Retry-After."""
        error = self.result
        assert isinstance(error, RegistryError)
        assert (error.http_status, error.code.name) == (429, "TOOMANYREQUESTS")
        ((name, value),) = error.headers
        assert name == "Retry-After"
        return error.message, int(value)


class Checks:
    """A queue whose checks end when a test says so.

    :ivar started: the names whose checks were started, in this order.
    """

    def __init__(self, max_running=1):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.queue = CheckQueue(self.clock, max_running)
        self.started, self.running = [], []
        self._numbers = count()

    def submit(self, name, address=HOME, password="wrong", version=1):
        def start():
            self.started.append(name)
            self.running.append(Deferred())
            return self.running[-1]

        header = basic_header(name, password)
        return Submitted(self.queue.submit(header, version, name, address, start))

    def end(self, outcome):
        """End the oldest check that runs with a login or an error."""
        check = self.running.pop(0)
        (check.errback if isinstance(outcome, Exception) else check.callback)(outcome)

    def end_all(self):
        """End all checks one after the other as failures; returns the names in their order."""
        self.started.clear()
        while self.running:
            self.end(WRONG)
        return self.started

    def fail(self, name, address=HOME, times=1):
        """Fail to log in while nothing else runs, with another password each time."""
        for _ in range(times):
            submitted = self.submit(name, address, f"wrong {next(self._numbers)}")
            self.end(WRONG)
            assert submitted.result is WRONG

    def succeed(self, name, address=HOME, password="right"):
        """Log in while nothing else runs."""
        submitted = self.submit(name, address, password)
        self.end(f"login of {name}")
        assert submitted.result == f"login of {name}"


@pytest.fixture
def checks():
    return Checks()


def test_checks_beyond_the_limit_wait():
    checks = Checks(max_running=2)
    first, second, third = (checks.submit(name) for name in ("a", "b", "c"))
    assert checks.started == ["a", "b"]
    checks.end("login of a")
    assert checks.started == ["a", "b", "c"]
    assert (first.result, second.result, third.result) == ("login of a", None, None)


def test_equal_credentials_share_a_check(checks):
    submitted = [checks.submit("a", address) for address in (HOME, AWAY)]
    other = checks.submit("a", HOME, version=2)
    checks.end("login of a")
    assert [each.result for each in submitted] == ["login of a"] * 2
    assert other.result is None
    assert checks.started == ["a", "a"]


def test_an_address_with_fewer_attempts_comes_first(checks):
    for number in range(20):
        checks.submit(f"a{number}", AWAY)
    checks.submit("b", HOME)
    assert checks.end_all()[0] == "b"


def test_the_newest_of_many_first_attempts_comes_first(checks):
    for number in range(100):
        checks.submit(f"a{number}", f"10.0.0.{number}")
    checks.submit("b", HOME)
    assert checks.end_all()[0] == "b"


def test_an_address_that_comes_back_waits_for_those_that_did_not(checks):
    checks.fail("a", AWAY)
    checks.submit("x", "10.0.0.1")
    checks.submit("b", HOME)
    checks.submit("a", AWAY)
    assert checks.end_all() == ["b", "a"]


def test_an_attempt_that_found_no_place_counts(checks):
    submitted = [
        checks.submit("a", f"10.0.0.{number}", f"wrong {number}")
        for number in range(MAX_WAITING_PER_NAME + 2)
    ]
    assert submitted[1].refusal == (FULL, 1)
    checks.submit("b", HOME)
    checks.submit("c", "10.0.0.1")
    assert checks.end_all()[0] == "b"


def test_behind_one_address_the_name_with_fewer_attempts_comes_first(checks):
    for number in range(4):
        checks.submit("a", HOME, f"wrong {number}")
    checks.submit("b", HOME)
    checks.submit("a", HOME, "wrong 5")
    assert checks.end_all()[0] == "b"


def test_credentials_that_were_right_come_first(checks):
    checks.succeed("a")
    checks.fail("b", HOME, times=9 - FREE_FAILURES)
    checks.submit("x", AWAY)
    checks.submit("a", HOME, "right")
    checks.submit("y", "10.0.0.1")
    assert checks.end_all()[0] == "a"


def test_a_shared_check_has_the_rank_of_its_best_address(checks):
    checks.fail("x", AWAY)
    checks.submit("y", "10.0.0.1")
    shared = [checks.submit("a", AWAY, "right")]
    checks.submit("b", "10.0.0.2")
    shared.append(checks.submit("a", HOME, "right"))
    checks.submit("c", AWAY)
    assert checks.end_all()[:2] == ["a", "b"]


@pytest.mark.parametrize(
    ("limit", "name", "address"),
    [
        (MAX_WAITING_PER_ADDRESS, "a{}", HOME),
        (MAX_WAITING_PER_NAME, "a", "10.0.0.{}"),
        (MAX_WAITING, "a{}", "10.0.0.{}"),
    ],
)
def test_too_many_waiting_checks_are_refused(checks, limit, name, address):
    submitted = [
        checks.submit(name.format(number), address.format(number), f"wrong {number}")
        for number in range(limit + 1)
    ]
    assert not any(each.results for each in submitted)
    # Of first attempts the oldest makes room: it would be started last.
    submitted.append(checks.submit(name.format("b"), address.format(250), "one more"))
    assert submitted.pop(1).refusal == (FULL, 1)
    assert not any(each.results for each in submitted)


def test_a_check_that_would_come_last_is_refused(checks):
    checks.fail("x", AWAY, times=2)
    for number in range(MAX_WAITING + 1):
        checks.submit(f"a{number}", f"10.0.0.{number}")
    assert checks.submit("x", AWAY).refusal == (FULL, 1)
    assert checks.submit("b", HOME).result is None


def test_all_known_credentials_may_wait(checks):
    """After a change of the accounts all users are checked again."""
    names = [f"a{number}" for number in range(MAX_WAITING + 10)]
    for name in names:
        checks.succeed(name)
    submitted = [checks.submit(name, HOME, "right", version=2) for name in names]
    assert not any(each.results for each in submitted)
    # They do not take the places of others.
    assert not checks.submit("b", HOME).results


def test_known_credentials_need_no_place_of_their_address(checks):
    checks.succeed("a")
    for number in range(MAX_WAITING_PER_ADDRESS + 1):
        checks.submit(f"a{number}", HOME)
    waiting = checks.submit("a", HOME, "right")
    assert checks.end_all()[0] == "a"
    assert waiting.results


def test_failures_of_a_pair_are_delayed_longer_and_longer(checks):
    checks.fail("a", times=FREE_FAILURES)
    for delay_s in (1, 2, 4, 8, 16, 32, 60, 60):
        checks.fail("a")
        assert checks.submit("a").refusal == (DELAYED, delay_s)
        checks.clock.advance(delay_s - 0.5)
        assert checks.submit("a").refusal == (DELAYED, 1)
        checks.clock.advance(0.5)
    assert delay_s == MAX_DELAY_S


def test_other_names_and_addresses_are_not_delayed(checks):
    checks.fail("a", times=FREE_FAILURES + 1)
    assert checks.submit("a").result is not None
    checks.fail("b")
    checks.fail("a", AWAY)


def test_a_right_password_that_was_right_before_is_not_delayed(checks):
    checks.succeed("a")
    checks.fail("a", times=FREE_FAILURES + 1)
    assert checks.submit("a", password="other").refusal == (DELAYED, 1)
    checks.succeed("a")
    # A success ends the delay.
    checks.fail("a", times=FREE_FAILURES)


def test_a_password_that_is_no_longer_right_is_not_known(checks):
    checks.succeed("a")
    old = checks.submit("a", password="right", version=2)
    checks.end(WRONG)
    assert old.result is WRONG
    checks.fail("a", times=FREE_FAILURES)
    assert checks.submit("a", password="right", version=2).refusal == (DELAYED, 1)


def test_the_same_wrong_password_is_one_failure(checks):
    for _ in range(FREE_FAILURES + 5):
        submitted = checks.submit("a", password="old")
        checks.end(WRONG)
        assert submitted.result is WRONG
    checks.fail("a", times=FREE_FAILURES)
    assert checks.submit("a", password="old").refusal == (DELAYED, 1)


def test_waiting_checks_are_refused_when_their_pair_is_delayed(checks):
    checks.fail("a", times=FREE_FAILURES)
    running, waiting = checks.submit("a"), checks.submit("a", password="other")
    last = checks.submit("b", AWAY)
    checks.end_all()
    assert running.result is WRONG
    assert waiting.refusal == (DELAYED, 1)
    assert last.result is WRONG


def test_errors_that_are_not_the_callers_fault_are_not_counted(checks):
    for _ in range(FREE_FAILURES + 5):
        submitted = checks.submit("a")
        checks.end(AuthenticationUnavailable("no file"))
        assert isinstance(submitted.result, AuthenticationUnavailable)


def test_a_clock_that_is_set_back_delays_nobody(checks):
    checks.fail("a", times=FREE_FAILURES + 1)
    checks.clock.advance(-864_000)
    checks.fail("a")


def test_failures_are_forgotten(checks):
    checks.fail("a", times=FREE_FAILURES + 1)
    checks.clock.advance(FORGET_S)
    checks.fail("a", times=FREE_FAILURES)


def test_a_bounded_number_of_failures_is_remembered(checks, monkeypatch):
    monkeypatch.setattr(check_queue, "MAX_REMEMBERED", 3)
    checks.fail("a", times=FREE_FAILURES + 1)
    for name in ("b", "c"):
        checks.fail(name)
    assert checks.submit("a").refusal == (DELAYED, 1)
    checks.fail("d")
    checks.fail("a", times=FREE_FAILURES)


def test_a_bounded_number_of_right_credentials_is_remembered(checks, monkeypatch):
    monkeypatch.setattr(check_queue, "MAX_REMEMBERED", 2)
    for name in ("a", "b", "a", "c"):
        checks.succeed(name)
    checks.submit("x", AWAY)
    checks.submit("b", HOME, "right")
    checks.submit("a", HOME, "right")
    checks.submit("y", "10.0.0.1")
    assert checks.end_all() == ["a", "y", "b"]


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
        ("unknown", "hidden", False),
    ],
)
def test_addresses_of_one_ipv6_network_count_as_one(checks, first, second, is_one):
    checks.fail("a", first, times=FREE_FAILURES + 1)
    submitted = checks.submit("a", second)
    assert bool(submitted.results) is is_one


def test_a_waiting_check_ends_with_its_last_client(checks):
    running = checks.submit("a")
    first, second = (checks.submit("b", address) for address in (HOME, AWAY))
    first.waiting.cancel()
    assert isinstance(first.result, CancelledError)
    checks.submit("c")
    second.waiting.cancel()
    assert isinstance(second.result, CancelledError)
    checks.end_all()
    assert checks.started == ["c"]
    assert running.result is WRONG


def test_a_running_check_is_completed_without_its_client(checks):
    for number in range(FREE_FAILURES + 1):
        gone, waiting = checks.submit("a", HOME, f"wrong {number}"), checks.submit("b", AWAY)
        gone.waiting.cancel()
        assert isinstance(gone.result, CancelledError)
        # Its thread is still busy.
        assert waiting.result is None
        checks.end(WRONG)
        checks.end("login of b")
        assert waiting.result == "login of b"
    # Its failures count.
    assert checks.submit("a").refusal == (DELAYED, 1)


def test_a_callback_may_cancel_another_waiter(checks):
    first, second = checks.submit("a"), checks.submit("a")
    first.waiting.addBoth(lambda _: second.waiting.cancel())
    # The callback of the first one was added before, so the second one is cancelled in time.
    checks.end("login of a")
    assert first.result == "login of a"
    assert isinstance(second.result, CancelledError)
    assert checks.submit("a").result is None
