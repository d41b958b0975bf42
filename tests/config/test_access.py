"""The ``access`` section: faults, implied tokens, overrides and output."""

from __future__ import annotations

import pytest

from tests.config.config_loading import MEMORY, config_error, load_config
from twisted_registry.config.access import Rule
from twisted_registry.config.loading import masked_data
from twisted_registry.oci.patterns import GLOB_SYNTAX


def load_access(access, **environ):
    return load_config(f"{MEMORY}access: {access}\n", **environ)


TRUSTED = "audience: a, rules: [{claims: {sub: x}, repositories: [a], allow: [pull]}]"
SOUND = "repositories: ['**'], users: [ada], allow: [pull]"


@pytest.mark.parametrize(
    ("access", "line"),
    [
        (
            "{anonymous: [read]}",
            "access.anonymous[0]: got 'read', expected pull, push, delete or admin (f line 3)",
        ),
        (
            "{anonymous: true}",
            "access.anonymous: got 'true', expected a list of actions (f line 3)",
        ),
        (
            "{anonymos: [pull]}",
            (
                "access.anonymos: unknown key, expected one of anonymous, authenticated,"
                " groups, rules, quotas, issuers, tokens; did you mean anonymous? (f line 3)"
            ),
        ),
        (
            "{rules: [{user: [ada]}]}",
            (
                "RULE.user: unknown key, expected one of repositories, users, groups,"
                " authenticated, anonymous, allow; did you mean users? (f line 3)"
            ),
        ),
        (
            "{rules: [{repositories: ['a**'], users: [ada], allow: [pull]}]}",
            f"RULE.repositories[0]: got 'a**', expected {GLOB_SYNTAX} (f line 3)",
        ),
        (
            "{rules: [{users: [ada], allow: [pull]}]}",
            "RULE.repositories: this key is required (f line 3)",
        ),
        (
            "{rules: [{repositories: ['!a', '!b'], users: [ada], allow: [pull]}]}",
            (
                "RULE.repositories: got '!a, !b', expected at least one pattern without !,"
                " such as ** (f line 3)"
            ),
        ),
        (
            "{rules: [{repositories: [a], allow: [pull]}]}",
            (
                "RULE: got no users, expected users, groups, authenticated: true or"
                " anonymous: true (f line 3)"
            ),
        ),
        (
            "{rules: [{repositories: [a], users: [ada]}]}",
            "RULE.allow: got none, expected some of pull, push, delete, admin (f line 3)",
        ),
        (
            "{rules: [{repositories: [a], users: ['*'], allow: [pull]}]}",
            (
                "RULE.users: got '*', expected names of users; use authenticated: true for"
                " every authenticated user (f line 3)"
            ),
        ),
        (
            "{tokens: {lifetime: 30s}}",
            "access.tokens.lifetime: got '30s', expected a duration of at least 1m (f line 3)",
        ),
        (
            "{tokens: {key: secret-key}}",
            (
                "access.tokens.key: got ******, expected 64 hexadecimal digits,"
                " as printed by openssl rand -hex 32 (f line 3)"
            ),
        ),
        (
            f"{{tokens: {{key: {'0' * 64}, keyfile: /keys}}}}",
            "access.tokens.key: cannot be used with access.tokens.keyfile (f line 3)",
        ),
        (
            "{tokens: {refreshlimit: 0}}",
            "access.tokens.refreshlimit: got '0', expected an integer, 1 or more (f line 3)",
        ),
        (
            "{tokens: {}}\nauth: {silly: {realm: r, service: s}}",
            (
                "access.tokens: cannot be used with auth.silly; use auth.htpasswd, or no auth"
                " section (f line 3)"
            ),
        ),
        (
            f"{{tokens: {{}}, issuers: [{{issuer: 'http://ci.example', {TRUSTED}}}]}}",
            (
                "ISSUER.issuer: got 'http://ci.example', expected an https URL, because keys"
                " sent without TLS can be forged (f line 3)"
            ),
        ),
        (
            f"{{tokens: {{}}, issuers: [{{issuer: https://a, {TRUSTED.replace('sub: x', '')}}}]}}",
            (
                "ISSUER.rules[0].claims: got none, expected a claim such as sub, because an"
                " issuer signs tokens for all of its users (f line 3)"
            ),
        ),
        (
            f"{{tokens: {{}}, issuers: [{', '.join(2 * [f'{{issuer: https://a, {TRUSTED}}}'])}]}}",
            "access.issuers[1].issuer: got 'https://a' again, expected each issuer once (f line 3)",
        ),
        (
            f"{{issuers: [{{issuer: 'https://ci.example', {TRUSTED}}}]}}",
            "access.issuers: access.tokens is required for issuers (f line 3)",
        ),
        (
            f"{{tokens: {{disabled: true}}, issuers: [{{issuer: 'https://a', {TRUSTED}}}]}}",
            "access.issuers: access.tokens is required for issuers (f line 3)",
        ),
        (
            "{quotas: [{repositories: ['!a'], bytes: 1GiB}]}",
            (
                "access.quotas[0].repositories: got '!a', expected at least one pattern without !,"
                " such as ** (f line 3)"
            ),
        ),
        (
            "{quotas: [{repositories: [a], bytes: 0}]}",
            (
                "access.quotas[0].bytes: got '0', expected a number of bytes, 1 or more, such as"
                " 4194304 or 4MiB (f line 3)"
            ),
        ),
        (
            "{quotas: [{repositories: [a]}]}",
            "access.quotas[0].bytes: this key is required (f line 3)",
        ),
        (
            "{quotas: [{repositories: [a], bytes: 1, users: ['*']}]}",
            (
                "access.quotas[0].users: got '*', expected names of users; use authenticated: true"
                " for every authenticated user (f line 3)"
            ),
        ),
        (
            "{quotas: [{repositories: [a], bytes: 1, groups: [b]}]}",
            (
                "access.quotas[0].groups: unknown key, expected one of repositories, users,"
                " authenticated, bytes (f line 3)"
            ),
        ),
        ("{groups: {a: b}}", "access.groups.a: got 'b', expected a list of users (f line 3)"),
        ("[]", "access: got a list, expected a section (f line 3)"),
    ],
)
def test_a_wrong_section_is_reported_in_one_line(access, line):
    error = config_error(f"{MEMORY}access: {access}\n")
    assert line in [
        str(fault).replace("access.rules[0]", "RULE").replace("access.issuers[0]", "ISSUER")
        for fault in error.faults
    ]


USERS = "\nauth: {htpasswd: {realm: r, path: p}}"
OPEN = "rules: [{repositories: [a], anonymous: true, allow: [pull]}]"


@pytest.mark.parametrize(
    ("access", "given"),
    [
        ("{tokens: {}}", True),
        ("{anonymous: [pull]}", False),
        (f"{{authenticated: [pull]}}{USERS}", False),
        (f"{{anonymous: [pull]}}{USERS}", True),
        (f"{{{OPEN}}}{USERS}", True),
        (f"{{{OPEN}, issuers: [{{issuer: 'https://ci.example', {TRUSTED}}}]}}{USERS}", True),
        (f"{{anonymous: [pull], tokens: {{disabled: true}}}}{USERS}", False),
        ("{anonymous: [pull]}\nauth: {silly: {realm: r, service: s}}", False),
    ],
)
def test_anonymous_access_beside_htpasswd_implies_tokens(access, given):
    """docker without a login only pulls from registries that issue tokens."""
    assert bool(load_access(access).configuration.tokens) is given
    assert load_config(MEMORY).configuration.tokens is None


def test_an_unknown_group_adds_a_warning():
    result = load_access(
        "{groups: {a: [ada]}, rules: [{repositories: [x], groups: [a, b], allow: [pull]}]}"
    )
    assert list(result.warnings) == [
        (
            "access.rules[0].groups: the group 'b' has no members; neither access.groups nor"
            " http.tls.clientusers has it"
        )
    ]


def test_a_group_of_client_certificates_is_known():
    result = load_access(
        "{rules: [{repositories: [x], groups: [robots], allow: [pull]}]}\n"
        "http: {tls: {certificate: c, key: k, clientcas: [a], clientusers: [{groups: [robots]}]}}"
    )
    assert list(result.warnings) == []


def test_the_environment_overrides_lists_and_rules():
    access = load_access(
        f"{{rules: [{{{SOUND}}}]}}",
        ACCESS_ANONYMOUS="[pull]",
        ACCESS_RULES_0_ALLOW="[push]",
    ).configuration.access
    assert access.anonymous == ("pull",)
    assert access.rules == (Rule(repositories=("**",), users=("ada",), allow=("push",)),)


@pytest.mark.parametrize(
    ("text", "wanted"), [("", True), ("{}", True), ("{anonymous: [pull]}", True)]
)
def test_an_empty_section_controls_access(text, wanted):
    assert load_access(text).configuration.controls_access is wanted
    assert not load_config(MEMORY).configuration.controls_access


QUOTA = "quotas: [{repositories: [a/**], bytes: 2TiB, users: [ada]}]"


@pytest.mark.parametrize(
    ("more", "wanted"), [("", False), (", anonymous: [pull]", True), (", tokens: {}", True)]
)
def test_quotas_alone_do_not_control_access(more, wanted):
    configuration = load_access(f"{{{QUOTA}{more}}}").configuration
    assert configuration.controls_access is wanted
    (quota,) = configuration.access.quotas
    assert (quota.repositories, quota.users, quota.bytes) == (("a/**",), ("ada",), 2 * 2**40)


def test_rules_are_printed_with_defaults():
    configuration = load_access(f"{{rules: [{{{SOUND}}}]}}").configuration
    assert masked_data(configuration)["access"]["rules"] == [
        {"repositories": ["**"], "users": ["ada"], "authenticated": False, "anonymous": False,
         "allow": ["pull"]},
    ]  # fmt: skip
