"""SchemeAccess: which response each combination of scheme and policy gives."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.decisions import decide
from twisted_registry.auth.access import (
    AuthenticatedPolicy,
    AuthenticationUnavailable,
    IScheme,
    Login,
    LoginFailed,
    OpenAccess,
    SchemeAccess,
    TokenScopePolicy,
)
from twisted_registry.auth.basic import Silly
from twisted_registry.auth.interfaces import (
    ANONYMOUS,
    CATALOG,
    Access,
    Caller,
    IAccessController,
    IClosableAccessController,
    Identity,
    IGrant,
    IIdentity,
    IPolicy,
)
from twisted_registry.oci.errors import ErrorCode, RegistryError

PULL, PUSH = (Access("repository", "a/b", action) for action in ("pull", "push"))
ME = Identity("me")


@implementer(IPolicy)
class AllowOnly:
    """A policy, or a scope, that allows some accesses to the identities that pass a test."""

    def __init__(self, *accesses, applies_to=lambda _: True):
        self.accesses, self.applies_to = accesses, applies_to

    def allows(self, identity, access):
        return access in self.accesses and self.applies_to(identity)

    def visible_repositories(self, identity):
        return None


@implementer(IScheme)
class FakeScheme:
    """A scheme that returns what a test sets."""

    def __init__(self, result=None, cached=None):
        self.result, self.cached = result, cached

    def find_cached_login(self, caller):
        return self.cached

    def authenticate(self, caller):
        if isinstance(self.result, Deferred):
            return self.result
        return fail(self.result) if isinstance(self.result, Exception) else succeed(self.result)

    def challenge(self, caller, accesses, error):
        return f"Fake {len(accesses)} {error}".rstrip()

    def close(self):
        return succeed(None)


def authorize(scheme, policy, *accesses):
    """The grant, or the error."""
    return decide(SchemeAccess(scheme, policy), Caller(), accesses)


def status_and_challenge(error):
    assert isinstance(error, RegistryError)
    return error.http_status, dict(error.headers).get("WWW-Authenticate")


@pytest.fixture(params=["authenticated", "cached"])
def scheme_for(request):
    """Makes a scheme that knows a login: after authentication, or from its cache."""
    if request.param == "authenticated":
        return FakeScheme
    return lambda login: FakeScheme(ZeroDivisionError(), login)


def test_allowed_caller_gets_a_grant(scheme_for):
    grant = authorize(scheme_for(Login(ME)), AllowOnly(PULL, PUSH), PULL, PUSH)
    assert verifyObject(IGrant, grant)
    assert (grant.user, grant.permits(PULL), grant.permits(CATALOG)) == ("me", True, False)
    assert grant.visible_repositories is None


def test_grant_is_limited_by_the_scope(scheme_for):
    grant = authorize(scheme_for(Login(ME, AllowOnly(PULL))), TokenScopePolicy(), PULL)
    assert (grant.permits(PULL), grant.permits(PUSH)) == (True, False)


def test_authenticated_caller_without_permission_is_denied(scheme_for):
    error = authorize(scheme_for(Login(ME)), AllowOnly(PULL), PULL, PUSH)
    assert status_and_challenge(error) == (403, None)
    assert error.detail[1] == {
        "Type": "repository", "Class": "", "Name": "a/b", "Action": "push",
    }  # fmt: skip


def test_token_with_too_narrow_a_scope_is_challenged(scheme_for):
    error = authorize(scheme_for(Login(ME, AllowOnly(PULL))), TokenScopePolicy(), PULL, PUSH)
    assert status_and_challenge(error) == (401, "Fake 2 insufficient_scope")


@pytest.mark.parametrize("scope", [(PULL, PUSH), (PULL,)])
def test_scope_does_not_widen_the_policy(scheme_for, scope):
    """A wider token would not help either, so there is no challenge."""
    error = authorize(scheme_for(Login(ME, AllowOnly(*scope))), AllowOnly(PULL), PULL, PUSH)
    assert status_and_challenge(error) == (403, None)


def test_change_of_policy_or_scope_takes_effect_at_the_next_request(scheme_for):
    policy, scope = AllowOnly(PULL), AllowOnly(PULL)
    scheme = scheme_for(Login(ME, scope))
    access = SchemeAccess(scheme, policy)

    def is_granted():
        return IGrant.providedBy(decide(access, Caller(), (PULL,)))

    assert is_granted()
    policy.accesses = ()
    assert not is_granted()
    policy.accesses, scope.accesses = (PULL,), ()
    assert not is_granted()


def test_anonymous_caller_may_do_what_the_policy_allows():
    policy = AllowOnly(PULL, applies_to=lambda identity: not identity.name)
    grant = authorize(FakeScheme(), policy, PULL)
    assert (grant.user, grant.permits(PULL), grant.permits(PUSH)) == ("", True, False)
    assert status_and_challenge(authorize(FakeScheme(), policy, PUSH)) == (401, "Fake 1")


def test_version_check_is_challenged_even_where_anonymous_pulls_are_allowed():
    assert status_and_challenge(authorize(FakeScheme(), TokenScopePolicy())) == (401, "Fake 0")
    assert authorize(FakeScheme(Login(ME)), AllowOnly()).user == "me"


def test_catalog_is_challenged_even_where_anonymous_callers_may_see_some_of_it():
    everything = AllowOnly(PULL, CATALOG)
    assert status_and_challenge(authorize(FakeScheme(), everything, CATALOG)) == (401, "Fake 1")
    grant = authorize(FakeScheme(Login(ANONYMOUS, AllowOnly(CATALOG))), everything, CATALOG)
    assert grant.user == ""


def test_rejected_credentials_are_challenged():
    error = LoginFailed("for a reason", "invalid_token")
    assert status_and_challenge(authorize(FakeScheme(error), TokenScopePolicy(), PULL)) == (
        401, "Fake 1 invalid_token",
    )  # fmt: skip


def test_unexpected_error_is_logged_and_not_sent_to_the_client(log_events):
    error = authorize(FakeScheme(OSError(13, "secret")), TokenScopePolicy(), PULL)
    assert status_and_challenge(error) == (400, None)
    assert "secret" not in str(error.as_json())
    assert any("log_failure" in event for event in log_events)


def test_unavailable_authentication_is_logged_without_a_traceback(log_events):
    error = AuthenticationUnavailable("no file")
    refused = authorize(FakeScheme(error), TokenScopePolicy(), PULL)
    assert status_and_challenge(refused) == (400, None)
    (event,) = [event for event in log_events if event.get("reason") == "no file"]
    assert "log_failure" not in event


def test_registry_error_of_the_scheme_is_passed_through():
    error = RegistryError(ErrorCode.TOOMANYREQUESTS)
    assert authorize(FakeScheme(error), TokenScopePolicy(), PULL) is error


def test_cancelling_the_request_cancels_the_authentication():
    cancelled = []
    waiting = Deferred(cancelled.append)
    SchemeAccess(FakeScheme(waiting), TokenScopePolicy()).authorize(Caller(), (PULL,)).addErrback(
        lambda _: None
    ).cancel()
    assert cancelled == [waiting]


def test_authenticated_policy_allows_everything_to_named_users():
    policy = AuthenticatedPolicy()
    assert verifyObject(IPolicy, policy)
    assert policy.allows(ME, CATALOG)
    assert not policy.allows(Identity(), PULL)


def test_open_access_permits_everything():
    access = OpenAccess()
    assert verifyObject(IAccessController, access)
    grant = access.authorize(Caller(), (PUSH,))
    assert verifyObject(IGrant, grant)
    assert (grant.user, grant.permits(CATALOG)) == ("", True)
    assert grant.visible_repositories is None


@pytest.mark.parametrize(
    ("accesses", "scope"),
    [
        ((), ""),
        ((PULL,), ',scope="repository:a/b:pull"'),
        ((PULL, PUSH), ',scope="repository:a/b:pull repository:a/b:push"'),
        ((CATALOG,), ',scope="registry:catalog:*"'),
    ],
)
def test_silly_challenge_names_each_action(accesses, scope):
    scheme = Silly('the "realm"\\', "service")
    assert verifyObject(IScheme, scheme)
    assert verifyObject(IClosableAccessController, SchemeAccess(scheme, AuthenticatedPolicy()))
    assert status_and_challenge(authorize(scheme, AuthenticatedPolicy(), *accesses)) == (
        401, f'Bearer realm="the \\"realm\\"\\\\",service="service"{scope}',
    )  # fmt: skip


def test_silly_accepts_any_authorization():
    access = SchemeAccess(Silly("realm", "service"), AuthenticatedPolicy())
    for authorization in ("x", "Basic !!", "Bearer"):
        assert decide(access, Caller(authorization), (PUSH,)).user == "silly"
    assert decide(access, Caller(""), ()).http_status == 401


def test_identity_provides_the_avatar_interface():
    assert verifyObject(IIdentity, ME)
