"""A scheme says who calls, a policy what they may: which answer each pair gets."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_registry.auth.access import (
    DECIDED,
    AuthenticatedPolicy,
    AuthenticationUnavailable,
    IScheme,
    Login,
    LoginFailed,
    SchemeAccess,
    TokenScopePolicy,
)
from twisted_registry.auth.interfaces import (
    ANONYMOUS,
    CATALOG,
    Access,
    Caller,
    IClosableAccessController,
    Identity,
    IGrant,
    IIdentity,
    IPolicy,
    ISteady,
)
from twisted_registry.auth.silly import Silly
from twisted_registry.oci.errors import ErrorCode, RegistryError

PULL, PUSH = (Access("repository", "a/b", action) for action in ("pull", "push"))
ME = Identity("me")


@implementer(IPolicy)
class Only:
    """A policy, or a scope, that allows some things to those that pass a test."""

    def __init__(self, *accesses, who=lambda _: True):
        self.accesses, self.who = accesses, who

    def allows(self, identity, access):
        return access in self.accesses and self.who(identity)

    def visible(self, identity):
        return None


@implementer(IScheme)
class Told:
    """A scheme whose answer a test sets."""

    def __init__(self, answer=None, recalled=None):
        self.answer, self.recalled = answer, recalled

    def find_cached_login(self, caller):
        return self.recalled

    def authenticate(self, caller):
        if isinstance(self.answer, Deferred):
            return self.answer
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)

    def challenge(self, caller, accesses, error):
        return f"Told {len(accesses)} {error}".rstrip()

    def close(self):
        return succeed(None)


def ask(scheme, policy, *accesses):
    """The grant, or the error."""
    answers = []
    SchemeAccess(scheme, policy).authorize(Caller(), accesses).addBoth(answers.append)
    (answer,) = answers
    return getattr(answer, "value", answer)


def refused(answer):
    assert isinstance(answer, RegistryError)
    return answer.http_status, dict(answer.headers).get("WWW-Authenticate")


@pytest.fixture(params=["identify", "recall"])
def known(request):
    """Makes the scheme that knows a login, at once or after having asked."""
    return Told if request.param == "identify" else lambda login: Told(ZeroDivisionError(), login)


def test_who_is_known_and_may_gets_a_grant(known):
    grant = ask(known(Login(ME)), Only(PULL, PUSH), PULL, PUSH)
    assert verifyObject(IGrant, grant)
    assert (grant.user, grant.permits(PULL), grant.permits(CATALOG)) == ("me", True, False)
    assert grant.visible is None


def test_a_grant_is_no_wider_than_its_scope(known):
    grant = ask(known(Login(ME, Only(PULL))), TokenScopePolicy(), PULL)
    assert (grant.permits(PULL), grant.permits(PUSH)) == (True, False)


def test_who_is_known_and_may_not_is_denied(known):
    answer = ask(known(Login(ME)), Only(PULL), PULL, PUSH)
    assert refused(answer) == (403, None)
    assert answer.detail[1] == {
        "Type": "repository", "Class": "", "Name": "a/b", "Action": "push",
    }  # fmt: skip


def test_a_token_that_is_too_narrow_is_asked_to_be_wider(known):
    answer = ask(known(Login(ME, Only(PULL))), TokenScopePolicy(), PULL, PUSH)
    assert refused(answer) == (401, "Told 2 insufficient_scope")


@pytest.mark.parametrize("scope", [(PULL, PUSH), (PULL,)])
def test_a_token_opens_nothing_that_the_policy_forbids(known, scope):
    """Neither does a wider one, so that none is asked for."""
    assert refused(ask(known(Login(ME, Only(*scope))), Only(PULL), PULL, PUSH)) == (403, None)


def test_a_stranger_may_what_the_policy_lets_strangers_do():
    policy = Only(PULL, who=lambda identity: not identity.name)
    grant = ask(Told(), policy, PULL)
    assert (grant.user, grant.permits(PULL), grant.permits(PUSH)) == ("", True, False)
    assert refused(ask(Told(), policy, PUSH)) == (401, "Told 1")


def test_the_version_check_asks_for_a_login_even_where_strangers_may_pull():
    assert refused(ask(Told(), TokenScopePolicy())) == (401, "Told 0")
    assert ask(Told(Login(ME)), Only()).user == "me"


def test_the_catalog_asks_for_a_login_even_where_strangers_may_see_some_of_it():
    everything = Only(PULL, CATALOG)
    assert refused(ask(Told(), everything, CATALOG)) == (401, "Told 1")
    assert ask(Told(Login(ANONYMOUS, Only(CATALOG))), everything, CATALOG).user == ""


def test_what_is_not_believed_is_challenged():
    error = LoginFailed("for a reason", "invalid_token")
    assert refused(ask(Told(error), TokenScopePolicy(), PULL)) == (401, "Told 1 invalid_token")


def test_what_goes_wrong_is_told_to_the_log_and_not_to_the_client():
    events = []
    globalLogPublisher.addObserver(events.append)
    answer = ask(Told(OSError(13, "secret")), TokenScopePolicy(), PULL)
    globalLogPublisher.removeObserver(events.append)
    assert refused(answer) == (400, None)
    assert "secret" not in str(answer.as_json())
    assert any("log_failure" in event for event in events)


def test_what_can_not_be_told_is_one_line_of_the_log(log_events):
    assert refused(ask(Told(AuthenticationUnavailable("no file")), TokenScopePolicy(), PULL)) == (
        400,
        None,
    )
    (event,) = [event for event in log_events if event.get("reason") == "no file"]
    assert "log_failure" not in event


def test_an_answer_of_the_scheme_goes_through():
    error = RegistryError(ErrorCode.TOOMANYREQUESTS)
    assert ask(Told(error), TokenScopePolicy(), PULL) is error


def test_a_client_that_leaves_ends_the_question():
    gone = []
    waiting = Deferred(gone.append)
    SchemeAccess(Told(waiting), TokenScopePolicy()).authorize(Caller(), (PULL,)).addErrback(
        lambda _: None
    ).cancel()
    assert gone == [waiting]


def test_logged_in_is_whoever_has_a_name():
    policy = AuthenticatedPolicy()
    assert verifyObject(IPolicy, policy)
    assert policy.allows(ME, CATALOG)
    assert not policy.allows(Identity(), PULL)


@pytest.mark.parametrize(
    ("accesses", "scope"),
    [
        ((), ""),
        ((PULL,), ',scope="repository:a/b:pull"'),
        ((PULL, PUSH), ',scope="repository:a/b:pull repository:a/b:push"'),
        ((CATALOG,), ',scope="registry:catalog:*"'),
    ],
)
def test_silly_challenges(accesses, scope):
    scheme = Silly('the "realm"\\', "service")
    assert verifyObject(IScheme, scheme)
    assert verifyObject(IClosableAccessController, SchemeAccess(scheme, AuthenticatedPolicy()))
    assert refused(ask(scheme, AuthenticatedPolicy(), *accesses)) == (
        401, f'Bearer realm="the \\"realm\\"\\\\",service="service"{scope}',
    )  # fmt: skip


def test_silly_takes_anything():
    access = SchemeAccess(Silly("realm", "service"), AuthenticatedPolicy())
    for said in ("x", "Basic !!", "Bearer"):
        grants = []
        access.authorize(Caller(said), (PUSH,)).addCallback(grants.append)
        assert grants[0].user == "silly"
    answers = []
    access.authorize(Caller(""), ()).addErrback(answers.append)
    assert answers[0].value.http_status == 401


def test_an_identity_is_an_avatar():
    assert verifyObject(IIdentity, ME)


@implementer(IIdentity)
class Changing:
    """Somebody of another program, who may be in other groups tomorrow."""

    name, groups = "me", frozenset()


@implementer(ISteady)
class Steady(Only):
    """It counts how often it is asked."""

    asked = 0

    def allows(self, identity, access):
        self.asked += 1
        return super().allows(identity, access)


def granted(access, *accesses):
    """Whether it grants one and the same object of what is asked for, twice each."""
    answers = []
    for each in accesses * 2:
        access.authorize(Caller(), each).addBoth(answers.append)
    return [IGrant.providedBy(answer) for answer in answers]


def test_what_is_steady_is_asked_once_for_each_login():
    policy, scheme = Steady(PULL), Told(recalled=Login(ME))
    access, pull, push = SchemeAccess(scheme, policy), (PULL,), (PULL, PUSH)
    assert granted(access, pull, push) == [True, False] * 2
    assert policy.asked == 5, "what was refused is asked again"
    # Another login of the same user, and another object that says the same.
    scheme.recalled = Login(ME)
    assert granted(access, pull, (PULL,)) == [True] * 4
    assert policy.asked == 7
    # It is still the scheme that says whether there is a login.
    scheme.recalled, scheme.answer = None, LoginFailed("over")
    assert granted(access, pull) == [False] * 2


@pytest.mark.parametrize(
    ("login", "policy"),
    [
        (Login(ME), Only(PULL)),
        (Login(ME, Only(PULL)), TokenScopePolicy()),
        (Login(Changing()), Steady(PULL)),
    ],
)
def test_what_may_change_is_asked_each_time(login, policy):
    access, pull = SchemeAccess(Told(recalled=login), policy), (PULL,)
    assert granted(access, pull) == [True] * 2
    (login.scope or policy).accesses = ()
    assert granted(access, pull) == [False] * 2


def test_what_was_decided_is_kept_of_so_many():
    access = SchemeAccess(Told(recalled=Login(ME)), TokenScopePolicy())
    for number in range(DECIDED + 5):
        access.authorize(Caller(), (Access("repository", f"a{number}", "pull"),))
    assert 0 < len(access._decided) <= DECIDED
    assert granted(access, [PULL]) == [True] * 2
    assert len(access._decided) <= 5, "a list may be changed"
