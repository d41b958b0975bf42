"""The Basic scheme: checks, shared checks, and cached logins."""

from __future__ import annotations

import pytest
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.passwords import basic_caller, basic_header, password_lines
from twisted_registry.auth.access import AuthenticationUnavailable, IScheme, LoginFailed
from twisted_registry.auth.basic import IdentityRealm, IVersionedChecker, make_basic_scheme
from twisted_registry.auth.interfaces import Caller, Identity, IIdentity
from twisted_registry.oci.errors import RegistryError


@implementer(ICredentialsChecker)
class SlowChecker:
    """A checker whose results a test sets, each with a Deferred."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self):
        self.asked = []
        self.cancelled = 0

    def requestAvatarId(self, credentials):
        def gone(_):
            self.cancelled += 1

        self.asked.append(Deferred(gone))
        return self.asked[-1]


@implementer(IVersionedChecker)
class VersionedChecker(SlowChecker):
    """A SlowChecker with a version that a test sets."""

    def __init__(self, version):
        super().__init__()
        self.current_version = version

    def version(self):
        return self.current_version


def taken(waiting):
    """The name that a Deferred has fired with, or the error."""
    answers = []
    waiting.addBoth(answers.append)
    (answer,) = answers
    return answer.identity.name if hasattr(answer, "identity") else getattr(answer, "value", answer)


def enter(scheme, name="me", password="secret"):
    """Log in as a request does; the name, and whether the login was cached."""
    login = scheme.find_cached_login(basic_caller(name, password))
    if login is not None:
        return login.identity.name, True
    return taken(scheme.authenticate(basic_caller(name, password))), False


@pytest.fixture
def scheme(written):
    """The scheme over a file with the user "me"."""
    written.write(password_lines(me="secret"))
    return make_basic_scheme("here", written.checker(), written.clock)


def test_scheme_and_challenge(scheme):
    assert verifyObject(IScheme, scheme)
    assert scheme.challenge(Caller(), (), "x") == 'Basic realm="here"'


def test_repeated_requests_cost_one_check(scheme, counted):
    assert enter(scheme) == ("me", False)
    assert [enter(scheme) for _ in range(50)] == [("me", True)] * 50
    assert counted.take() == [4]


def test_concurrent_requests_share_a_check():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock())
    waiting = [scheme.authenticate(basic_caller("me", "secret")) for _ in range(5)]
    other = scheme.authenticate(basic_caller("me", "other"))
    assert len(checker.asked) == 2
    checker.asked[0].callback(b"me")
    assert [taken(one) for one in waiting] == ["me"] * 5
    checker.asked[1].errback(UnauthorizedLogin())
    assert isinstance(taken(other), LoginFailed)
    assert enter(scheme) == ("me", True)


def test_check_is_cancelled_with_its_last_waiter():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock())
    first, second = (scheme.authenticate(basic_caller("me", "secret")) for _ in range(2))
    first.cancel()
    assert isinstance(taken(first), CancelledError)
    assert checker.cancelled == 0
    second.cancel()
    assert isinstance(taken(second), CancelledError)
    assert checker.cancelled == 1
    scheme.authenticate(basic_caller("me", "secret"))
    assert len(checker.asked) == 2


def test_result_after_cancelling_is_ignored():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock())
    checker.requestAvatarId = lambda _: ignoring
    ignoring = Deferred(lambda waiting: waiting.callback(b"late"))
    waiting = scheme.authenticate(basic_caller("me", "secret"))
    waiting.cancel()
    assert isinstance(taken(waiting), CancelledError)


def test_too_many_checks_are_rejected():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock())
    for number in range(64):
        scheme.authenticate(basic_caller("me", str(number)))
    refused = taken(scheme.authenticate(basic_caller("me", "one more")))
    assert isinstance(refused, RegistryError)
    assert (refused.http_status, dict(refused.headers)) == (429, {"Retry-After": "1"})
    assert len(checker.asked) == 64
    checker.asked[0].callback(b"me")
    scheme.authenticate(basic_caller("me", "one more"))
    assert len(checker.asked) == 65


def test_wrong_password_is_checked_each_time_and_not_logged(scheme, counted):
    for _ in range(3):
        failed, _ = enter(scheme, password="hunter2")
        assert failed.reason == "unknown user or wrong password: 'me'"
    assert counted.take() == [4, 4, 4]
    failed, _ = enter(scheme, name="x" * 1000)
    assert len(failed.reason) < 120
    assert counted.take() == [4]


def test_login_expires_after_five_minutes(scheme, written, counted):
    enter(scheme)
    written.clock.advance(299)
    assert enter(scheme) == ("me", True)
    written.clock.advance(2)
    assert enter(scheme) == ("me", False)
    assert len(counted.take()) == 2


def test_change_of_the_file_ends_cached_logins(scheme, written):
    enter(scheme)
    written.write(password_lines(me="other"))
    assert isinstance(enter(scheme)[0], LoginFailed)
    assert enter(scheme, password="other") == ("me", False)
    assert enter(scheme, password="other") == ("me", True)
    written.path.unlink()
    assert isinstance(enter(scheme, password="other")[0], AuthenticationUnavailable)


def test_change_during_a_check_is_noticed(written):
    checker = VersionedChecker(1)
    scheme = make_basic_scheme("here", checker, Clock())
    waiting = [scheme.authenticate(basic_caller("me", "secret"))]
    checker.current_version = 2
    waiting.append(scheme.authenticate(basic_caller("me", "secret")))
    assert len(checker.asked) == 2
    checker.asked[0].callback(b"me")
    assert taken(waiting[0]) == "me"
    assert scheme.find_cached_login(basic_caller("me", "secret")) is None
    checker.asked[1].errback(UnauthorizedLogin())
    assert isinstance(taken(waiting[1]), LoginFailed)


def test_logins_of_an_unknown_version_are_not_cached():
    checker = VersionedChecker(None)
    scheme = make_basic_scheme("here", checker, Clock())
    for number in range(2):
        assert scheme.find_cached_login(basic_caller("me", "secret")) is None
        waiting = scheme.authenticate(basic_caller("me", "secret"))
        checker.asked[number].callback(b"me")
        assert taken(waiting) == "me"


@pytest.mark.parametrize("said", [None, "", "Bearer abc", "Basic", "basicx", "Digest a=b"])
def test_header_of_another_scheme_is_ignored(scheme, said):
    assert scheme.find_cached_login(Caller(said)) is None
    assert taken(scheme.authenticate(Caller(said))) is None


@pytest.mark.parametrize(
    "said",
    ["Basic ", "Basic !!", "Basic bWU=", "Basic  bWU6c2VjcmV0", "Basic bWU6c2VjcmV", "basic \xe4"],
)
def test_malformed_header_is_rejected(scheme, counted, said):
    assert isinstance(taken(scheme.authenticate(Caller(said))), LoginFailed)
    assert counted.take() == []


def test_empty_login_is_anonymous(scheme, counted):
    """podman sends an empty login if it has none, and expects anonymous access."""
    assert taken(scheme.authenticate(basic_caller("", ""))) is None
    assert counted.take() == []
    for name, password in (("me", ""), ("", "secret")):
        assert isinstance(taken(scheme.authenticate(basic_caller(name, password))), LoginFailed)


def test_scheme_name_is_case_insensitive(scheme):
    said = "bAsIC" + basic_header("me", "secret")[5:]
    assert taken(scheme.authenticate(Caller(said))) == "me"


def test_password_with_colons_and_non_ascii_characters(written):
    written.write(password_lines(me="a:ß:"))
    scheme = make_basic_scheme("here", written.checker(), written.clock)
    assert enter(scheme, "me", "a:ß:") == ("me", False)


def test_checker_of_twisted_cred():
    checker = InMemoryUsernamePasswordDatabaseDontUse(me=b"secret")
    clock = Clock()
    scheme = make_basic_scheme("here", checker, clock)
    assert enter(scheme) == ("me", False)
    assert enter(scheme) == ("me", True)
    assert isinstance(enter(scheme, password="x")[0], LoginFailed)
    clock.advance(301)
    assert enter(scheme) == ("me", False)


def test_checker_of_other_credentials_rejects_all():
    scheme = make_basic_scheme("here", AllowAnonymousAccess(), Clock())
    assert isinstance(enter(scheme)[0], LoginFailed)


def test_identity_realm():
    people = IdentityRealm()
    assert verifyObject(IRealm, people)
    for avatar, identity in ((b"me", Identity("me")), ((), Identity()), (b"", Identity())):
        interface, found, logout = people.requestAvatar(avatar, None, IIdentity)
        assert (interface, found, logout()) == (IIdentity, identity, None)


def test_close_releases_the_resources_of_the_checker(written):
    ended = Deferred()
    scheme = make_basic_scheme("here", written.checker(), written.clock, lambda: ended)
    assert scheme.close() is ended
    assert make_basic_scheme("here", written.checker(), written.clock).close().called
