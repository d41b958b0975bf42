"""The Bearer scheme: challenges and cached logins."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.decisions import decide
from tests.support.tokens import ISSUER, NOW, REALM, SERVICE, claims, jwk, jwks, key, mint
from twisted_registry.auth.access import (
    AuthenticatedPolicy,
    IScheme,
    SchemeAccess,
    TokenScopePolicy,
)
from twisted_registry.auth.bearer import Bearer, TokenVerifier
from twisted_registry.auth.interfaces import Access, Caller
from twisted_registry.auth.keys import make_keyring
from twisted_registry.config.access import ALGORITHMS

PULL, PUSH, DELETE = (Access("repository", "a/b", name) for name in ("pull", "push", "delete"))
CHALLENGE = f'Bearer realm="{REALM}",service="{SERVICE}"'
SCOPE = ',scope="repository:a/b:pull,push"'


class Counting:
    """A verifier that counts its calls."""

    def __init__(self, real):
        self.real, self.service, self.checked = real, real.service, 0

    def verify(self, raw):
        self.checked += 1
        return self.real.verify(raw)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW)
    return clock


@pytest.fixture
def check(clock):
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    real = TokenVerifier(ISSUER, SERVICE, keys, clock.seconds, frozenset(ALGORITHMS))
    return Counting(real)


@pytest.fixture
def access(check, clock):
    return SchemeAccess(Bearer(REALM, check, clock), TokenScopePolicy())


def token(**more):
    return "Bearer " + mint(key("P-256"), "ES256", claims(**more), kid="k")


def answer(access, shown, *accesses, **more):
    """The user, or the status and the challenge."""
    found = decide(access, Caller(shown, **more), accesses)
    if hasattr(found, "user"):
        return found.user
    return found.http_status, dict(found.headers).get("WWW-Authenticate")


def test_scheme(check, clock):
    assert verifyObject(IScheme, Bearer(REALM, check, clock))
    assert Bearer(REALM, check, clock).close().called


def test_challenges(access):
    good, narrow = token(), token(access=[])
    assert answer(access, good) == answer(access, good, PULL, PUSH) == "me"
    assert answer(access, narrow) == "me"
    assert answer(access, None) == (401, CHALLENGE)
    assert answer(access, None, PULL, PUSH) == (401, CHALLENGE + SCOPE)
    insufficient = ',error="insufficient_scope"'
    assert answer(access, narrow, PULL, PUSH) == (401, CHALLENGE + SCOPE + insufficient)
    other = ',scope="repository:a/b:delete"' + insufficient
    assert answer(access, good, DELETE) == (401, CHALLENGE + other)
    invalid = ',error="invalid_token"'
    for shown in (token(exp=1), "Bearer x", good + "x"):
        assert answer(access, shown, PULL, PUSH) == (401, CHALLENGE + SCOPE + invalid)
    for shown in ("", "Bearer", "Bearer ", "Basic bWU6c2VjcmV0", "Token x", "x"):
        assert answer(access, shown, PULL, PUSH) == (401, CHALLENGE + SCOPE), shown
    assert answer(access, "bEARER" + good[6:], PULL) == "me"


def test_token_without_a_name_has_its_scope(access):
    nameless = token(sub="")
    assert answer(access, nameless, PULL) == ""
    assert answer(access, nameless, DELETE)[0] == 401


def test_policy_that_requires_a_name_applies_to_tokens(check, clock):
    access = SchemeAccess(Bearer(REALM, check, clock), AuthenticatedPolicy())
    assert answer(access, token(), PULL) == "me"
    status, challenge = answer(access, token(sub=""), PULL)
    assert status == 401, "a login may help"
    assert challenge.endswith('error="insufficient_scope"')


def test_token_is_verified_once_in_five_minutes(access, check, clock):
    good = token(exp=NOW + 3600)
    for seconds, checked in ((0, 1), (100, 1), (199, 1), (1, 2), (100, 2)):
        clock.advance(seconds)
        for _ in range(10):
            assert answer(access, good, PULL) == "me"
        assert check.checked == checked


def test_expired_token_is_not_cached(access, check, clock):
    good = token(exp=NOW + 100)
    assert answer(access, good, PULL) == "me"
    clock.advance(161)
    assert answer(access, good, PULL)[0] == 401
    assert check.checked == 2


def test_invalid_token_is_verified_each_time(access, check):
    for _ in range(3):
        assert answer(access, "Bearer x", PULL)[0] == 401
    assert check.checked == 3


@pytest.mark.parametrize(
    ("host", "scheme", "realm"),
    [
        ("here:5000", "", "https://here:5000/auth/token"),
        ("here", "http", "http://here/auth/token"),
        ("here", "https", "https://here/auth/token"),
        ("here", "javascript", "https://here/auth/token"),
        ("", "http", REALM),
    ],
)
def test_realm_on_the_requested_host(check, clock, host, scheme, realm):
    access = SchemeAccess(Bearer(REALM, check, clock, "/auth/token"), TokenScopePolicy())
    said = answer(access, None, host=host, scheme=scheme)
    assert said == (401, f'Bearer realm="{realm}",service="{SERVICE}"')
