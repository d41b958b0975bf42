"""The example ``conf/access.yml``: its rules, its tokens, and its commented-out parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from twisted_registry.app.access import make_access_policy
from twisted_registry.auth.access import AuthenticatedPolicy
from twisted_registry.auth.interfaces import ANONYMOUS, Access, Identity
from twisted_registry.config.loading import load_text

TEXT = (Path(__file__).parents[2] / "conf" / "access.yml").read_text()
EVERYTHING = {"pull", "push", "delete", "*"}


def load_example(text=TEXT):
    found = load_text(text, {}, "conf/access.yml")
    assert (found.warnings, found.notices) == ((), ())
    return found.configuration


def allowed(configuration, name, repository):
    policy = make_access_policy(configuration, AuthenticatedPolicy())
    identity = Identity(name) if name else ANONYMOUS
    return {
        action
        for action in EVERYTHING
        if policy.allows(identity, Access("repository", repository, action))
    }


@pytest.mark.parametrize(
    ("name", "repository", "actions"),
    [
        ("", "public/a", {"pull"}),
        ("", "team/a", set()),
        ("", "production/a", set()),
        ("ada", "team/a", {"pull", "push", "delete"}),
        ("ada", "production/a", {"pull"}),
        ("somebody", "public/a", {"pull"}),
        ("somebody", "team/a", set()),
        ("somebody", "production/a", {"pull"}),
        ("docker", "production/a", EVERYTHING),
    ],
)
def test_the_rules_allow_what_the_comments_say(name, repository, actions):
    assert allowed(load_example(), name, repository) == actions


def test_users_log_in_with_passwords_and_get_tokens():
    found = load_example()
    assert found.auth.htpasswd.path == "./registry-users"
    assert found.tokens.lifetime == 300
    assert not found.http.tls.is_enabled


def test_without_rules_the_general_permissions_apply():
    short = re.sub(r"(?ms)^  groups:.*?(?=^  # Issue tokens)", "", TEXT)
    found = load_example(re.sub(r"(?m)^  # ((?:anonymous|authenticated): .*)", r"  \1", short))
    assert found.access.rules == ()
    assert allowed(found, "", "a") == {"pull"}
    assert allowed(found, "somebody", "a") == {"pull", "push"}


def test_the_commented_tls_section_is_valid():
    found = load_example(re.sub(r"(?m)^  # (tls:|  auto:|    hosts: .*)$", r"  \1", TEXT))
    assert found.http.tls.auto.hosts == ("registry.example.com",)
