"""Entries of the audit log: their lines, and those of logins and refusals."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from tests.support.decisions import decide
from tests.support.passwords import basic_caller, password_lines
from twisted_registry.auth.access import AnonymousOnly, SchemeAccess
from twisted_registry.auth.audit import (
    LOGIN_INTERVAL_S,
    MAX_TEXT_CHARS,
    AuditRecord,
    LoginAudit,
    login_method,
)
from twisted_registry.auth.basic import make_basic_scheme
from twisted_registry.auth.certificates import CertificateAccess, CertificateUserRule
from twisted_registry.auth.check_queue import FREE_FAILURES
from twisted_registry.auth.interfaces import Access, Caller
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.oci.linear_regex import LinearRegex
from twisted_registry.tls.interfaces import ClientCertificate


class Entries(list):
    """An audit log in memory."""

    record = list.append


def caller(name, password="secret", address="192.0.2.1"):
    return evolve(basic_caller(name, password), address=address, peer="10.0.0.1")


@pytest.fixture
def entries():
    return Entries()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def audit(entries, clock):
    return LoginAudit(entries, clock)


def test_a_line_has_the_time_and_the_fields_that_are_not_empty():
    record = AuditRecord("push", user="ada", status=201, detail={"tags": "a b", "blobs": 0})
    line = record.to_line(1_700_000_000.25)
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "event": "push",
        "outcome": "success",
        "user": "ada",
        "status": 201,
        "tags": "a b",
        "blobs": 0,
    }


def test_a_line_has_printable_ascii_only_and_is_bounded():
    nasty = 'a"\n\r\x1b[31m\x00\x7f\x85\u2028\u202eß\ud800' + "x" * 10_000
    record = AuditRecord("push", user=nasty, reference=nasty, detail={"tags": nasty})
    line = record.to_line(0.0)
    assert all(32 <= byte < 127 for byte in line[:-1])
    assert len(line) < 4096
    document = json.loads(line)
    for name in ("user", "reference", "tags"):
        assert document[name] == nasty[: MAX_TEXT_CHARS - 3] + "..."


def test_requests_of_a_user_from_an_address_are_one_login(audit, entries, clock):
    for _ in range(3):
        audit.request_authenticated("ada", caller("ada"))
        clock.advance(LOGIN_INTERVAL_S - 1)
    (entry,) = entries
    assert (entry.event, entry.outcome, entry.user, entry.login) == (
        *("login", "success", "ada", "password"),
    )
    assert (entry.address, entry.peer) == ("192.0.2.1", "10.0.0.1")


def test_another_address_user_or_pause_is_another_login(audit, entries, clock):
    audit.request_authenticated("ada", caller("ada"))
    audit.request_authenticated("ada", caller("ada", address="192.0.2.2"))
    audit.request_authenticated("bob", caller("bob"))
    clock.advance(LOGIN_INTERVAL_S)
    audit.request_authenticated("ada", caller("ada"))
    clock.advance(-1)
    audit.request_authenticated("ada", caller("ada"))
    audit.request_authenticated("", Caller())
    assert [(entry.user, entry.address) for entry in entries] == [
        ("ada", "192.0.2.1"),
        ("ada", "192.0.2.2"),
        ("bob", "192.0.2.1"),
        ("ada", "192.0.2.1"),
        ("ada", "192.0.2.1"),
    ]


@pytest.mark.parametrize(
    ("user", "sent", "method"),
    [
        ("ada", basic_caller("ada", "x"), "password"),
        ("robot:ci", basic_caller("any", "x"), "robot"),
        ("ci:job", basic_caller("any", "x"), "oidc"),
        ("ada", Caller("Bearer x"), "token"),
        ("ada", Caller(certificate=ClientCertificate("CN=ada")), "certificate"),
        ("", Caller(certificate=ClientCertificate("CN=ada")), ""),
        ("", Caller(), ""),
    ],
)
def test_the_method_of_a_login(user, sent, method):
    assert login_method(user, sent) == method


@pytest.mark.parametrize(
    ("sent", "user"),
    [
        (basic_caller("ada", "secret"), "ada"),
        (basic_caller("twr_0123", ""), "(a token)"),
        (basic_caller("eyJhbGciOi", ""), "(a token)"),
        (Caller("Bearer secret"), ""),
        (Caller("Basic !"), ""),
    ],
)
def test_a_failed_login_names_the_claimed_user_and_no_secret(audit, entries, sent, user):
    audit.login_failed(ErrorCode.UNAUTHORIZED, sent)
    (entry,) = entries
    assert (entry.event, entry.outcome, entry.user) == ("login", "failure", user)
    assert (entry.status, entry.error) == (401, "UNAUTHORIZED")
    assert b"secret" not in entry.to_line(0.0)


def test_an_access_controller_records_logins_and_refusals(password_file, audit, entries):
    password_file.write(password_lines(ada="secret"))
    scheme = make_basic_scheme("here", password_file.checker(), password_file.clock)
    policy = AccessPolicy((AccessRule(Right.make(["team/**"], ["pull"]), authenticated=True),))
    access = SchemeAccess(scheme, policy, audit)
    mine, other = (Access("repository", name, "pull") for name in ("team/a", "other"))
    for sent, wanted in (
        (caller("ada"), mine),
        (caller("ada"), mine),
        (caller("ada", "wrong"), mine),
        (Caller(), mine),
        (caller("ada"), other),
    ):
        decide(access, sent, [wanted])
    assert [(entry.event, entry.outcome, entry.error) for entry in entries] == [
        ("login", "success", ""),
        ("login", "failure", "UNAUTHORIZED"),
        ("access", "denied", "DENIED"),
    ]
    assert entries[2].repository == "other"
    assert entries[2].detail == {"accesses": "repository:other:pull"}


def test_delayed_logins_are_recorded(password_file, audit, entries):
    password_file.write(password_lines(ada="secret"))
    scheme = make_basic_scheme("here", password_file.checker(), password_file.clock)
    access = SchemeAccess(scheme, AccessPolicy(()), audit)
    for number in range(FREE_FAILURES + 2):
        decide(access, caller("ada", f"wrong {number}"), [Access("repository", "a", "pull")])
    assert (entries[-1].user, entries[-1].status, entries[-1].error) == (
        *("ada", 429, "TOOMANYREQUESTS"),
    )


def test_a_certificate_logs_in(audit, entries):
    rule = CertificateUserRule("cn", LinearRegex("(.*)"), "{1}")
    policy = AccessPolicy((AccessRule(Right.make(["a"], ["pull"]), frozenset({"ada"})),))
    access = CertificateAccess([rule], policy, AnonymousOnly(policy, audit), audit)
    sent = Caller(certificate=ClientCertificate("CN=ada", ("ada",)))
    for name in ("a", "b"):
        decide(access, sent, [Access("repository", name, "pull")])
    decide(access, Caller(address="192.0.2.9"), [Access("repository", "a", "pull")])
    assert [(entry.event, entry.user, entry.login) for entry in entries] == [
        ("login", "ada", "certificate"),
        ("access", "ada", "certificate"),
        ("access", "", ""),
    ]
