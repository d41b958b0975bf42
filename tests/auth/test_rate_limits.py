"""Limits of requests per second and of concurrent uploads."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.decisions import decide
from twisted_registry.auth.access import OpenAccess, OpenGrant
from twisted_registry.auth.interfaces import Access, Caller, IClosableAccessController
from twisted_registry.auth.rate_limits import (
    BURST_S,
    RateLimit,
    RateLimitedAccess,
    UploadSlots,
    network_of,
)
from twisted_registry.oci.errors import ErrorCode, RegistryError

PULL = Access("repository", "a/b", "pull")


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_000_000)
    return clock


def count_admitted(limit, client="client", requests=1000):
    """Send requests until one is refused; return how many were admitted, and Retry-After."""
    for number in range(requests):
        try:
            limit.check(client)
        except RegistryError as error:
            return number, int(dict(error.headers)["Retry-After"])
    return requests, None


@pytest.mark.parametrize(
    ("rate", "burst", "wait_s"), [(20, 200, 1), (3, 30, 1), (0.5, 5, 2), (0.01, 1, 100)]
)
def test_a_burst_is_admitted_then_requests_at_the_rate(clock, rate, burst, wait_s):
    limit = RateLimit(rate, clock, "address")
    assert count_admitted(limit) == (burst, wait_s)
    clock.advance(1 / rate)
    assert count_admitted(limit) == (1, wait_s)
    clock.advance(3 / rate)
    assert count_admitted(limit)[0] == min(3, burst)


def test_a_client_that_does_as_retry_after_says_is_admitted(clock):
    limit = RateLimit(0.3, clock, "address")
    for _ in range(20):
        _, wait_s = count_admitted(limit)
        clock.advance(wait_s)
        limit.check("client")


def test_an_idle_client_may_send_a_burst_again_and_not_more(clock):
    limit = RateLimit(2, clock, "address")
    for idle_s in (BURST_S, 3 * BURST_S, 1000 * BURST_S):
        assert count_admitted(limit)[0] == 20
        clock.advance(idle_s)


def test_a_client_at_the_rate_is_never_refused_and_one_above_it_gets_the_rate(clock):
    limit = RateLimit(10, clock, "address")
    admitted = 0
    for _ in range(2000):
        limit.check("steady")
        for _ in range(3):
            admitted += count_admitted(limit, "greedy", 1)[0]
        clock.advance(0.1)
    assert 2000 <= admitted <= 2000 + 10 * BURST_S


def test_clients_do_not_affect_each_other_and_an_unknown_one_has_no_limit(clock):
    limit = RateLimit(1, clock, "address")
    assert count_admitted(limit, "a")[0] == count_admitted(limit, "b")[0] == 10
    assert count_admitted(limit, "")[0] == 1000


def test_the_memory_for_many_clients_is_bounded(clock):
    limit = RateLimit(1, clock, "address", max_clients=100)
    for number in range(1000):
        limit.check(f"client {number}")
        assert limit.client_count <= 200
    clock.advance(2 * BURST_S)
    limit.check("one")
    assert limit.client_count == 1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(address, network):
    assert network_of(address) == network


class ControllerOf(OpenAccess):
    """A controller that makes everybody the same user, at once or later."""

    def __init__(self, user, *, later=False):
        self.grant, self.later, self.closed = OpenGrant(user), later, 0

    def authorize(self, caller, accesses):
        return succeed(self.grant) if self.later else self.grant

    def close(self):
        self.closed += 1
        return succeed(None)


def test_addresses_are_limited_before_credentials_are_checked(clock):
    class Controller:
        asked = 0

        def authorize(self, caller, accesses):
            self.asked += 1
            raise RegistryError(ErrorCode.UNAUTHORIZED)

    controller = Controller()
    access = RateLimitedAccess(controller, RateLimit(1, clock, "address"), None)
    codes = []
    for _ in range(30):
        with pytest.raises(RegistryError) as raised:
            access.authorize(Caller(address="192.0.2.1"), [PULL])
        codes.append(raised.value.code)
    assert codes == 10 * [ErrorCode.UNAUTHORIZED] + 20 * [ErrorCode.TOOMANYREQUESTS]
    assert controller.asked == 10


@pytest.mark.parametrize("later", [False, True])
@pytest_twisted.ensureDeferred
async def test_users_are_limited_whatever_their_address(clock, later):
    access = RateLimitedAccess(ControllerOf("ada", later=later), None, RateLimit(1, clock, "user"))
    verifyObject(IClosableAccessController, access)
    for number in range(10):
        granted = access.authorize(Caller(address=f"192.0.2.{number}"), [PULL])
        assert isinstance(granted, Deferred) is later
        grant = await granted if later else granted
        assert grant.user == "ada"
    decision = decide(access, Caller(address="192.0.2.99"), PULL)
    assert decision.code is ErrorCode.TOOMANYREQUESTS


@pytest_twisted.ensureDeferred
async def test_callers_without_a_name_have_no_limit_of_users(clock):
    access = RateLimitedAccess(OpenAccess(), None, RateLimit(1, clock, "user"))
    for _ in range(100):
        access.authorize(Caller(), [PULL])


@pytest_twisted.ensureDeferred
async def test_closing_closes_the_controller(clock):
    controller = ControllerOf("ada")
    await RateLimitedAccess(controller, RateLimit(1, clock, "address"), None).close()
    assert controller.closed == 1


def test_uploads_of_one_user_are_limited_and_end_with_their_block():
    slots = UploadSlots(2)
    with slots.take("ada", ""):
        with slots.take("ada", ""):
            with pytest.raises(RegistryError) as raised, slots.take("ada", ""):
                pass
            assert raised.value.code is ErrorCode.TOOMANYREQUESTS
            assert int(dict(raised.value.headers)["Retry-After"]) > 0
            with slots.take("bob", ""):
                pass
        with slots.take("ada", ""):
            pass
    with pytest.raises(ZeroDivisionError), slots.take("ada", ""):
        raise ZeroDivisionError
    with slots.take("ada", ""), slots.take("ada", ""):
        pass


def test_anonymous_uploads_are_limited_by_address():
    slots = UploadSlots(1)
    with slots.take("", "192.0.2.1"), slots.take("", "192.0.2.2"):
        with pytest.raises(RegistryError), slots.take("", "192.0.2.1"):
            pass
        with slots.take("192.0.2.1", "192.0.2.1"):
            pass
