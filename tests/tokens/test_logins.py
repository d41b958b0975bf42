"""TokenScheme with a simulated clock: expiry, revocation, rights, and the realm."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.passwords import (
    PasswordFileWriter,
    basic_caller,
    basic_header,
    password_lines,
)
from tests.support.tokens import make_signer
from twisted_registry.auth.access import IScheme, LoginFailed
from twisted_registry.auth.basic import make_basic_scheme
from twisted_registry.auth.interfaces import Access, Caller
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right, Rights
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.keys import KEYS_TTL_S, KeyCache, TokenKey, TokenKeys
from twisted_registry.tokens.logins import Authenticator, Realm, TokenScheme
from twisted_registry.tokens.oidc import ClaimCondition, OIDCRule, OIDCVerifier, TrustedIssuer
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
        self.signer = make_signer(self.clock)
        self.scheme = TokenScheme(Realm(), "here", self.signer, self.logins, self.clock)

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
        claims = TokenClaims(principal.identity.name, SCOPE, record=principal.record)
        authorization = f"Bearer {await process.signer.sign(claims)}"
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


class Users:
    """The token scheme of a process with a password file and a trusted issuer."""

    def __init__(self, path, rules=()):
        self.file = PasswordFileWriter(path)
        self.clock = self.file.clock
        self.file.write(password_lines(ada="secret", eve="secret"))
        passwords = make_basic_scheme("here", self.file.checker(), self.clock)
        issuer = TrustedIssuer(SimpleNamespace(issuer="https://ci.example"), "here", rules)
        self.oidc = OIDCVerifier([issuer], self.clock)
        self.rules = tuple(map(issuer.id_of, rules))
        self.records = TokenStore(MemoryDriver(self.clock), self.clock)
        self.logins = Authenticator(passwords, self.records, self.oidc)
        self.keys = TokenKeys((TokenKey.generate(),))
        self.verified = 0
        self.signer = TokenSigner(KeyCache(self._read_keys, self.clock), self.clock, "here", 300.0)
        self.scheme = TokenScheme(Realm(), "here", self.signer, self.logins, self.clock)

    async def _read_keys(self):
        return self.keys

    async def token(self, authorization):
        """A bearer token, as the token service issues it."""
        principal = await self.logins.authenticate_header(Caller(authorization))
        claims = TokenClaims(
            principal.identity.name, SCOPE, principal.account, principal.record, principal.rules
        )
        return f"Bearer {await self.signer.sign(claims)}"

    async def forged(self, **claims):
        """A token that anybody who has the key can make."""
        return f"Bearer {await self.signer.sign(TokenClaims(**claims))}"

    async def login(self, authorization):
        """Log in twice, so that the second login may be a cached one."""
        for _ in range(2):
            caller = Caller(authorization)
            login = self.scheme.find_cached_login(caller) or await self.scheme.authenticate(caller)
        return login

    async def refused(self, authorization):
        with pytest.raises(LoginFailed) as caught:
            await self.login(authorization)
        assert caught.value.error == "invalid_token"
        return caught.value.reason


@pytest.fixture
def users(tmp_path):
    return Users(tmp_path / "users")


ADA = basic_header("ada", "secret")


@pytest_twisted.ensureDeferred
async def test_token_of_a_removed_user_is_refused_at_once(users):
    token = await users.token(ADA)
    assert (await users.login(token)).identity.name == "ada"
    users.file.write(password_lines(eve="secret"))
    assert "its user is unknown or has changed" in await users.refused(token)
    users.file.write(password_lines(eve="secret", ada="other"))
    assert "its user is unknown or has changed" in await users.refused(token)


@pytest_twisted.ensureDeferred
async def test_token_ends_when_the_password_changes(users):
    token = await users.token(ADA)
    other = await users.token(basic_header("eve", "secret"))
    assert await users.login(token)
    users.file.write(password_lines(ada="new", eve="secret"))
    await users.refused(token)
    # Another line changes the file, but not the account.
    token = await users.token(basic_header("ada", "new"))
    changed = users.file.path.read_bytes() + password_lines(bob="secret")
    users.file.write(changed)
    assert (await users.login(token)).identity.name == "ada"
    await users.refused(other)


@pytest_twisted.ensureDeferred
async def test_token_of_a_refresh_token_ends_with_the_account_and_the_record(users):
    for end in ("password", "record"):
        principal = await users.logins.authenticate_header(Caller(ADA))
        refresh = await users.records.create_refresh("ada", 100, principal.account, 10)
        principal = await users.logins.authenticate_refresh_token(refresh)
        token = await users.forged(name="ada", record=principal.record)
        assert (await users.login(token)).identity.name == "ada"
        if end == "password":
            users.file.write(password_lines(ada="other"))
            await users.refused(token)
            users.file.write(password_lines(ada="secret"))
        else:
            await users.records.revoke(principal.record)
            users.clock.advance(RECORD_TTL_S)
            await users.refused(token)


@pytest_twisted.ensureDeferred
async def test_claims_of_a_token_give_no_rights(users):
    """The key without the users, the records and the rules gives nothing."""
    robot, _ = await users.records.create("robot", "ci", None, rights=RIGHTS)
    for claims in (
        {"name": "nobody"},
        {"name": "ada"},
        {"name": "ada", "account": "guessed"},
        {"name": "robot:other", "record": robot.id},
        {"name": "ada", "record": robot.id},
        {"name": "robot:ci"},
        {"name": "robot:ci", "record": "0" * 16},
        {"name": "ci:job"},
        {"name": "ci:job", "rules": ("0" * 16,)},
    ):
        await users.refused(await users.forged(**claims))
    login = await users.login(await users.forged(name="robot:ci", record=robot.id))
    assert login.identity.rights == RIGHTS
    assert (await users.login(await users.forged(name=""))).identity.name == ""


def oidc_rule(pattern="main", allow="push", repositories="team/**"):
    return OIDCRule((ClaimCondition("ref", pattern),), Right.make([repositories], [allow]))


@pytest.mark.parametrize(
    "now",
    [(), (oidc_rule("other"),), (oidc_rule(allow="pull"),), (oidc_rule(repositories="**"),)],
)
@pytest_twisted.ensureDeferred
async def test_token_of_a_ci_job_ends_when_its_rule_changes(tmp_path, now):
    before = Users(tmp_path / "before", (oidc_rule(),))
    after = Users(tmp_path / "after", now)
    same = Users(tmp_path / "same", (oidc_rule("x"), oidc_rule()))
    after.keys = same.keys = before.keys
    token = await before.forged(name="ci:job", rules=before.rules)
    for users in (before, same):
        login = await users.login(token)
        push = Access("repository", "team/a", "push")
        assert AccessPolicy(()).allows(login.identity, push)
        assert not AccessPolicy(()).allows(login.identity, Access("repository", "x", "push"))
    assert "rules" in await after.refused(token)


@pytest_twisted.ensureDeferred
async def test_rules_apply_to_the_name_of_a_token(users):
    """The rules of the configuration are asked at each request, not when the token is issued."""
    login = await users.login(await users.token(ADA))
    pull = Access("repository", "team/a", "pull")
    rule = AccessRule(Right.make(["team/**"], ["pull"]), frozenset({"ada"}))
    assert AccessPolicy((rule,)).allows(login.identity, pull)
    assert not AccessPolicy(()).allows(login.identity, pull)


@pytest_twisted.ensureDeferred
async def test_unchanged_keys_and_users_do_not_verify_a_token_again(users, monkeypatch):
    real, verified = TokenSigner.verify, []

    async def verify(self, token):
        verified.append(token)
        return await real(self, token)

    monkeypatch.setattr(TokenSigner, "verify", verify)
    token = await users.token(ADA)
    for _ in range(5):
        await users.login(token)
        users.clock.advance(KEYS_TTL_S)
    assert len(verified) == 1


@pytest_twisted.ensureDeferred
async def test_revoked_keys_end_cached_logins_within_seconds(users):
    token = await users.token(ADA)
    assert await users.login(token)
    users.keys = users.keys.rotate(users.clock.seconds(), 300.0, revoke=False)
    users.clock.advance(KEYS_TTL_S)
    assert await users.login(token), "the old key is accepted for some time"
    users.keys = users.keys.rotate(users.clock.seconds(), 300.0, revoke=True)
    users.clock.advance(KEYS_TTL_S)
    assert "its key is unknown or no longer in use" in await users.refused(token)


@pytest.mark.parametrize(
    ("host", "more", "realm"),
    [
        ("registry.example", {}, "https://registry.example/auth/token"),
        ("registry.example:5000", {}, "https://registry.example:5000/auth/token"),
        ("10.0.0.5:5000", {}, "https://10.0.0.5:5000/auth/token"),
        ("[fd00::5]:5000", {}, "https://[fd00::5]:5000/auth/token"),
        ("localhost.example", {}, "https://localhost.example/auth/token"),
        ("127.0.0.1.example", {}, "https://127.0.0.1.example/auth/token"),
        ("127", {}, "https://127/auth/token"),
        ("registry.example", {"secure": True}, "https://registry.example/auth/token"),
        ("registry.example", {"scheme": "http"}, "http://registry.example/auth/token"),
        ("registry.example", {"scheme": "ws"}, "https://registry.example/auth/token"),
        ("localhost:5000", {}, "http://localhost:5000/auth/token"),
        ("LOCALHOST", {}, "http://LOCALHOST/auth/token"),
        ("127.0.0.1:5000", {}, "http://127.0.0.1:5000/auth/token"),
        ("127.1.2.3", {}, "http://127.1.2.3/auth/token"),
        ("[::1]:5000", {}, "http://[::1]:5000/auth/token"),
        ("localhost", {"secure": True}, "https://localhost/auth/token"),
        ("", {}, "/auth/token"),
    ],
)
def test_realm_is_an_https_url_except_on_loopback(host, more, realm):
    assert Realm().url(Caller(host=host, **more)) == realm
    configured = Realm("http://known.example:5000/", "/x/")
    assert configured.url(Caller(host=host, **more)) == "http://known.example:5000/x/auth/token"


def test_guessed_realm_is_logged_once(log_lines):
    realm = Realm()
    for host in ("localhost", "a.example", "b.example"):
        realm.url(Caller(host=host))
    realm.url(Caller(host="a.example", secure=True))
    (line,) = log_lines
    assert line.startswith("clients are sent to https://a.example for tokens, although")
    assert "http.host" in line
    Realm("http://known.example").url(Caller(host="a.example"))
    assert len(log_lines) == 1
