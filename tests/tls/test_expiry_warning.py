"""Telling of certificates that nobody has renewed."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.task import Clock
from twisted.logger import formatEvent

from tests.support.certificates import Authority
from twisted_registry.tls.context import CertificateBundle
from twisted_registry.tls.reload import WARNING_INTERVAL_S, ExpiryWarning

AUTHORITY = Authority()


def test_an_operator_is_reminded_each_day(log_events):
    clock = Clock()
    clock.rightNow = datetime.now(UTC).timestamp()
    shown = [AUTHORITY.issue("a.example", days=30)]
    reminder = ExpiryWarning(clock, lambda: CertificateBundle(shown[-1].certificate, shown[-1].key))
    reminder.startService()
    ((level, text),) = _said(log_events)
    assert (level, text.partition(",")[0]) == ("info", "certificate for a.example")
    clock.pump([WARNING_INTERVAL_S] * 24)
    assert len(log_events) == 1
    clock.pump([WARNING_INTERVAL_S] * 7)
    levels, texts = zip(*_said(log_events)[1:], strict=True)
    assert set(levels) == {"warn"}
    assert ["refuse it" in text for text in texts] == [True] * 5 + [False] * 2
    assert ["is not valid since" in text for text in texts] == [False] * 5 + [True] * 2
    shown.append(AUTHORITY.issue("a.example", days=90))
    clock.pump([WARNING_INTERVAL_S] * 3)
    assert len(log_events) == 8
    reminder.stopService()
    assert not clock.getDelayedCalls()


def _said(events):
    """Level and text of each."""
    return [(event["log_level"].name, formatEvent(event)) for event in events]
