"""``conf/access.yml``, the example of a team: what it says comes true."""

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


def loaded(text=TEXT):
    found = load_text(text, {}, "conf/access.yml")
    assert (found.warnings, found.notices) == ((), ())
    return found.configuration


def allowed(configuration, name, repository):
    policy = make_access_policy(configuration.access, AuthenticatedPolicy())
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
def test_who_may_what(name, repository, actions):
    assert allowed(loaded(), name, repository) == actions


def test_there_are_passwords_and_tokens():
    found = loaded()
    assert found.auth.htpasswd.path == "./registry-users"
    assert found.tokens.lifetime == 300
    assert not found.http.tls.is_enabled


def test_the_least_that_there_is():
    short = re.sub(r"(?ms)^  groups:.*?(?=^  # Give tokens)", "", TEXT)
    found = loaded(re.sub(r"(?m)^  # ((?:anonymous|authenticated): .*)", r"  \1", short))
    assert found.access.rules == ()
    assert allowed(found, "", "a") == {"pull"}
    assert allowed(found, "somebody", "a") == {"pull", "push"}


def test_tls_is_made_when_it_is_asked_for():
    found = loaded(re.sub(r"(?m)^  # (tls:|  auto:|    hosts: .*)$", r"  \1", TEXT))
    assert found.http.tls.auto.hosts == ("registry.example.com",)
