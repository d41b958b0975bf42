"""A login that has ended is refused on a connection on which it was accepted.

Each request is sent at least twice, so that the second one finds all caches filled.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tests.support.passwords import (
    PasswordFileWriter,
    basic_header,
    password_lines,
)
from tests.support.served_image import serve_image
from tests.support.tokens import (
    ISSUER,
    NOW,
    REALM,
    SERVICE,
    claims,
    jwk,
    jwks,
    key,
    make_signer,
    mint,
)
from twisted_registry.auth.access import AuthenticatedPolicy, SchemeAccess, TokenScopePolicy
from twisted_registry.auth.basic import make_basic_scheme
from twisted_registry.auth.bearer import Bearer, TokenVerifier
from twisted_registry.auth.keys import make_keyring
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right, Rights
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.logins import Authenticator, Realm, TokenScheme
from twisted_registry.tokens.records import RECORD_TTL_S, TokenStore
from twisted_registry.tokens.signing import TokenClaims

SCOPE = Scope((ResourceActions("repository", "a/b", ("pull",)),))
RIGHTS = Rights((Right.make(["a/**"], ["pull"]),))


def clock_at(now):
    clock = Clock()
    clock.advance(now)
    return clock


def bearer(clock, policy):
    """Make a controller of Distribution's token scheme."""
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    check = TokenVerifier(ISSUER, SERVICE, keys, clock.seconds, frozenset({"ES256"}))
    return SchemeAccess(Bearer(REALM, check, clock), policy)


def token(**more):
    return "Bearer " + mint(key("P-256"), "ES256", claims(**more), kid="k")


async def statuses(connection, authorization, repository="a/b", times=3):
    """Return the statuses of several requests for a manifest on one connection."""
    line = f"Authorization: {authorization}\r\n" if authorization else ""
    request = f"GET /v2/{repository}/manifests/latest HTTP/1.1\r\nHost: x\r\n{line}\r\n".encode()
    found = set()
    for _ in range(times):
        response = await connection.request(request, b"}")
        found.add(int(response[9:12]))
    return found


@pytest_twisted.ensureDeferred
async def test_a_token_expires_on_an_open_connection(tmp_path):
    clock = clock_at(NOW)
    async with serve_image(tmp_path, bearer(clock, TokenScopePolicy())) as connection:
        valid = token(exp=NOW + 100)
        assert await statuses(connection, valid) == {200}
        clock.advance(159)
        assert await statuses(connection, valid) == {200}
        clock.advance(2)
        assert await statuses(connection, valid) == {401}


@pytest_twisted.ensureDeferred
async def test_a_deleted_user_is_refused_on_an_open_connection(tmp_path):
    written = PasswordFileWriter(tmp_path / "users")
    written.write(password_lines(me="secret", you="other"))
    access = SchemeAccess(
        make_basic_scheme("here", written.checker(), written.clock), AuthenticatedPolicy()
    )
    async with serve_image(tmp_path, access) as connection:
        assert await statuses(connection, basic_header("me", "secret")) == {200}
        written.write(password_lines(you="other"))
        assert await statuses(connection, basic_header("me", "secret")) == {401}
        written.write(password_lines(me="secret"))
        assert await statuses(connection, basic_header("me", "secret")) == {200}


@pytest_twisted.ensureDeferred
async def test_a_revoked_robot_is_refused_after_the_record_ttl(tmp_path):
    clock = clock_at(NOW)
    driver = MemoryDriver(clock)
    logins, other = (Authenticator(None, TokenStore(driver, clock)) for _ in range(2))
    signer = make_signer(clock)
    access = SchemeAccess(TokenScheme(Realm(), "here", signer, logins, clock), AccessPolicy(()))
    record, secret = await other.records.create("robot", "ci", None, rights=RIGHTS)
    async with serve_image(tmp_path, access) as connection:
        derived = await signer.sign(TokenClaims("robot:ci", SCOPE, record=record.id))
        derived = f"Bearer {derived}"
        for authorization in (basic_header("any", secret), derived):
            assert await statuses(connection, authorization) == {200}
        await other.records.revoke(record.id)
        clock.advance(RECORD_TTL_S)
        for authorization in (derived, basic_header("any", secret)):
            assert await statuses(connection, authorization) == {401}


@pytest_twisted.ensureDeferred
async def test_a_token_is_checked_for_each_repository(tmp_path):
    access = bearer(clock_at(NOW), TokenScopePolicy())
    valid = token()
    async with serve_image(tmp_path, access) as connection:
        for _ in range(2):
            assert await statuses(connection, valid) == {200}
            assert await statuses(connection, valid, "a/c") == {401}


@pytest_twisted.ensureDeferred
async def test_users_on_one_connection_do_not_share_a_login(tmp_path):
    """A proxy may send requests of several users on one connection."""
    policy = AccessPolicy((AccessRule(Right.make(["a/**"], ["pull"]), frozenset({"me"})),))
    async with serve_image(tmp_path, bearer(clock_at(NOW), policy)) as connection:
        me, you = token(), token(sub="you")
        # Tokens of the same length that differ at the end, at the start, or only in case.
        wrong = (me[:-4] + "AAAA", me.replace("ey", "yE", 1), me.swapcase())
        for times in (1, 2):
            assert await statuses(connection, me, times=times) == {200}
            assert await statuses(connection, you, times=times) == {403}
            for other in (None, *wrong):
                assert await statuses(connection, me, times=times) == {200}
                assert await statuses(connection, other, times=times) == {401}


class Guard(Resource):
    """A Resource that wraps the registry, in a program that embeds it."""

    def __init__(self, wrapped, received, keep):
        super().__init__()
        self.wrapped, self.received, self.keep = wrapped, received, keep

    def getChildWithDefault(self, path, request):
        self.received.append(list(request.requestHeaders.getAllRawHeaders()))
        if not self.keep:
            request.requestHeaders.removeHeader("authorization")
        return self.wrapped.getChildWithDefault(path, request)


@pytest.mark.parametrize(("keep", "status"), [(True, 200), (False, 401)])
@pytest_twisted.ensureDeferred
async def test_a_wrapping_resource_sees_and_removes_credentials(tmp_path, keep, status):
    received = []
    async with serve_image(tmp_path, bearer(clock_at(NOW), TokenScopePolicy())) as connection:
        connection.protocol.site.resource = Guard(connection.protocol.site.resource, received, keep)
        valid = token()
        assert await statuses(connection, valid) == {status}
    assert received == [[(b"Host", [b"x"]), (b"Authorization", [valid.encode()])]] * 3


@pytest_twisted.ensureDeferred
async def test_replaced_request_headers_are_used(tmp_path):
    class Replacing(Guard):
        def getChildWithDefault(self, path, request):
            request.requestHeaders = Headers()
            return self.wrapped.getChildWithDefault(path, request)

    async with serve_image(tmp_path, bearer(clock_at(NOW), TokenScopePolicy())) as connection:
        connection.protocol.site.resource = Replacing(connection.protocol.site.resource, [], True)
        assert await statuses(connection, token()) == {401}
