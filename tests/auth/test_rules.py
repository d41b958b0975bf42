"""The rules of ``access``: permissions and visible repositories."""

from __future__ import annotations

from weakref import ref

import pytest
from zope.interface.verify import verifyObject

from tests.support.decisions import decide
from twisted_registry.app.access import make_access_policy
from twisted_registry.auth.access import AnonymousOnly, AuthenticatedPolicy
from twisted_registry.auth.interfaces import (
    ANONYMOUS,
    CATALOG,
    MAINTENANCE,
    Access,
    Caller,
    IClosableAccessController,
    Identity,
    IIdentity,
    IPolicy,
    IRepositoryFilter,
)
from twisted_registry.auth.rules import AccessPolicy, IdentityWithRights, Right, Rights
from twisted_registry.config.loading import load_text
from twisted_registry.oci.errors import RegistryError

EVERYTHING = {"pull", "push", "delete", "*"}


def make_policy(text):
    """Return the policy of an ``access`` section."""
    below = "".join(f"  {line}\n" for line in text.splitlines())
    loaded = load_text(f"version: 0.1\nstorage: inmemory\naccess:\n{below}", {})
    assert not loaded.warnings
    return make_access_policy(loaded.configuration, AuthenticatedPolicy())


def allowed(policy, identity, name="team/app"):
    return {
        action
        for action in ("pull", "push", "delete", "*")
        if policy.allows(identity, Access("repository", name, action))
    }


ADA, BOB, EVE = Identity("ada"), Identity("bob"), Identity("eve")


def test_default_policy_without_the_section():
    configuration = load_text("version: 0.1\nstorage: inmemory\n", {}).configuration
    default = AuthenticatedPolicy()
    assert make_access_policy(configuration, default) is default


def test_quotas_alone_leave_the_default_policy():
    text = "version: 0.1\nstorage: inmemory\naccess: {quotas: [{repositories: [a], bytes: 1}]}\n"
    default = AuthenticatedPolicy()
    assert make_access_policy(load_text(text, {}).configuration, default) is default


def test_empty_section_allows_nothing():
    policy = make_access_policy(
        load_text("version: 0.1\nstorage: inmemory\naccess:\n", {}).configuration,
        AuthenticatedPolicy(),
    )
    assert verifyObject(IPolicy, policy)
    assert (allowed(policy, ADA), allowed(policy, ANONYMOUS)) == (set(), set())


def test_anonymous_pulls_and_authenticated_pushes():
    policy = make_policy("anonymous: [pull]\nauthenticated: [pull, push]")
    assert allowed(policy, ANONYMOUS) == {"pull"}
    assert allowed(policy, ADA) == {"pull", "push"}


@pytest.mark.parametrize(
    ("action", "implied"),
    [
        ("pull", {"pull"}),
        ("push", {"pull", "push"}),
        ("delete", {"delete"}),
        ("admin", EVERYTHING),
    ],
)
def test_implied_actions(action, implied):
    policy = make_policy(f"rules: [{{repositories: ['**'], users: [ada], allow: [{action}]}}]")
    assert allowed(policy, ADA) == implied
    assert allowed(policy, BOB) == allowed(policy, ANONYMOUS) == set()


def test_rules_add_up():
    policy = make_policy(
        "groups: {team: [ada, bob]}\n"
        "rules:\n"
        "- {repositories: ['team/**', '!team/secret'], groups: [team], allow: [push]}\n"
        "- {repositories: ['team/*'], users: [ada], allow: [delete]}\n"
        "- {repositories: ['public/*'], anonymous: true, allow: [pull]}\n"
        "- {repositories: ['users/*'], authenticated: true, allow: [push]}\n"
    )
    assert allowed(policy, ADA) == {"pull", "push", "delete"}
    assert allowed(policy, ADA, "team/secret") == {"delete"}
    assert allowed(policy, ADA, "team/a/b") == {"pull", "push"}
    assert allowed(policy, BOB) == {"pull", "push"}
    assert allowed(policy, BOB, "team") == set()
    assert allowed(policy, EVE) == set()
    assert allowed(policy, EVE, "users/eve") == {"pull", "push"}
    assert allowed(policy, ANONYMOUS, "users/eve") == set()
    for identity in (ADA, EVE, ANONYMOUS):
        assert allowed(policy, identity, "public/x") == {"pull"}


def test_groups_of_the_identity_count():
    policy = make_policy(
        "groups: {team: [ada]}\nrules: [{repositories: ['**'], groups: [team], allow: [pull]}]"
    )
    assert allowed(policy, EVE) == set()
    assert allowed(policy, Identity("eve", frozenset({"team"}))) == {"pull"}
    # An anonymous caller is in no group.
    assert allowed(policy, Identity("", frozenset({"team"}))) == set()


def test_identity_with_rights_has_only_those():
    policy = make_policy("authenticated: [admin]\nanonymous: [pull]")
    robot = IdentityWithRights("robot", Rights((Right.make(["ci/*"], ["push"]),)))
    assert verifyObject(IIdentity, robot)
    assert allowed(policy, robot) == set()
    assert allowed(policy, robot, "ci/app") == {"pull", "push"}


def test_administrators_of_everything_may_start_maintenance():
    policy = make_policy(
        "anonymous: [pull]\n"
        "rules:\n"
        "- {repositories: ['**'], users: [ada], allow: [admin]}\n"
        "- {repositories: ['team/**'], users: [bob], allow: [admin]}\n"
        "- {repositories: ['**'], users: [eve], allow: [push, delete]}\n"
    )
    is_allowed = [policy.allows(who, MAINTENANCE) for who in (ADA, BOB, EVE, ANONYMOUS)]
    assert is_allowed == [True, False, False, False]


def test_visible_repositories():
    policy = make_policy(
        "rules:\n"
        "- {repositories: [team/**, '!team/secret', team/a/b, lib*/x, z], users: [ada],"
        " allow: [push]}\n"
        "- {repositories: ['other/**'], users: [ada], allow: [delete]}\n"
        "- {repositories: ['**'], users: [bob], allow: [pull]}\n"
    )
    assert policy.allows(ADA, CATALOG)
    assert policy.allows(EVE, CATALOG), "an empty list is no secret"
    assert not policy.allows(ANONYMOUS, CATALOG)
    assert not policy.allows(BOB, Access("registry", "other", "*"))
    assert policy.visible_repositories(BOB) is None
    visible = policy.visible_repositories(ADA)
    assert verifyObject(IRepositoryFilter, visible)
    assert visible.prefixes == ("lib", "team/", "z")
    names = ["team/x", "team/secret", "library/x", "other/x", "z", "zz"]
    assert [name for name in names if visible.includes(name)] == ["team/x", "library/x", "z"]
    assert policy.visible_repositories(EVE).prefixes == ()
    assert not policy.visible_repositories(EVE).includes("z")


def test_excluded_repository_is_not_visible():
    visible = make_policy(
        "rules: [{repositories: ['**', '!secret'], users: [ada], allow: [pull]}]"
    ).visible_repositories(ADA)
    assert (visible.prefixes, visible.includes("a"), visible.includes("secret")) == (
        ("",),
        True,
        False,
    )


def test_rights_of_a_bounded_number_of_users_are_cached():
    policy = AccessPolicy(())
    rights = [ref(policy.rights(Identity(str(number)))) for number in range(10_000)]
    assert sum(each() is not None for each in rights) <= 4096
    assert policy.rights(ADA) is policy.rights(ADA)


def test_anonymous_only_ignores_credentials():
    access = AnonymousOnly(make_policy("anonymous: [pull]"))
    assert verifyObject(IClosableAccessController, access)
    caller = Caller("Basic YTpi")
    for allowed in ((), (Access("repository", "a", "pull"),)):
        assert decide(access, caller, allowed).user == ""
    refusal = decide(access, caller, (Access("repository", "a", "push"),))
    assert isinstance(refusal, RegistryError)
    assert (refusal.http_status, refusal.headers) == (403, ())
