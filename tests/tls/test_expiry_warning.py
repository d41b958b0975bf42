"""The daily warning before a certificate expires."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.task import Clock
from twisted.logger import formatEvent

from tests.support.certificates import Authority
from twisted_registry.tls.interfaces import CertificateBundle
from twisted_registry.tls.reload import WARNING_INTERVAL_S, ExpiryWarning

AUTHORITY = Authority()


def test_expiring_certificate_is_logged_each_day(log_events):
    clock = Clock()
    clock.rightNow = datetime.now(UTC).timestamp()
    issued = [AUTHORITY.issue("a.example", days=30)]
    warning = ExpiryWarning(
        clock, lambda: CertificateBundle(issued[-1].certificate, issued[-1].key)
    )
    warning.startService()
    ((level, text),) = _levels_and_texts(log_events)
    assert (level, text.partition(",")[0]) == ("info", "certificate for a.example")
    clock.pump([WARNING_INTERVAL_S] * 24)
    assert len(_levels_and_texts(log_events)) == 1
    clock.pump([WARNING_INTERVAL_S] * 7)
    levels, texts = zip(*_levels_and_texts(log_events)[1:], strict=True)
    assert set(levels) == {"warn"}
    assert ["renew it" in text for text in texts] == [True] * 5 + [False] * 2
    assert ["expired at" in text for text in texts] == [False] * 5 + [True] * 2
    issued.append(AUTHORITY.issue("a.example", days=90))
    clock.pump([WARNING_INTERVAL_S] * 3)
    assert len(_levels_and_texts(log_events)) == 8
    warning.stopService()
    assert not clock.getDelayedCalls()


def _levels_and_texts(events):
    """The level and the text of each event, without those of what other tests have left."""
    return [
        (event["log_level"].name, formatEvent(event))
        for event in events
        if event["log_namespace"].startswith("twisted_registry.")
    ]
