"""Bounded concurrency, keyed locks and rate limits."""

from __future__ import annotations

from contextlib import suppress

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.repository.worlds import begin, done, result_of
from twisted_registry.repository.concurrency import (
    MAX_CONCURRENT,
    KeyedLock,
    RateLimiter,
    map_concurrently,
)


def test_results_are_in_order_and_concurrency_is_bounded():
    under_way = []

    async def work(item):
        under_way.append(Deferred())
        await under_way[-1]
        return item * 2

    waiting = begin(map_concurrently(work, range(100)))
    done_so_far = 0
    while done_so_far < 100:
        assert len(under_way) - done_so_far == min(MAX_CONCURRENT, 100 - done_so_far)
        # In reverse, so that they end out of order.
        batch = under_way[done_so_far:]
        done_so_far += len(batch)
        for deferred in reversed(batch):
            deferred.callback(None)
    assert result_of(waiting) == [number * 2 for number in range(100)]
    assert done(map_concurrently(work, [])) == []


def test_a_thousand_calls_that_end_at_once_need_no_deep_stack():
    """As at the end of a sweep whose time is over."""
    waiting = [Deferred() for _ in range(MAX_CONCURRENT)]

    async def work(item):
        if item < MAX_CONCURRENT:
            await waiting[item]
        return item

    working = begin(map_concurrently(work, range(2000)))
    for deferred in waiting:
        deferred.callback(None)
    assert result_of(working) == list(range(2000))


@pytest.mark.parametrize("at", [0, 20, 49])
def test_first_error_cancels_the_rest_and_is_raised(at):
    cancelled = []
    started = []

    async def work(item):
        started.append(item)
        if item == at:
            raise ValueError(item)
        if item > at - 10:
            await Deferred(lambda _: cancelled.append(item))

    with pytest.raises(ValueError, match=str(at)):
        done(map_concurrently(work, range(50)))
    assert sorted(cancelled) == [item for item in started if item > at - 10 and item != at]
    assert len(started) <= at + MAX_CONCURRENT + 1


def test_cancelling_cancels_all():
    cancelled = []

    async def work(item):
        await Deferred(lambda _: cancelled.append(item))

    waiting = begin(map_concurrently(work, range(50)))
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    # The other calls are not started only to be cancelled.
    assert sorted(cancelled) == list(range(MAX_CONCURRENT))


def test_no_call_starts_after_one_that_ignores_cancellation():
    begun = []

    async def work(item):
        begun.append(item)
        with suppress(CancelledError):
            await Deferred()

    waiting = begin(map_concurrently(work, range(50)))
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    assert begun == list(range(MAX_CONCURRENT))


def test_keyed_lock_excludes_by_key_and_keeps_no_keys():
    locks = KeyedLock()
    log = []
    gates = {}

    async def work(key, name):
        async with locks.lock(key):
            log.append(name)
            gates[name] = Deferred()
            await gates[name]

    waiting = [begin(work(key, name)) for key, name in (("a", 1), ("a", 2), ("b", 3), ("a", 4))]
    assert log == [1, 3]
    gates[1].callback(None)
    assert log == [1, 3, 2]
    # A waiter that is cancelled, or a holder that fails, releases the lock.
    waiting[3].cancel()
    gates[2].errback(ValueError())
    for number, error in ((1, ValueError), (3, CancelledError)):
        with pytest.raises(error):
            result_of(waiting[number])
    gates[3].callback(None)
    again = begin(work("a", 5))
    assert log[-1] == 5
    gates[5].callback(None)
    result_of(again)
    assert locks.key_count == 0


@pytest.mark.parametrize(("rate", "seconds"), [(10, 4.0), (0, 0.0)])
def test_rate_is_not_exceeded(rate, seconds):
    clock = Clock()
    rate_limiter = RateLimiter(clock, rate)

    async def work():
        for _ in range(5):
            await rate_limiter.throttle(10)
        return clock.seconds()

    over = []
    begin(work()).addCallback(over.append)
    for _ in range(100):
        clock.advance(0.5)
    assert over == [seconds]


def test_idle_time_is_not_saved_up():
    clock = Clock()
    rate_limiter = RateLimiter(clock, 10)
    begin(rate_limiter.throttle(10))
    clock.advance(1000)
    paid = [begin(rate_limiter.throttle(10)) for _ in range(2)]
    assert [deferred.called for deferred in paid] == [True, False]
