"""The service that orders certificates."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from twisted_registry.acme.cache import ACMECache
from twisted_registry.acme.client import ACMEError
from twisted_registry.acme.renewal import CHECK_INTERVAL_S, CertificateRenewal

HOUR = 3600.0


class Orders:
    """Orders with a result that the test sets: an error, None, or a Deferred to wait for."""

    def __init__(self):
        self.asked = 0
        self.outcome = None

    async def order(self):
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is not None:
            await self.outcome


class Renewing:
    """A CertificateRenewal whose time of renewal the test sets."""

    def __init__(self, folder):
        self.clock = Clock()
        self.clock.rightNow = 1e9
        self.orders = Orders()
        self.renewed = 0
        self.renew_at = 0.0
        self.cache = ACMECache(folder, ("a.example",), self.clock.seconds)
        self.cache.load()
        self.renewal = CertificateRenewal(
            self.clock, self.cache, self.orders, self._in_thread, self._renewed
        )

    def _in_thread(self, call):
        assert call == self.cache.renew_at
        return execute(lambda: self.renew_at)

    def _renewed(self):
        self.renewed += 1
        self.renew_at = self.clock.seconds() + 60 * 24 * HOUR

    def wait(self, seconds):
        for _ in range(int(seconds // CHECK_INTERVAL_S)):
            self.clock.advance(CHECK_INTERVAL_S)


@pytest.fixture
def renewing(tmp_path):
    made = Renewing(tmp_path)
    yield made
    if made.renewal.running:
        made.renewal.stopService()
    assert not made.clock.getDelayedCalls()
    with made.cache.order_lock() as acquired:
        assert acquired


def test_order_at_the_start_and_when_due(renewing):
    renewing.renewal.startService()
    assert (renewing.orders.asked, renewing.renewed) == (1, 1)
    renewing.wait(59 * 24 * HOUR)
    assert renewing.orders.asked == 1
    renewing.wait(25 * HOUR)
    assert (renewing.orders.asked, renewing.renewed) == (2, 2)


def test_lost_certificate_is_ordered_within_an_hour(renewing):
    renewing.renewal.startService()
    renewing.renew_at = 0.0
    renewing.wait(HOUR)
    assert renewing.orders.asked == 2


def test_failed_order_is_repeated_after_increasing_pauses(renewing, log_lines):
    renewing.orders.outcome = ACMEError("no")
    renewing.renewal.startService()
    assert log_lines == [
        "http.tls.letsencrypt: no; next attempt in 10 minutes; the certificate in use stays"
    ]
    renewing.wait(HOUR - CHECK_INTERVAL_S)
    # Let's Encrypt allows five failures in an hour.
    assert renewing.orders.asked == 3
    renewing.wait(10 * 24 * HOUR)
    before = renewing.orders.asked
    renewing.wait(2 * 24 * HOUR)
    assert renewing.orders.asked == before + 2
    assert renewing.renewed == 0
    renewing.orders.outcome = None
    renewing.wait(24 * HOUR)
    assert renewing.renewed == 1
    renewing.renew_at = 0.0
    renewing.orders.outcome = ACMEError("no")
    log_lines.clear()
    renewing.wait(HOUR)
    assert "next attempt in 10 minutes" in log_lines[0]


def test_retry_after_of_the_server_is_respected(renewing):
    renewing.orders.outcome = ACMEError("slowly", 48 * HOUR)
    renewing.renewal.startService()
    renewing.wait(47 * HOUR)
    assert renewing.orders.asked == 1
    renewing.wait(HOUR)
    assert renewing.orders.asked == 2


def test_retry_now_skips_the_pause(renewing):
    renewing.orders.outcome = ACMEError("no", 48 * HOUR)
    renewing.renewal.startService()
    renewing.renewal.retry_now()
    renewing.wait(CHECK_INTERVAL_S)
    assert renewing.orders.asked == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left", "/f"), "letsencrypt: cachefile: /f: No space left; next"),
        (KeyError("status"), "letsencrypt: KeyError: 'status'; next attempt in"),
    ],
)
def test_unexpected_error_is_logged_and_retried(renewing, log_lines, error, said):
    renewing.orders.outcome = error
    renewing.renewal.startService()
    assert said in log_lines[-1]
    renewing.orders.outcome = None
    renewing.wait(HOUR)
    assert renewing.renewed == 1


def test_order_times_out_after_half_an_hour(renewing, log_lines):
    renewing.orders.outcome = Deferred()
    renewing.renewal.startService()
    renewing.wait(HOUR / 2 - CHECK_INTERVAL_S)
    assert (renewing.orders.asked, log_lines) == (1, [])
    renewing.wait(CHECK_INTERVAL_S)
    assert "no certificate within 1800 s; next attempt in 10 minutes" in log_lines[-1]


def test_stop_cancels_an_order(renewing, log_lines):
    cancelled = []
    renewing.orders.outcome = Deferred(cancelled.append)
    renewing.renewal.startService()
    stopped = renewing.renewal.stopService()
    assert stopped.called
    assert len(cancelled) == 1
    assert log_lines == []


def test_stop_logs_no_failure(renewing, log_lines):
    renewing.orders.outcome = Deferred(lambda waiting: waiting.errback(ACMEError("lost")))
    renewing.renewal.startService()
    assert renewing.renewal.stopService().called
    assert log_lines == []


def test_no_order_while_another_process_orders(renewing):
    with renewing.cache.order_lock():
        renewing.renewal.startService()
        renewing.wait(HOUR)
        assert renewing.orders.asked == 0
    renewing.wait(HOUR)
    assert renewing.orders.asked == 1
