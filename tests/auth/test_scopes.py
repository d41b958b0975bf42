"""Scopes: requested, granted, and in a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from twisted_registry.auth.interfaces import ANONYMOUS, CATALOG, Access, IScope
from twisted_registry.auth.scopes import (
    MAX_RESOURCES,
    ResourceActions,
    Scope,
    grant_scope,
    parse_scopes,
)


def allowed(scope, name="a/b", type_="repository"):
    return {
        action
        for action in ("pull", "push", "delete", "*")
        if scope.allows(ANONYMOUS, Access(type_, name, action))
    }


def test_access_claim_is_parsed():
    scope = Scope.from_claim([
        {"type": "repository", "class": "", "name": "a/b", "actions": ["pull"]},
        {"type": "repository", "name": "a/b", "actions": ["push", "other"]},
        {"type": "repository", "name": "all", "actions": ["*"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
        {"type": "something", "name": "else", "actions": None},
    ])  # fmt: skip
    assert verifyObject(IScope, scope)
    assert allowed(scope) == {"pull", "push"}
    assert allowed(scope, "all") == {"pull", "push", "delete", "*"}
    assert (
        allowed(scope, "a") == allowed(scope, "a/b/c") == allowed(scope, "a/b", "registry") == set()
    )
    assert scope.allows(ANONYMOUS, CATALOG)
    assert allowed(Scope.from_claim(None)) == allowed(Scope.from_claim([])) == set()


@pytest.mark.parametrize(
    "claim",
    [
        {},
        "repository:a/b:pull",
        [1],
        ["repository:a/b:pull"],
        [{"type": None}],
        [{"type": "repository", "name": "a", "actions": "pull"}],
        [{"type": "repository", "name": ["a"], "actions": ["pull"]}],
        [{"type": "repository", "name": "a", "actions": [["pull"]]}],
    ],
)
def test_malformed_access_claim_is_an_error(claim):
    with pytest.raises(ValueError, match="access"):
        Scope.from_claim(claim)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["repository:a/b:pull,push"], "repository:a/b:pull,push"),
        (["repository:a:pull registry:catalog:*"], "repository:a:pull registry:catalog:*"),
        (["repository:a:pull", "repository:b:push"], "repository:a:pull repository:b:push"),
        (["repository:host:5000/a:pull", "repository:a/../b:pull", "repository:**:pull"], ""),
        (["repository:A:pull", "repository:a%2Fb:pull", "registry:other:*"], ""),
        (["repository(plugin):a:pull,pull"], "repository:a:pull"),
        (["repository:a:pull,read"], "repository:a:pull"),
        (["repository:a:read", "user:a:pull", "repository::pull", "pull", ":", "", "a:b"], ""),
    ],
)
def test_requested_scopes_are_parsed(texts, expected):
    assert " ".join(map(str, parse_scopes(texts))) == expected


def test_number_of_requested_resources_is_limited():
    assert (
        len(parse_scopes([f"repository:{number}:pull" for number in range(MAX_RESOURCES + 5)]))
        == MAX_RESOURCES
    )


@given(st.lists(st.text(max_size=40), max_size=5))
def test_requested_scopes_are_never_an_error(texts):
    for part in parse_scopes(texts):
        assert part.name
        assert set(part.actions) <= {"pull", "push", "delete", "*"}


def test_granted_scope_is_the_allowed_part():
    asked = parse_scopes(["repository:a:pull,push,delete repository:b:push registry:catalog:*"])
    scope = grant_scope(asked, lambda access: access.name == "a" and access.action != "delete")
    assert scope == Scope((ResourceActions("repository", "a", ("pull", "push")),))
    assert [part.as_json() for part in scope.resources] == [
        {"type": "repository", "name": "a", "actions": ["pull", "push"]}
    ]
    assert Scope.from_claim([part.as_json() for part in scope.resources]) == scope
