"""``access``: what is wrong stops the start with one line."""

from __future__ import annotations

import pytest

from twisted_registry.config.access import Rule
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load_text, masked_data


def loaded(access, **environ):
    return load_text(f"version: 0.1\nstorage: inmemory\naccess: {access}\n", environ, "f")


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
                "access.anonymos: unknown; known are anonymous, authenticated, groups, rules,"
                " issuers, tokens (f line 3)"
            ),
        ),
        (
            "{rules: [{user: [ada]}]}",
            (
                "RULE.user: unknown; known are repositories, users, groups, authenticated,"
                " anonymous, allow (f line 3)"
            ),
        ),
        (
            "{rules: [{repositories: ['a**'], users: [ada], allow: [pull]}]}",
            (
                "RULE.repositories[0]: got 'a**', expected a repository's name, in which *"
                " stands for any part of a component and ** for any number of them, as library/* or"
                " team/**; with ! in front to take it away (f line 3)"
            ),
        ),
        (
            "{rules: [{users: [ada], allow: [pull]}]}",
            "RULE.repositories: the key is required (f line 3)",
        ),
        (
            "{rules: [{repositories: ['!a', '!b'], users: [ada], allow: [pull]}]}",
            ("RULE.repositories: got '!a, !b', expected at least one pattern without !, as **"),
        ),
        (
            "{rules: [{repositories: [a], allow: [pull]}]}",
            (
                "RULE: the rule names nobody; it needs users, groups, authenticated: true or"
                " anonymous: true"
            ),
        ),
        (
            "{rules: [{repositories: [a], users: [ada]}]}",
            "RULE.allow: got nothing, expected some of pull, push, delete, admin",
        ),
        (
            "{rules: [{repositories: [a], users: ['*'], allow: [pull]}]}",
            (
                "RULE.users: got '*', expected names of users; authenticated: true is"
                " everybody who has logged in"
            ),
        ),
        (
            "{tokens: {lifetime: 30s}}",
            "access.tokens.lifetime: got '30s', expected a duration from 1m (f line 3)",
        ),
        (
            "{tokens: {rotation: 1h, lifetime: 2h}}",
            "access.tokens.rotation: got 1h, expected at least the lifetime of a token",
        ),
        (
            "{tokens: {}}\nauth: {silly: {realm: r, service: s}}",
            (
                "access.tokens: auth.silly has tokens of its own; it goes with auth.htpasswd, or"
                " without auth"
            ),
        ),
        (
            f"{{tokens: {{}}, issuers: [{{issuer: 'http://ci.example', {TRUSTED}}}]}}",
            (
                "ISSUER.issuer: got 'http://ci.example', expected an https URL: whoever is"
                " on the way could sign tokens"
            ),
        ),
        (
            f"{{tokens: {{}}, issuers: [{{issuer: https://a, {TRUSTED.replace('sub: x', '')}}}]}}",
            (
                "ISSUER.rules[0].claims: got nothing, expected a claim, as sub: an issuer"
                " speaks for everybody who uses it"
            ),
        ),
        (
            f"{{tokens: {{}}, issuers: [{', '.join(2 * [f'{{issuer: https://a, {TRUSTED}}}'])}]}}",
            "access.issuers[1].issuer: got 'https://a' again, expected each but once",
        ),
        (
            f"{{issuers: [{{issuer: 'https://ci.example', {TRUSTED}}}]}}",
            "access.issuers: access.tokens is needed to give them tokens",
        ),
        (
            f"{{tokens: {{disabled: true}}, issuers: [{{issuer: 'https://a', {TRUSTED}}}]}}",
            "access.issuers: access.tokens is needed to give them tokens",
        ),
        ("{groups: {a: b}}", "access.groups.a: got 'b', expected a list of users (f line 3)"),
        ("[]", "access: got a list, expected a section (f line 3)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(access, line):
    with pytest.raises(ConfigurationError) as caught:
        loaded(access)
    assert line in [
        str(fault).replace("access.rules[0]", "RULE").replace("access.issuers[0]", "ISSUER")
        for fault in caught.value.faults
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
def test_strangers_are_let_in_by_tokens(access, given):
    """docker shows whoever has no login what is open only where tokens are given."""
    assert bool(loaded(access).configuration.tokens) is given
    assert load_text("version: 0.1\nstorage: inmemory\n", {}).configuration.tokens is None


def test_a_group_that_nobody_is_in_is_warned_of():
    said = loaded(
        "{groups: {a: [ada]}, rules: [{repositories: [x], groups: [a, b], allow: [pull]}]}"
    )
    assert list(said.warnings) == [
        "access.rules[0].groups: nobody is in 'b', unless a login says so"
    ]


def test_the_environment_can_set_it():
    access = loaded(
        f"{{rules: [{{{SOUND}}}]}}",
        REGISTRY_ACCESS_ANONYMOUS="[pull]",
        REGISTRY_ACCESS_RULES_0_ALLOW="[push]",
    ).configuration.access
    assert access.anonymous == ("pull",)
    assert access.rules == (Rule(repositories=("**",), users=("ada",), allow=("push",)),)


@pytest.mark.parametrize(
    ("text", "wanted"), [("", True), ("{}", True), ("{anonymous: [pull]}", True)]
)
def test_the_section_counts_even_if_it_is_empty(text, wanted):
    assert loaded(text).configuration.controls_access is wanted
    assert not load_text("version: 0.1\nstorage: inmemory\n", {}).configuration.controls_access


def test_it_is_printed_as_it_holds():
    configuration = loaded(f"{{rules: [{{{SOUND}}}]}}").configuration
    assert masked_data(configuration)["access"]["rules"] == [
        {"repositories": ["**"], "users": ["ada"], "authenticated": False, "anonymous": False,
         "allow": ["pull"]},
    ]  # fmt: skip
