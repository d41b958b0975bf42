"""What goes too fast waits, and nothing else does."""

from __future__ import annotations

import pytest
from domain import begin
from twisted.internet.task import Clock

from twisted_registry.maintenance.pace import Pace


@pytest.mark.parametrize(("rate", "seconds"), [(10, 4.0), (0, 0.0)])
def test_so_many_in_a_second(rate, seconds):
    clock = Clock()
    pace = Pace(clock, rate)

    async def work():
        for _ in range(5):
            await pace.pay(10)
        return clock.seconds()

    over = []
    begin(work()).addCallback(over.append)
    for _ in range(100):
        clock.advance(0.5)
    assert over == [seconds]


def test_a_rest_is_not_made_up_for():
    clock = Clock()
    pace = Pace(clock, 10)
    begin(pace.pay(10))
    clock.advance(1000)
    paid = [begin(pace.pay(10)) for _ in range(2)]
    assert [deferred.called for deferred in paid] == [True, False]
