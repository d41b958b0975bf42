"""The certificate of a server: dates, chain and names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.certificates import Authority
from twisted_registry.doctor.certificates import check_authorities, check_certificate

KEY = "http.tls.certificate"
AUTHORITY = Authority()
OTHER = Authority("other")
DAY_S = 86400.0


def now():
    return datetime.now(UTC).timestamp()


def check(content, host="registry.lan", later_s=0.0):
    return check_certificate(KEY, content, now() + later_s, host)


def test_a_private_authority_is_a_warning_only():
    (found,) = check(AUTHORITY.issue("registry.lan").certificate)
    assert found.is_warning
    assert found.problem == "this machine does not trust the certificate"
    assert "unable to get" in found.evidence


def test_a_trusted_chain_is_fine(tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert check(AUTHORITY.issue("registry.lan").certificate) == []


@pytest.mark.parametrize(
    ("days", "later_s", "problem", "is_warning"),
    [
        (-1, 0.0, "expired at", False),
        (30, -40 * DAY_S, "is not valid before", False),
        (30, 28 * DAY_S, "expires in", True),
    ],
)
def test_dates(days, later_s, problem, is_warning):
    found = check(AUTHORITY.issue("registry.lan", days=days).certificate, later_s=later_s)
    assert problem in found[0].problem
    assert found[0].is_warning is is_warning
    assert found[0].evidence == "dates in the certificate"


def test_a_chain_in_the_wrong_order_is_found():
    found = check(AUTHORITY.issue("registry.lan").certificate + OTHER.pem)
    assert found[0].problem == "certificate 2 of the file did not issue the one before it"
    assert not found[0].is_warning


@pytest.mark.parametrize("host", ["registry.lan", "a.example.com", "192.0.2.1", ""])
def test_names_that_match(host):
    made = AUTHORITY.issue("registry.lan", "*.example.com", "192.0.2.1").certificate
    assert [each.is_warning for each in check(made, host)] == [True]


@pytest.mark.parametrize("host", ["other.lan", "b.a.example.com", "192.0.2.2"])
def test_names_that_do_not_match(host):
    made = AUTHORITY.issue("registry.lan", "*.example.com", "192.0.2.1").certificate
    (found,) = check(made, host)
    assert f"is not for {host}" in found.problem
    assert found.evidence == "it is for registry.lan, *.example.com, 192.0.2.1"


def test_a_certificate_without_names_is_found():
    (found,) = check(AUTHORITY.issue().certificate)
    assert found.problem == "the certificate has no host names"


def test_authorities_that_have_expired_are_found():
    assert check_authorities("http.tls.clientcas[0]", AUTHORITY.pem, now()) == []
    (found,) = check_authorities("http.tls.clientcas[0]", AUTHORITY.pem, now() + 99 * DAY_S)
    assert "expired" in found.problem
