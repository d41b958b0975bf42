from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.certificates import Authority
from twisted_registry.tls.certificates import describe_certificate

DAY = 24 * 3600.0
NOW = datetime.now(UTC).timestamp()


def made(*hosts):
    return Authority().issue(*hosts).certificate


def test_hosts_are_named():
    text, valid = describe_certificate(made("a.example", "b.example", "10.0.0.1"), NOW)
    assert text.startswith("certificate for a.example, b.example, 10.0.0.1, valid until 2")
    assert valid
    text, _ = describe_certificate(made(), NOW)
    assert text.startswith("certificate for CN=server, valid until 2")


@pytest.mark.parametrize(("days", "said"), [(-10, "is not valid before"), (60, "expired at")])
def test_certificate_outside_its_validity(days, said):
    text, valid = describe_certificate(made("a"), NOW + days * DAY)
    assert text.startswith(f"certificate for a {said} 2")
    assert not valid


def test_certificate_that_expires_soon():
    # The certificate is for 31 days, of which one has passed.
    assert describe_certificate(made("a"), NOW + 24 * DAY)[1]
    text, well = describe_certificate(made("a"), NOW + 26.1 * DAY)
    assert text.endswith(" UTC: expires in 3 days; renew it")
    assert not well
    text, _ = describe_certificate(made("a"), datetime.now(UTC).timestamp() + 29.01 * DAY)
    assert text.endswith(" UTC: expires in 23 hours; renew it")
