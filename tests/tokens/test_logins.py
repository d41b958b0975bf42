"""TokenScheme with a simulated clock: expiry, revocation, and empty logins."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.passwords import basic_caller, basic_header
from twisted_registry.auth.access import IScheme, LoginFailed
from twisted_registry.auth.interfaces import Caller
from twisted_registry.auth.rules import Right, Rights
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.logins import Authenticator, Realm, TokenScheme
from twisted_registry.tokens.records import RECORD_TTL_S, TokenStore
from twisted_registry.tokens.signing import TokenClaims, TokenSigner

RIGHTS = Rights((Right.make(["team/**"], ["push"]),))
SCOPE = Scope((ResourceActions("repository", "team/a", ("pull",)),))
STEP = 0.25


class Process:
    """The token scheme of a process, and the store of another process that revokes tokens."""

    def __init__(self):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        driver = MemoryDriver(self.clock)
        self.other_store = TokenStore(driver, self.clock)
        self.logins = Authenticator(None, TokenStore(driver, self.clock))
        self.signer = TokenSigner(b"secret", self.clock, "here", 300.0, 24 * 3600.0)
        self.scheme = TokenScheme(Realm(), "here", self._signer, self.logins, self.clock)

    async def _signer(self):
        return self.signer

    async def log_in(self, authorization):
        """Log in with a header as a request does."""
        caller = Caller(authorization)
        login = self.scheme.find_cached_login(caller)
        return login if login is not None else await self.scheme.authenticate(caller)

    async def seconds_accepted(self, authorization):
        """The seconds for which repeated requests with a header are accepted."""
        began = self.clock.seconds()
        for _ in range(1000):
            try:
                await self.log_in(authorization)
            except LoginFailed:
                break
            self.clock.advance(STEP)
        else:
            raise AssertionError("the credentials do not expire")
        return self.clock.seconds() - began


@pytest.fixture
def process():
    return Process()


def test_scheme(process):
    assert verifyObject(IScheme, process.scheme)


@pytest.mark.parametrize("late", [0, 1, 2.75, 3, 10])
@pytest.mark.parametrize("use_bearer_token", [False, True])
@pytest_twisted.ensureDeferred
async def test_revocation_takes_effect_within_the_ttl_of_one_cache(process, late, use_bearer_token):
    """The lifetimes of the cached record and of the cached login do not add up.

    :param late: seconds between the last look into the store, and the first use after it.
    """
    record, token = await process.other_store.create("robot", "ci", None, rights=RIGHTS)
    authorization = basic_header("any", token)
    if use_bearer_token:
        principal = await process.logins.authenticate_header(basic_caller("any", token))
        claims = TokenClaims(principal.identity, SCOPE, principal.record)
        authorization = f"Bearer {process.signer.sign(claims)}"
    assert await process.logins.records.verify(token, "robot") == record
    await process.other_store.revoke(record.id)
    process.clock.advance(late)
    assert late + await process.seconds_accepted(authorization) <= max(RECORD_TTL_S, late)


@pytest_twisted.ensureDeferred
async def test_robot_token_is_not_cached_beyond_its_expiry(process):
    _, token = await process.other_store.create("robot", "ci", 10, rights=RIGHTS)
    assert await process.seconds_accepted(basic_header("any", token)) == 10


@pytest_twisted.ensureDeferred
async def test_empty_login_is_anonymous(process):
    assert await process.log_in(basic_header("", "")) is None
    for name, password in (("a", ""), ("", "a"), ("a", "b")):
        with pytest.raises(LoginFailed):
            await process.log_in(basic_header(name, password))
    with pytest.raises(LoginFailed):
        await process.logins.authenticate_password(Caller(), "", "")
