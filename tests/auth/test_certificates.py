"""Rules that make users of client certificates, and their access controller."""

from __future__ import annotations

import pytest
from twisted.internet.defer import succeed
from zope.interface.verify import verifyObject

from tests.support.decisions import decide
from twisted_registry.app.access import make_access
from twisted_registry.auth.access import OpenGrant
from twisted_registry.auth.certificates import CertificateAccess
from twisted_registry.auth.interfaces import (
    CATALOG,
    Access,
    Caller,
    IAccessController,
    IClosableAccessController,
)
from twisted_registry.config.loading import load_text
from twisted_registry.oci.errors import RegistryError
from twisted_registry.tls.interfaces import ClientCertificate

PULL, PUSH = Access("repository", "a", "pull"), Access("repository", "a", "push")
HOLDER = ClientCertificate(
    "CN=ci-7,O=Example",
    ("ci-7",),
    ("Example", "Example Org"),
    ("build.example", "7.build.example"),
    ("ci@example.com",),
    ("spiffe://example/ns/ci/sa/builder",),
)


def make_controller(rules, more=""):
    """The controller for the rules of a configuration."""
    text = (
        "version: 0.1\nstorage: inmemory\nhttp: {tls: {certificate: /c, key: /k, clientcas: [/a],"
        f" clientusers: [{rules}]}}}}\n{more}"
    )
    loaded = load_text(text, {})
    assert all("is not in access.groups" in str(warning) for warning in loaded.warnings)
    return make_access(loaded.configuration, None, None).access


def identity_for(rules, certificate=HOLDER):
    access = make_controller(rules)
    return decide(access, Caller(certificate=certificate), ()).user


def refusal_code(access, caller, *accesses):
    error = decide(access, caller, accesses)
    assert isinstance(error, RegistryError)
    return error.code.name


@pytest.mark.parametrize(
    ("rule", "user"),
    [
        ("{}", "ci-7"),
        ("{pattern: 'ci-(.)'}", "ci-7"),
        ("{pattern: 'ci-(.)', user: 'robot{1}'}", "robot7"),
        ("{pattern: '(x)?ci-(.)', user: 'u{1}{2}{0}'}", "u7ci-7"),
        ("{from: dns, pattern: '[0-9]+[.]build[.]example'}", "7.build.example"),
        ("{from: email, pattern: '([^@]+)@example.com', user: '{1}'}", "ci"),
        ("{from: uri, pattern: 'spiffe://example/.*/sa/(.+)', user: '{1}'}", "builder"),
        ("{organization: Example Org, user: us}", "us"),
        ("{pattern: no}, {user: second}", "second"),
    ],
)
def test_first_matching_rule_makes_the_user(rule, user):
    assert identity_for(rule) == user


@pytest.mark.parametrize(
    "rule",
    [
        "{pattern: 'ci'}",
        "{pattern: 'i-7'}",
        "{organization: Exampl}",
        "{organization: example}",
        "{from: dns, pattern: 'ci-7'}",
        "{pattern: '(x)?ci-.', user: '{1}'}",
    ],
)
def test_certificate_without_a_matching_rule_is_anonymous(rule):
    assert refusal_code(make_controller(rule), Caller(certificate=HOLDER), PULL) == "DENIED"


def test_unprintable_name_is_ignored():
    odd = ClientCertificate("CN=a", ("a\nb",))
    access = make_controller("{pattern: '(?s).+'}")
    assert refusal_code(access, Caller(certificate=odd), PULL) == "DENIED"


def test_default_policy_with_certificates():
    access = make_controller("{}")
    verifyObject(IClosableAccessController, access)
    for needed in (PULL, PUSH, CATALOG):
        assert decide(access, Caller(certificate=HOLDER), (needed,)).user == "ci-7"
        assert refusal_code(access, Caller(), needed) == "DENIED"
    assert access.close().called


def test_access_rules_apply_to_users_and_groups():
    access = make_controller(
        "{groups: [robots]}",
        "access: {anonymous: [pull], rules: [{repositories: ['**'], groups: [robots],"
        " allow: [push]}]}\n",
    )
    assert decide(access, Caller(certificate=HOLDER), (PUSH,)).user == "ci-7"
    assert refusal_code(access, Caller(), PUSH) == "DENIED"
    delete = Access("repository", "a", "delete")
    assert refusal_code(access, Caller(certificate=HOLDER), delete) == "DENIED"


class PermitAll:
    """Permits everything."""

    def authorize(self, caller, accesses):
        return succeed(OpenGrant("other"))


def test_authorization_header_takes_precedence():
    access = make_controller("{}", "auth: {silly: {realm: r, service: s}}\n")
    assert decide(access, Caller(certificate=HOLDER), (PULL,)).user == "ci-7"
    both = Caller("Basic YTpi", certificate=HOLDER)
    assert decide(access, both, (PULL,)).user == "silly"
    assert refusal_code(access, Caller(), PULL) == "UNAUTHORIZED"


def test_fallback_without_close():
    access = CertificateAccess((), None, PermitAll())
    verifyObject(IAccessController, access)
    assert decide(access, Caller(certificate=HOLDER), ()).user == "other"
    assert access.close().called
