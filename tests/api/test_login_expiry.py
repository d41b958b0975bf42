"""What a kept connection remembers of the last login opens nothing that is no longer open.

Each request is sent twice at least, so that the second finds all that is remembered.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tests.support.passwords import (
    PasswordFileWriter,
    basic_caller,
    basic_header,
    password_lines,
)
from tests.support.served_image import serve_image
from tests.support.tokens import ISSUER, NOW, REALM, SERVICE, claims, jwk, jwks, key, mint
from twisted_registry.auth.access import AuthenticatedPolicy, SchemeAccess, TokenScopePolicy
from twisted_registry.auth.basic import make_basic_scheme
from twisted_registry.auth.bearer import Bearer, TokenVerifier
from twisted_registry.auth.keys import make_keyring
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right, Rights
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.logins import Authenticator, Realm, TokenScheme
from twisted_registry.tokens.records import RECORD_TTL_S, TokenStore
from twisted_registry.tokens.signing import TokenClaims, TokenSigner

SCOPE = Scope((ResourceActions("repository", "a/b", ("pull",)),))
RIGHTS = Rights((Right.make(["a/**"], ["pull"]),))


def clock_of(now):
    clock = Clock()
    clock.advance(now)
    return clock


def bearer(clock, policy):
    """Distribution's tokens, on a clock."""
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    check = TokenVerifier(ISSUER, SERVICE, keys, clock.seconds, frozenset({"ES256"}))
    return SchemeAccess(Bearer(REALM, check, clock), policy)


def token(**more):
    return "Bearer " + mint(key("P-256"), "ES256", claims(**more), kid="k")


async def statuses(connected, authorization, repository="a/b", times=3):
    """What so many requests for a manifest are answered on one connection."""
    line = f"Authorization: {authorization}\r\n" if authorization else ""
    request = f"GET /v2/{repository}/manifests/latest HTTP/1.1\r\nHost: x\r\n{line}\r\n".encode()
    found = set()
    for _ in range(times):
        answer = await connected.request(request, b"}")
        found.add(int(answer[9:12]))
    return found


@pytest_twisted.ensureDeferred
async def test_a_token_expires_on_an_open_connection(tmp_path):
    clock = clock_of(NOW)
    async with serve_image(tmp_path, bearer(clock, TokenScopePolicy())) as connected:
        good = token(exp=NOW + 100)
        assert await statuses(connected, good) == {200}
        clock.advance(159)
        assert await statuses(connected, good) == {200}
        clock.advance(2)
        assert await statuses(connected, good) == {401}


@pytest_twisted.ensureDeferred
async def test_a_deleted_user_is_refused_on_an_open_connection(tmp_path):
    written = PasswordFileWriter(tmp_path / "users")
    written.write(password_lines(me="secret", you="other"))
    access = SchemeAccess(
        make_basic_scheme("here", written.checker(), written.clock), AuthenticatedPolicy()
    )
    async with serve_image(tmp_path, access) as connected:
        assert await statuses(connected, basic_header("me", "secret")) == {200}
        written.write(password_lines(you="other"))
        assert await statuses(connected, basic_header("me", "secret")) == {401}
        written.write(password_lines(me="secret"))
        assert await statuses(connected, basic_header("me", "secret")) == {200}


@pytest_twisted.ensureDeferred
async def test_a_revoked_robot_is_refused_after_the_record_ttl(tmp_path):
    clock = clock_of(NOW)
    driver = MemoryDriver(clock)
    logins, other = (Authenticator(None, TokenStore(driver, clock)) for _ in range(2))
    signer = TokenSigner(b"secret", clock, "here", 300.0, 24 * 3600.0)

    async def signs():
        return signer

    access = SchemeAccess(TokenScheme(Realm(), "here", signs, logins, clock), AccessPolicy(()))
    record, secret = await other.records.create("robot", "ci", None, rights=RIGHTS)
    async with serve_image(tmp_path, access) as connected:
        identity = (await logins.authenticate_header(basic_caller("any", secret))).identity
        derived = "Bearer " + signer.sign(TokenClaims(identity, SCOPE, record.id))
        for shows in (basic_header("any", secret), derived):
            assert await statuses(connected, shows) == {200}
        await other.records.revoke(record.id)
        clock.advance(RECORD_TTL_S)
        for shows in (derived, basic_header("any", secret)):
            assert await statuses(connected, shows) == {401}


@pytest_twisted.ensureDeferred
async def test_a_token_is_checked_for_each_repository(tmp_path):
    access = bearer(clock_of(NOW), TokenScopePolicy())
    good = token()
    async with serve_image(tmp_path, access) as connected:
        for _ in range(2):
            assert await statuses(connected, good) == {200}
            assert await statuses(connected, good, "a/c") == {401}


@pytest_twisted.ensureDeferred
async def test_users_on_one_connection_do_not_share_a_login(tmp_path):
    """As behind a proxy."""
    mine = AccessPolicy((AccessRule(Right.make(["a/**"], ["pull"]), frozenset({"me"})),))
    async with serve_image(tmp_path, bearer(clock_of(NOW), mine)) as connected:
        me, you = token(), token(sub="you")
        # Of the same length, and different at the end, at the start, or in no more than the case.
        wrong = (me[:-4] + "AAAA", me.replace("ey", "yE", 1), me.swapcase())
        for times in (1, 2):
            assert await statuses(connected, me, times=times) == {200}
            assert await statuses(connected, you, times=times) == {403}
            for each in (None, *wrong):
                assert await statuses(connected, me, times=times) == {200}
                assert await statuses(connected, each, times=times) == {401}


class Guard(Resource):
    """A Resource in front of the registry, as a program that embeds it may have one."""

    def __init__(self, behind, seen, keep):
        super().__init__()
        self.behind, self.seen, self.keep = behind, seen, keep

    def getChildWithDefault(self, path, request):
        self.seen.append(list(request.requestHeaders.getAllRawHeaders()))
        if not self.keep:
            request.requestHeaders.removeHeader("authorization")
        return self.behind.getChildWithDefault(path, request)


@pytest.mark.parametrize(("keep", "status"), [(True, 200), (False, 401)])
@pytest_twisted.ensureDeferred
async def test_a_wrapping_resource_sees_and_removes_credentials(tmp_path, keep, status):
    seen = []
    async with serve_image(tmp_path, bearer(clock_of(NOW), TokenScopePolicy())) as connected:
        connected.protocol.site.resource = Guard(connected.protocol.site.resource, seen, keep)
        good = token()
        assert await statuses(connected, good) == {status}
    assert seen == [[(b"Host", [b"x"]), (b"Authorization", [good.encode()])]] * 3


@pytest_twisted.ensureDeferred
async def test_replaced_request_headers_are_used(tmp_path):
    class Replacing(Guard):
        def getChildWithDefault(self, path, request):
            request.requestHeaders = Headers()
            return self.behind.getChildWithDefault(path, request)

    async with serve_image(tmp_path, bearer(clock_of(NOW), TokenScopePolicy())) as connected:
        connected.protocol.site.resource = Replacing(connected.protocol.site.resource, [], True)
        assert await statuses(connected, token()) == {401}
