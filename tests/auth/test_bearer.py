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


class CountingVerifier:
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
def verifier(clock):
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    real = TokenVerifier(ISSUER, SERVICE, keys, clock.seconds, frozenset(ALGORITHMS))
    return CountingVerifier(real)


@pytest.fixture
def access(verifier, clock):
    return SchemeAccess(Bearer(REALM, verifier, clock), TokenScopePolicy())


def token(**more):
    return "Bearer " + mint(key("P-256"), "ES256", claims(**more), kid="k")


def authorize(access, authorization, *accesses, **more):
    """Return the user, or the status and the challenge."""
    result = decide(access, Caller(authorization, **more), accesses)
    if hasattr(result, "user"):
        return result.user
    return result.http_status, dict(result.headers).get("WWW-Authenticate")


def test_scheme(verifier, clock):
    assert verifyObject(IScheme, Bearer(REALM, verifier, clock))
    assert Bearer(REALM, verifier, clock).close().called


def test_challenges(access):
    good, narrow = token(), token(access=[])
    assert authorize(access, good) == authorize(access, good, PULL, PUSH) == "me"
    assert authorize(access, narrow) == "me"
    assert authorize(access, None) == (401, CHALLENGE)
    assert authorize(access, None, PULL, PUSH) == (401, CHALLENGE + SCOPE)
    insufficient = ',error="insufficient_scope"'
    assert authorize(access, narrow, PULL, PUSH) == (401, CHALLENGE + SCOPE + insufficient)
    other = ',scope="repository:a/b:delete"' + insufficient
    assert authorize(access, good, DELETE) == (401, CHALLENGE + other)
    invalid = ',error="invalid_token"'
    for authorization in (token(exp=1), "Bearer x", good + "x"):
        assert authorize(access, authorization, PULL, PUSH) == (401, CHALLENGE + SCOPE + invalid)
    for authorization in ("", "Bearer", "Bearer ", "Basic bWU6c2VjcmV0", "Token x", "x"):
        assert authorize(access, authorization, PULL, PUSH) == (401, CHALLENGE + SCOPE), (
            authorization
        )
    assert authorize(access, "bEARER" + good[6:], PULL) == "me"


def test_token_without_a_name_has_its_scope(access):
    nameless = token(sub="")
    assert authorize(access, nameless, PULL) == ""
    assert authorize(access, nameless, DELETE)[0] == 401


def test_policy_that_requires_a_name_applies_to_tokens(verifier, clock):
    access = SchemeAccess(Bearer(REALM, verifier, clock), AuthenticatedPolicy())
    assert authorize(access, token(), PULL) == "me"
    status, challenge = authorize(access, token(sub=""), PULL)
    assert status == 401, "a login may help"
    assert challenge.endswith('error="insufficient_scope"')


def test_token_is_verified_once_in_five_minutes(access, verifier, clock):
    good = token(exp=NOW + 3600)
    for seconds, checked in ((0, 1), (100, 1), (199, 1), (1, 2), (100, 2)):
        clock.advance(seconds)
        for _ in range(10):
            assert authorize(access, good, PULL) == "me"
        assert verifier.checked == checked


def test_expired_token_is_not_cached(access, verifier, clock):
    good = token(exp=NOW + 100)
    assert authorize(access, good, PULL) == "me"
    clock.advance(161)
    assert authorize(access, good, PULL)[0] == 401
    assert verifier.checked == 2


def test_invalid_token_is_verified_each_time(access, verifier):
    for _ in range(3):
        assert authorize(access, "Bearer x", PULL)[0] == 401
    assert verifier.checked == 3


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
def test_realm_on_the_requested_host(verifier, clock, host, scheme, realm):
    access = SchemeAccess(Bearer(REALM, verifier, clock, "/auth/token"), TokenScopePolicy())
    challenge = authorize(access, None, host=host, scheme=scheme)
    assert challenge == (401, f'Bearer realm="{realm}",service="{SERVICE}"')
