"""Names and passwords: who is asked, what is remembered, and for how long."""

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

from tests.support.passwords import caller, entries, shown
from twisted_registry.auth.access import AuthenticationUnavailable, IScheme, LoginFailed
from twisted_registry.auth.basic import IdentityRealm, make_basic_scheme
from twisted_registry.auth.interfaces import Caller, Identity, IIdentity
from twisted_registry.oci.errors import RegistryError


@implementer(ICredentialsChecker)
class Slow:
    """A checker that answers when a test says so."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self):
        self.asked = []
        self.cancelled = 0

    def requestAvatarId(self, credentials):
        def gone(_):
            self.cancelled += 1

        self.asked.append(Deferred(gone))
        return self.asked[-1]


def taken(waiting):
    """The name that a Deferred has fired with, or the error."""
    answers = []
    waiting.addBoth(answers.append)
    (answer,) = answers
    return answer.identity.name if hasattr(answer, "identity") else getattr(answer, "value", answer)


def enter(scheme, name="me", password="secret"):
    """Ask as a request does; the name, and whether it was known at once."""
    login = scheme.find_cached_login(caller(name, password))
    if login is not None:
        return login.identity.name, True
    return taken(scheme.authenticate(caller(name, password))), False


@pytest.fixture
def scheme(written):
    """The scheme over a file with the user "me"."""
    written.write(entries(me="secret"))
    return make_basic_scheme("here", written.checker(), written.clock)


def test_it_is_a_scheme(scheme):
    assert verifyObject(IScheme, scheme)
    assert scheme.challenge(Caller(), (), "x") == 'Basic realm="here"'


def test_a_push_costs_one_check(scheme, counted):
    assert enter(scheme) == ("me", False)
    assert [enter(scheme) for _ in range(50)] == [("me", True)] * 50
    assert counted.take() == [4]


def test_requests_that_come_together_share_a_check():
    checker = Slow()
    scheme = make_basic_scheme("here", checker, Clock())
    waiting = [scheme.authenticate(caller("me", "secret")) for _ in range(5)]
    other = scheme.authenticate(caller("me", "other"))
    assert len(checker.asked) == 2
    checker.asked[0].callback(b"me")
    assert [taken(one) for one in waiting] == ["me"] * 5
    checker.asked[1].errback(UnauthorizedLogin())
    assert isinstance(taken(other), LoginFailed)
    assert enter(scheme) == ("me", True)


def test_a_check_goes_on_as_long_as_anybody_waits():
    checker = Slow()
    scheme = make_basic_scheme("here", checker, Clock())
    first, second = (scheme.authenticate(caller("me", "secret")) for _ in range(2))
    first.cancel()
    assert isinstance(taken(first), CancelledError)
    assert checker.cancelled == 0
    second.cancel()
    assert isinstance(taken(second), CancelledError)
    assert checker.cancelled == 1
    scheme.authenticate(caller("me", "secret"))
    assert len(checker.asked) == 2


def test_a_checker_that_heeds_no_cancelling_does_no_harm():
    checker = Slow()
    scheme = make_basic_scheme("here", checker, Clock())
    checker.requestAvatarId = lambda _: ignoring
    ignoring = Deferred(lambda waiting: waiting.callback(b"late"))
    waiting = scheme.authenticate(caller("me", "secret"))
    waiting.cancel()
    assert isinstance(taken(waiting), CancelledError)


def test_too_many_checks_are_turned_away():
    checker = Slow()
    scheme = make_basic_scheme("here", checker, Clock())
    for number in range(64):
        scheme.authenticate(caller("me", str(number)))
    refused = taken(scheme.authenticate(caller("me", "one more")))
    assert isinstance(refused, RegistryError)
    assert (refused.http_status, dict(refused.headers)) == (429, {"Retry-After": "1"})
    assert len(checker.asked) == 64
    checker.asked[0].callback(b"me")
    scheme.authenticate(caller("me", "one more"))
    assert len(checker.asked) == 65


def test_what_is_wrong_is_checked_each_time_and_told_without_the_password(scheme, counted):
    for _ in range(3):
        failed, _ = enter(scheme, password="hunter2")
        assert failed.reason == "unknown user or wrong password: 'me'"
    assert counted.take() == [4, 4, 4]
    failed, _ = enter(scheme, name="x" * 1000)
    assert len(failed.reason) < 120
    assert counted.take() == [4]


def test_five_minutes(scheme, written, counted):
    enter(scheme)
    written.clock.advance(299)
    assert enter(scheme) == ("me", True)
    written.clock.advance(2)
    assert enter(scheme) == ("me", False)
    assert len(counted.take()) == 2


def test_a_change_of_the_file_ends_what_is_remembered(scheme, written):
    enter(scheme)
    written.write(entries(me="other"))
    assert isinstance(enter(scheme)[0], LoginFailed)
    assert enter(scheme, password="other") == ("me", False)
    assert enter(scheme, password="other") == ("me", True)
    written.path.unlink()
    assert isinstance(enter(scheme, password="other")[0], AuthenticationUnavailable)


def test_a_change_while_a_check_is_under_way_is_not_missed(written):
    checker = Slow()
    versions = [1]
    scheme = make_basic_scheme("here", checker, Clock())
    scheme._version = lambda: versions[-1]
    waiting = [scheme.authenticate(caller("me", "secret"))]
    versions.append(2)
    waiting.append(scheme.authenticate(caller("me", "secret")))
    assert len(checker.asked) == 2
    checker.asked[0].callback(b"me")
    assert taken(waiting[0]) == "me"
    assert scheme.find_cached_login(caller("me", "secret")) is None
    checker.asked[1].errback(UnauthorizedLogin())
    assert isinstance(taken(waiting[1]), LoginFailed)


def test_what_may_change_unseen_is_not_remembered(scheme, counted):
    scheme._version = lambda: None
    assert [enter(scheme) for _ in range(2)] == [("me", False)] * 2
    assert len(counted.take()) == 2


def test_no_password_rests_in_memory(scheme):
    enter(scheme)
    kept = repr(list(scheme._login_cache._entries.items()))
    assert "secret" not in kept
    assert shown("me", "secret") not in kept


def test_a_bounded_number_is_remembered(scheme, written):
    scheme._login_cache._max_entries = 2
    written.write(entries(a="1", b="2", c="3"))
    for name, password in (("a", "1"), ("b", "2"), ("a", "1"), ("c", "3")):
        enter(scheme, name, password)
    assert enter(scheme, "a", "1") == ("a", True)
    assert enter(scheme, "c", "3") == ("c", True)
    assert enter(scheme, "b", "2") == ("b", False)


@pytest.mark.parametrize("said", [None, "", "Bearer abc", "Basic", "basicx", "Digest a=b"])
def test_what_is_of_another_scheme_is_nothing(scheme, said):
    assert scheme.find_cached_login(Caller(said)) is None
    assert taken(scheme.authenticate(Caller(said))) is None


@pytest.mark.parametrize(
    "said",
    ["Basic ", "Basic !!", "Basic bWU=", "Basic  bWU6c2VjcmV0", "Basic bWU6c2VjcmV", "basic \xe4"],
)
def test_what_can_not_be_read_is_not_believed(scheme, counted, said):
    assert isinstance(taken(scheme.authenticate(Caller(said))), LoginFailed)
    assert counted.take() == []


def test_neither_a_name_nor_a_password_is_nobody(scheme, counted):
    """podman answers a challenge with that where it has no login, and wants what is open."""
    assert taken(scheme.authenticate(caller("", ""))) is None
    assert counted.take() == []
    for name, password in (("me", ""), ("", "secret")):
        assert isinstance(taken(scheme.authenticate(caller(name, password))), LoginFailed)


def test_the_name_of_the_scheme_in_any_case(scheme):
    said = "bAsIC" + shown("me", "secret")[5:]
    assert taken(scheme.authenticate(Caller(said))) == "me"


def test_colons_and_letters_of_a_password(written):
    written.write(entries(me="a:ß:"))
    scheme = make_basic_scheme("here", written.checker(), written.clock)
    assert enter(scheme, "me", "a:ß:") == ("me", False)


def test_checkers_of_cred_are_plugged_in():
    checker = InMemoryUsernamePasswordDatabaseDontUse(me=b"secret")
    clock = Clock()
    scheme = make_basic_scheme("here", checker, clock)
    assert enter(scheme) == ("me", False)
    assert enter(scheme) == ("me", True)
    assert isinstance(enter(scheme, password="x")[0], LoginFailed)
    clock.advance(301)
    assert enter(scheme) == ("me", False)


def test_a_checker_of_other_credentials_lets_nobody_in():
    scheme = make_basic_scheme("here", AllowAnonymousAccess(), Clock())
    assert isinstance(enter(scheme)[0], LoginFailed)


def test_people():
    people = IdentityRealm()
    assert verifyObject(IRealm, people)
    for avatar, identity in ((b"me", Identity("me")), ((), Identity()), (b"", Identity())):
        interface, found, logout = people.requestAvatar(avatar, None, IIdentity)
        assert (interface, found, logout()) == (IIdentity, identity, None)


def test_closing_closes_what_the_checker_holds(written):
    ended = Deferred()
    scheme = make_basic_scheme("here", written.checker(), written.clock, lambda: ended)
    assert scheme.close() is ended
    assert make_basic_scheme("here", written.checker(), written.clock).close().called
