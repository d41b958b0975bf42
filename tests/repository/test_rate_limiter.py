"""What goes too fast waits, and nothing else does."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.repository.worlds import begin
from twisted_registry.repository.concurrency import RateLimiter


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
