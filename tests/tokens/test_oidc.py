"""Tokens of CI systems, with an issuer that runs in the test."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.passwords import basic_header
from tests.support.services import HTTP, MEMORY, run_service
from tests.support.tokens import SECRET, SERVICE, claims, forge, jwk, key, mint
from tests.tokens.test_resource import bearer_header, get_token, granted_scopes, post_form
from twisted_registry.auth.access import LoginFailed
from twisted_registry.auth.rules import Right
from twisted_registry.http.client import make_agent
from twisted_registry.oci.errors import RegistryError
from twisted_registry.tokens.oidc import (
    ClaimCondition,
    FetchError,
    IssuerKeys,
    JSONFetcher,
    OIDCRule,
    OIDCVerifier,
    TrustedIssuer,
    matches_pattern,
)

NOW = 1_800_000_000
DISCOVERY = "/.well-known/openid-configuration"


class Issuer(Resource):
    """A CI system that issues tokens.

    :ivar requests: the paths of the requests so far.
    :ivar responses: path -> body to send instead of the usual one; None for status 500.
    :ivar delay: if not None, responses are sent when it fires.
    """

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.requests = []
        self.keys = [jwk(key("RSA"), kid="one")]
        self.responses = {}
        self.delay = None

    def render(self, request):
        path = request.path.decode()
        self.requests.append(path)
        if self.delay is not None:
            self.delay.addCallback(lambda _: (request.write(self.response(path)), request.finish()))
            return NOT_DONE_YET
        if path in self.responses and self.responses[path] is None:
            request.setResponseCode(500)
            return b"{}"
        return self.response(path)

    def response(self, path):
        if path in self.responses:
            return self.responses[path]
        if path == DISCOVERY:
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        return json.dumps({"keys": self.keys}).encode()

    def make_claims(self, now=None, **more):
        """The claims of one of its tokens."""
        usual = {"iss": self.url, "sub": "repo:acme/app:ref:refs/heads/main", "ref": "main"}
        return claims(reactor.seconds() if now is None else now, access=None, **{**usual, **more})

    def sign(self, now=None, **more):
        return mint(key("RSA"), "RS256", self.make_claims(now, **more), kid="one")


@pytest_twisted.async_yield_fixture
async def issuer():
    made = Issuer()
    port = reactor.listenTCP(0, Site(made), interface="127.0.0.1")
    made.url = f"http://127.0.0.1:{port.getHost().port}"
    yield made
    await maybeDeferred(port.stopListening)


class OIDC:
    """An OIDCVerifier for one issuer, with a simulated clock."""

    def __init__(self, issuer, jwks=""):
        self.clock = Clock()
        self.clock.advance(NOW)
        self.keys = IssuerKeys(
            issuer.url, jwks, JSONFetcher(reactor, make_agent(reactor, 10)), self.clock
        )
        rules = (
            OIDCRule(
                (ClaimCondition("sub", "repo:acme/*"), ClaimCondition("ref", "main")),
                Right.make(["acme/**"], ["push"]),
            ),
            OIDCRule((ClaimCondition("sub", "repo:acme/*"),), Right.make(["acme/**"], ["pull"])),
        )
        self.verifier = OIDCVerifier([TrustedIssuer(self.keys, SERVICE, rules)], self.clock)

    async def refused(self, get_token):
        with pytest.raises(LoginFailed) as caught:
            await self.verifier.authenticate(get_token)
        assert not get_token or get_token not in caught.value.reason
        return caught.value.reason


@pytest.fixture
def oidc(issuer):
    return OIDC(issuer)


@pytest_twisted.ensureDeferred
async def test_job_gets_the_rights_of_matching_rules(issuer, oidc):
    principal = await oidc.verifier.authenticate(issuer.sign(NOW))
    assert principal.identity.name == "ci:repo:acme/app:ref:refs/heads/main"
    assert [sorted(right.actions) for right in principal.identity.rights.rights] == [
        ["pull", "push"], ["pull"],
    ]  # fmt: skip
    assert principal.expires == NOW + 60
    branch = await oidc.verifier.authenticate(issuer.sign(NOW, ref="other"))
    assert [sorted(right.actions) for right in branch.identity.rights.rights] == [["pull"]]
    assert issuer.requests == [DISCOVERY, "/keys"], "each is requested once"


@pytest_twisted.ensureDeferred
async def test_invalid_tokens_are_rejected(issuer, oidc):
    def forged(alg, secret=None, **changes):
        return forge({"alg": alg, "kid": "one"}, issuer.make_claims(NOW, **changes), secret)

    other = mint(key("RSA", "other"), "RS256", issuer.make_claims(NOW), kid="one")
    for text, reason in (
        (issuer.sign(NOW, sub="repo:acm/app"), "no rule"),
        (issuer.sign(NOW, sub="x:repo:acme/app"), "no rule"),
        (issuer.sign(NOW, sub=["repo:acme/app"]), "no subject"),
        (issuer.sign(NOW, sub="repo:acme/a\nb"), "no subject"),
        (issuer.sign(NOW, sub=None), "no subject"),
        (issuer.sign(NOW, iss="http://another"), "not trusted"),
        (
            forge({"alg": "RS256", "kid": "one"}, issuer.make_claims(NOW, iss=[issuer.url])),
            "not trusted",
        ),
        (issuer.sign(NOW, iss=None), "not trusted"),
        (issuer.sign(NOW, aud="another"), "wrong audience"),
        (issuer.sign(NOW, aud=None), "wrong audience"),
        (issuer.sign(NOW - 1000), "has expired"),
        (issuer.sign(NOW, exp=None), "exp or nbf"),
        (issuer.sign(NOW + 1000), "not yet valid"),
        (other, "cannot be read"),
        (forged("none"), "cannot be read"),
        (forged("none", SECRET), "cannot be read"),
        (forged("HS256", SECRET), "cannot be read"),
        (
            mint(key("RSA", "x"), "RS256", issuer.make_claims(NOW), jwk=jwk(key("RSA", "x"))),
            "not a trusted",
        ),
        ("eyJhbGciOiJIUzI1NiJ9..", "cannot be read"),
        ("eyJ.eyJ.x", "cannot be read"),
        ("", "cannot be read"),
    ):
        rejection = await oidc.refused(text)
        assert reason in rejection


@pytest_twisted.ensureDeferred
async def test_published_hmac_secret_is_not_a_key(issuer, oidc):
    issuer.keys = [{"kty": "oct", "k": "YWFh" * 16, "kid": "one"}, *issuer.keys[1:]]
    assert await oidc.refused(mint(b"aaa" * 16, "HS256", issuer.make_claims(NOW), kid="one"))


@pytest_twisted.ensureDeferred
async def test_new_key_is_fetched_and_unknown_keys_do_not_cause_a_flood(issuer, oidc):
    await oidc.verifier.authenticate(issuer.sign(NOW))
    issuer.keys = [jwk(key("P-256"), kid="two"), {"kid": "odd", "kty": "?"}, "odd", {"kty": "RSA"}]

    def sign():
        return mint(key("P-256"), "ES256", issuer.make_claims(oidc.clock.seconds()), kid="two")

    for _ in range(5):
        await oidc.refused(sign())
    assert len(issuer.requests) == 2, "it was requested a moment ago"
    oidc.clock.advance(60)
    await oidc.verifier.authenticate(sign())
    assert len(issuer.requests) == 4
    for number in range(20):
        text = mint(key("RSA"), "RS256", issuer.make_claims(NOW), kid=f"no key {number}")
        await oidc.refused(text)
    assert len(issuer.requests) == 4
    # The old key is no longer trusted, because the issuer has removed it.
    await oidc.refused(issuer.sign(oidc.clock.seconds()))


@pytest_twisted.ensureDeferred
async def test_keys_are_fetched_again_after_an_hour_and_kept_for_a_day(issuer, oidc):
    await oidc.verifier.authenticate(issuer.sign(NOW))
    issuer.responses["/keys"] = None
    for hours, requests in ((1, 4), (12, 6), (10, 8)):
        oidc.clock.advance(3600 * hours)
        await oidc.verifier.authenticate(issuer.sign(oidc.clock.seconds()))
        assert len(issuer.requests) == requests
    oidc.clock.advance(3600)
    with pytest.raises(RegistryError) as caught:
        await oidc.verifier.authenticate(issuer.sign(oidc.clock.seconds()))
    assert caught.value.http_status == 503
    assert dict(caught.value.headers)["Retry-After"] == "5"
    del issuer.responses["/keys"]
    oidc.clock.advance(5)
    await oidc.verifier.authenticate(issuer.sign(oidc.clock.seconds()))


@pytest_twisted.ensureDeferred
async def test_concurrent_jobs_fetch_the_keys_once(issuer, oidc):
    issuer.delay = Deferred()
    waiting = [
        Deferred.fromCoroutine(oidc.verifier.authenticate(issuer.sign(NOW))) for _ in range(5)
    ]
    waiting[0].addErrback(lambda _: None).cancel()
    delay, issuer.delay = issuer.delay, None
    delay.callback(None)
    for each in waiting[1:]:
        assert (await each).identity.name
    assert issuer.requests == [DISCOVERY, "/keys"]


@pytest_twisted.ensureDeferred
async def test_configured_url_of_the_keys(issuer):
    oidc = OIDC(issuer, jwks=f"{issuer.url}/elsewhere")
    await oidc.verifier.authenticate(issuer.sign(NOW))
    assert issuer.requests == ["/elsewhere"]


@pytest.mark.parametrize(
    ("path", "response"),
    [
        (DISCOVERY, b"{}"),
        (DISCOVERY, b"[]"),
        (DISCOVERY, b'{"issuer": "http://another", "jwks_uri": "http://127.0.0.1:1/"}'),
        (DISCOVERY, b'{"issuer": "URL", "jwks_uri": "file:///etc/passwd"}'),
        (DISCOVERY, b'{"issuer": "URL", "jwks_uri": "http://127.0.0.1:1/"}'),
        (DISCOVERY, b'{"issuer": "URL", "jwks_uri": 1}'),
        (DISCOVERY, b'{"issuer": "URL", "jwks_uri": "http://"}'),
        (DISCOVERY, None),
        ("/keys", b""),
        ("/keys", b"{}"),
        ("/keys", b"[]"),
        ("/keys", b'{"keys": {}}'),
        ("/keys", b" " * 300_000),
        ("/keys", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_malformed_responses_of_the_issuer(issuer, oidc, path, response):
    issuer.responses[path] = response and response.replace(b"URL", issuer.url.encode())
    for _ in range(3):
        with pytest.raises(RegistryError) as caught:
            await oidc.verifier.authenticate(issuer.sign(NOW))
        assert caught.value.http_status == 503
    assert len(issuer.requests) <= 2


@pytest_twisted.ensureDeferred
async def test_request_to_the_issuer_times_out(issuer):
    issuer.delay = Deferred()
    clock = Clock()
    fetcher = JSONFetcher(clock, make_agent(reactor, 10))
    waiting = Deferred.fromCoroutine(fetcher.fetch(f"{issuer.url}/keys"))
    clock.advance(10)
    with pytest.raises(FetchError):
        await waiting


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a", "a", True), ("a", "ab", False), ("a*", "ab", True), ("*b", "ab", True),
        ("a*a", "a", False), ("a*a", "aa", True), ("*", "", True), ("", "", True), ("", "a", False),
        ("a*b*c", "a-b-c", True), ("a*b*c", "a-c-b", False), ("*b*b*", "b", False),
        ("*b*b*", "xbyb", True), ("**", "x", True), ("a?", "ab", False), ("[ab]", "a", False),
        ("repo:acme/*:ref:*", "repo:acme/app:ref:x", True), ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False), ("ab*ba", "aba", False),
    ],
)  # fmt: skip
def test_patterns(pattern, text, expected):
    assert matches_pattern(pattern, text) is expected


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        (True, "true", True), (False, "true", False), (7, "7", True), (["a", "b"], "b", True),
        ([], "*", False), (None, "*", False), ({}, "*", False), (1.5, "*", False), ("", "*", True),
    ],
)  # fmt: skip
def test_claims_of_other_types(value, pattern, expected):
    assert ClaimCondition("x", pattern).matches({"x": value}) is expected
    assert not ClaimCondition("y", pattern).matches({"x": value})


def test_rule_without_conditions_matches_nothing():
    assert not OIDCRule((), Right.make(["**"], ["pull"])).matches({"sub": "x"})


ACCESS = """\
access:
  tokens:
  issuers:
  - issuer: {url}
    audience: registry.example
    rules:
    - claims: {{{{sub: 'repo:acme/*', protected: 'true'}}}}
      repositories: [acme/**]
      allow: [push]
"""


@asynccontextmanager
async def trusting(folder, issuer):
    async with run_service(folder, MEMORY + HTTP + ACCESS.format(url=issuer.url)) as ask:
        yield ask


@pytest_twisted.ensureDeferred
async def test_job_uses_its_token_as_a_password(tmp_path, issuer):
    async with trusting(tmp_path, issuer) as ask:
        job = {"Authorization": basic_header("ci", issuer.sign(protected=True))}
        scope = "repository:acme/app:pull,push repository:other:pull"
        issued = await get_token(ask, scope, offline_token="true", headers=job)
        assert granted_scopes(issued) == (
            "ci:repo:acme/app:ref:refs/heads/main", ["repository:acme/app:pull,push"],
        )  # fmt: skip
        assert "refresh_token" not in issued.document
        path = "/v2/acme/app/blobs/uploads/"
        assert (await ask("POST", path, headers=bearer_header(issued))).code == 202
        assert (await ask("POST", path, headers=job)).code == 202
        assert (await ask("POST", "/v2/other/blobs/uploads/", headers=job)).code == 403
        # The CI system's token is not accepted as a bearer token.
        wrong = {"Authorization": f"Bearer {issuer.sign(protected=True)}"}
        assert (await ask("GET", "/v2/", headers=wrong)).code == 401
        for more in ({"protected": False}, {}, {"protected": True, "aud": "x"}):
            job = {"Authorization": basic_header("ci", issuer.sign(**more))}
            assert (await get_token(ask, headers=job)).code == 401


@pytest_twisted.ensureDeferred
async def test_token_exchange(tmp_path, issuer):
    kind = "urn:ietf:params:oauth:grant-type:token-exchange"
    async with trusting(tmp_path, issuer) as ask:
        issued = await post_form(
            ask, grant_type=kind, subject_token=issuer.sign(protected=True),
            subject_token_type="urn:ietf:params:oauth:token-type:jwt",
            scope="repository:acme/app:push",
        )  # fmt: skip
        assert issued.code == 200
        assert (
            issued.document["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
        )
        assert granted_scopes(issued)[1] == ["repository:acme/app:push"]
        refused = await post_form(ask, grant_type=kind, subject_token=issuer.sign())
        assert (refused.code, refused.document["error"]) == (401, "invalid_grant")
        issuer.responses["/keys"] = None
    async with trusting(tmp_path, issuer) as ask:
        response = await post_form(ask, grant_type=kind, subject_token=issuer.sign(protected=True))
        assert response.code == 503
