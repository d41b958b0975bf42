"""The Basic scheme: checks, shared checks, and cached logins."""

from __future__ import annotations

import pytest
from attrs import evolve
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
from twisted_registry.auth.check_queue import FREE_FAILURES
from twisted_registry.auth.interfaces import Caller, Identity, IIdentity
from twisted_registry.oci.errors import RegistryError


@implementer(ICredentialsChecker)
class SlowChecker:
    """A checker whose results a test sets, each with a Deferred."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self):
        self.checks = []
        self.cancelled = 0

    def requestAvatarId(self, credentials):
        def cancelled(_):
            self.cancelled += 1

        self.checks.append(Deferred(cancelled))
        return self.checks[-1]


@implementer(IVersionedChecker)
class VersionedChecker(SlowChecker):
    """A SlowChecker with a version that a test sets."""

    def __init__(self, version):
        super().__init__()
        self.current_version = version

    def version(self):
        return self.current_version


def result_of(waiting):
    """The name that a Deferred has fired with, or the error."""
    results = []
    waiting.addBoth(results.append)
    (result,) = results
    return result.identity.name if hasattr(result, "identity") else getattr(result, "value", result)


def log_in(scheme, name="me", password="secret"):
    """Log in as a request does; the name, and whether the login was cached."""
    login = scheme.find_cached_login(basic_caller(name, password))
    if login is not None:
        return login.identity.name, True
    return result_of(scheme.authenticate(basic_caller(name, password))), False


@pytest.fixture
def scheme(password_file):
    """The scheme over a file with the user "me"."""
    password_file.write(password_lines(me="secret"))
    return make_basic_scheme("here", password_file.checker(), password_file.clock)


def test_scheme_and_challenge(scheme):
    assert verifyObject(IScheme, scheme)
    assert scheme.challenge(Caller(), (), "x") == 'Basic realm="here"'


def test_repeated_requests_cost_one_check(scheme, bcrypt_costs):
    assert log_in(scheme) == ("me", False)
    assert [log_in(scheme) for _ in range(50)] == [("me", True)] * 50
    assert bcrypt_costs.take() == [4]


def test_concurrent_requests_share_a_check():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock())
    waiting = [scheme.authenticate(basic_caller("me", "secret")) for _ in range(5)]
    other = scheme.authenticate(basic_caller("me", "other"))
    assert len(checker.checks) == 2
    checker.checks[0].callback(b"me")
    assert [result_of(one) for one in waiting] == ["me"] * 5
    checker.checks[1].errback(UnauthorizedLogin())
    assert isinstance(result_of(other), LoginFailed)
    assert log_in(scheme) == ("me", True)


def test_checks_beyond_a_limit_wait():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock(), max_running=2)
    waiting = [scheme.authenticate(basic_caller("me", str(number))) for number in range(3)]
    assert len(checker.checks) == 2
    waiting[2].cancel()
    assert isinstance(result_of(waiting[2]), CancelledError)
    waiting.append(scheme.authenticate(basic_caller("me", "secret")))
    checker.checks[0].errback(UnauthorizedLogin())
    checker.checks[2].callback(b"me")
    assert isinstance(result_of(waiting[0]), LoginFailed)
    assert result_of(waiting[3]) == "me"
    assert len(checker.checks) == 3


def test_a_login_is_cached_although_its_client_has_disconnected():
    checker = SlowChecker()
    scheme = make_basic_scheme("here", checker, Clock())
    scheme.authenticate(basic_caller("me", "secret")).addErrback(lambda _: None).cancel()
    assert checker.cancelled == 0
    checker.checks[0].callback(b"me")
    assert log_in(scheme) == ("me", True)


def test_many_failures_of_a_user_from_an_address_are_refused(scheme, bcrypt_costs):
    failures = [log_in(scheme, password=str(number))[0] for number in range(20)]
    assert len(bcrypt_costs.take()) == FREE_FAILURES + 1
    assert {type(each) for each in failures[FREE_FAILURES + 1 :]} == {RegistryError}
    assert log_in(scheme)[0].http_status == 429
    caller = evolve(basic_caller("me", "secret"), address="192.0.2.1")
    assert result_of(scheme.authenticate(caller)) == "me"


def test_wrong_password_is_checked_each_time_and_not_logged(scheme, bcrypt_costs):
    for _ in range(3):
        failed, _ = log_in(scheme, password="hunter2")
        assert failed.reason == "unknown user or wrong password: 'me'"
    assert bcrypt_costs.take() == [4, 4, 4]
    failed, _ = log_in(scheme, name="x" * 1000)
    assert len(failed.reason) < 120
    assert bcrypt_costs.take() == [4]


def test_login_expires_after_five_minutes(scheme, password_file, bcrypt_costs):
    log_in(scheme)
    password_file.clock.advance(299)
    assert log_in(scheme) == ("me", True)
    password_file.clock.advance(2)
    assert log_in(scheme) == ("me", False)
    assert len(bcrypt_costs.take()) == 2


def test_change_of_the_file_ends_cached_logins(scheme, password_file):
    log_in(scheme)
    password_file.write(password_lines(me="other"))
    assert isinstance(log_in(scheme)[0], LoginFailed)
    assert log_in(scheme, password="other") == ("me", False)
    assert log_in(scheme, password="other") == ("me", True)
    password_file.path.unlink()
    assert isinstance(log_in(scheme, password="other")[0], AuthenticationUnavailable)


def test_change_during_a_check_is_noticed(password_file):
    checker = VersionedChecker(1)
    scheme = make_basic_scheme("here", checker, Clock())
    waiting = [scheme.authenticate(basic_caller("me", "secret"))]
    checker.current_version = 2
    waiting.append(scheme.authenticate(basic_caller("me", "secret")))
    assert len(checker.checks) == 2
    checker.checks[0].callback(b"me")
    assert result_of(waiting[0]) == "me"
    assert scheme.find_cached_login(basic_caller("me", "secret")) is None
    checker.checks[1].errback(UnauthorizedLogin())
    assert isinstance(result_of(waiting[1]), LoginFailed)


def test_logins_of_an_unknown_version_are_not_cached():
    checker = VersionedChecker(None)
    scheme = make_basic_scheme("here", checker, Clock())
    for number in range(2):
        assert scheme.find_cached_login(basic_caller("me", "secret")) is None
        waiting = scheme.authenticate(basic_caller("me", "secret"))
        checker.checks[number].callback(b"me")
        assert result_of(waiting) == "me"


@pytest.mark.parametrize("authorization", [None, "", "Bearer abc", "Basic", "basicx", "Digest a=b"])
def test_header_of_another_scheme_is_ignored(scheme, authorization):
    assert scheme.find_cached_login(Caller(authorization)) is None
    assert result_of(scheme.authenticate(Caller(authorization))) is None


@pytest.mark.parametrize(
    "authorization",
    ["Basic ", "Basic !!", "Basic bWU=", "Basic  bWU6c2VjcmV0", "Basic bWU6c2VjcmV", "basic \xe4"],
)
def test_malformed_header_is_rejected(scheme, bcrypt_costs, authorization):
    assert isinstance(result_of(scheme.authenticate(Caller(authorization))), LoginFailed)
    assert bcrypt_costs.take() == []


def test_empty_login_is_anonymous(scheme, bcrypt_costs):
    """podman sends an empty login if it has none, and expects anonymous access."""
    assert result_of(scheme.authenticate(basic_caller("", ""))) is None
    assert bcrypt_costs.take() == []
    for name, password in (("me", ""), ("", "secret")):
        assert isinstance(result_of(scheme.authenticate(basic_caller(name, password))), LoginFailed)


def test_scheme_name_is_case_insensitive(scheme):
    authorization = "bAsIC" + basic_header("me", "secret")[5:]
    assert result_of(scheme.authenticate(Caller(authorization))) == "me"


def test_password_with_colons_and_non_ascii_characters(password_file):
    password_file.write(password_lines(me="a:ß:"))
    scheme = make_basic_scheme("here", password_file.checker(), password_file.clock)
    assert log_in(scheme, "me", "a:ß:") == ("me", False)


def test_checker_of_twisted_cred():
    checker = InMemoryUsernamePasswordDatabaseDontUse(me=b"secret")
    clock = Clock()
    scheme = make_basic_scheme("here", checker, clock)
    assert log_in(scheme) == ("me", False)
    assert log_in(scheme) == ("me", True)
    assert isinstance(log_in(scheme, password="x")[0], LoginFailed)
    clock.advance(301)
    assert log_in(scheme) == ("me", False)


def test_checker_of_other_credentials_rejects_all():
    scheme = make_basic_scheme("here", AllowAnonymousAccess(), Clock())
    assert isinstance(log_in(scheme)[0], LoginFailed)


def test_identity_realm():
    people = IdentityRealm()
    assert verifyObject(IRealm, people)
    for avatar, identity in ((b"me", Identity("me")), ((), Identity()), (b"", Identity())):
        interface, found, logout = people.requestAvatar(avatar, None, IIdentity)
        assert (interface, found, logout()) == (IIdentity, identity, None)


def test_close_releases_the_resources_of_the_checker(password_file):
    ended = Deferred()
    scheme = make_basic_scheme("here", password_file.checker(), password_file.clock, lambda: ended)
    assert scheme.close() is ended
    assert make_basic_scheme("here", password_file.checker(), password_file.clock).close().called
