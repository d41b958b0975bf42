"""Telling of certificates that nobody has renewed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from certificates import Authority
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from twisted_registry.tls.material import Material
from twisted_registry.tls.reminding import DAY, Reminder

AUTHORITY = Authority()


@pytest.fixture
def told():
    lines = []

    def observe(event):
        lines.append((event["log_level"].name, formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_an_operator_is_reminded_each_day(told):
    clock = Clock()
    clock.rightNow = datetime.now(UTC).timestamp()
    shown = [AUTHORITY.issue("a.example", days=30)]
    reminder = Reminder(clock, lambda: Material(shown[-1].certificate, shown[-1].key))
    reminder.startService()
    ((level, text),) = told
    assert (level, text.partition(",")[0]) == ("info", "certificate for a.example")
    clock.pump([DAY] * 24)
    assert len(told) == 1
    clock.pump([DAY] * 7)
    levels, texts = zip(*told[1:], strict=True)
    assert set(levels) == {"warn"}
    assert ["refuse it" in text for text in texts] == [True] * 5 + [False] * 2
    assert ["is not valid since" in text for text in texts] == [False] * 5 + [True] * 2
    shown.append(AUTHORITY.issue("a.example", days=90))
    clock.pump([DAY] * 3)
    assert len(told) == 8
    reminder.stopService()
    assert not clock.getDelayedCalls()
