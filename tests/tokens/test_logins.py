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


class World:
    """A process, and another one with the same store that revokes tokens."""

    def __init__(self):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        driver = MemoryDriver(self.clock)
        self.other = TokenStore(driver, self.clock)
        self.logins = Authenticator(None, TokenStore(driver, self.clock))
        self.signer = TokenSigner(b"secret", self.clock, "here", 300.0, 24 * 3600.0)
        self.scheme = TokenScheme(Realm(), "here", self._signer, self.logins, self.clock)

    async def _signer(self):
        return self.signer

    async def enter(self, shows):
        """Log in with a header as a request does."""
        asked = Caller(shows)
        login = self.scheme.find_cached_login(asked)
        return login if login is not None else await self.scheme.authenticate(asked)

    async def lasts(self, shows):
        """The seconds for which repeated requests with a header are accepted."""
        begun = self.clock.seconds()
        for _ in range(1000):
            try:
                await self.enter(shows)
            except LoginFailed:
                break
            self.clock.advance(STEP)
        else:
            raise AssertionError("for ever")
        return self.clock.seconds() - begun


@pytest.fixture
def world():
    return World()


def test_scheme(world):
    assert verifyObject(IScheme, world.scheme)


@pytest.mark.parametrize("late", [0, 1, 2.75, 3, 10])
@pytest.mark.parametrize("derived", [False, True])
@pytest_twisted.ensureDeferred
async def test_revocation_takes_effect_within_the_ttl_of_one_cache(world, late, derived):
    """The lifetimes of the cached record and of the cached login do not add up.

    :param late: seconds between the last look into the store, and the first use after it.
    """
    record, token = await world.other.create("robot", "ci", None, rights=RIGHTS)
    shows = basic_header("any", token)
    if derived:
        principal = await world.logins.authenticate_header(basic_caller("any", token))
        said = TokenClaims(principal.identity, SCOPE, principal.record)
        shows = f"Bearer {world.signer.sign(said)}"
    assert await world.logins.records.verify(token, "robot") == record
    await world.other.revoke(record.id)
    world.clock.advance(late)
    assert late + await world.lasts(shows) <= max(RECORD_TTL_S, late)


@pytest_twisted.ensureDeferred
async def test_robot_token_is_not_cached_beyond_its_expiry(world):
    _, token = await world.other.create("robot", "ci", 10, rights=RIGHTS)
    assert await world.lasts(basic_header("any", token)) == 10


@pytest_twisted.ensureDeferred
async def test_empty_login_is_anonymous(world):
    assert await world.enter(basic_header("", "")) is None
    for name, password in (("a", ""), ("", "a"), ("a", "b")):
        with pytest.raises(LoginFailed):
            await world.enter(basic_header(name, password))
    with pytest.raises(LoginFailed):
        await world.logins.authenticate_password("", "")
