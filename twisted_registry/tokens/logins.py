"""Whoever asks for a token, or shows what is as good as a password: users, robots, CI systems.

Our own tokens as a scheme: bearer tokens that we signed, or a name and a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from twisted_registry.auth.access import IScheme, Login, LoginFailed
from twisted_registry.auth.basic import basic_authorization, is_basic, is_empty_login, parse_basic
from twisted_registry.auth.interfaces import ANONYMOUS, Caller, Identity, IIdentity
from twisted_registry.auth.login_cache import LoginCache
from twisted_registry.auth.rules import IdentityWithRights
from twisted_registry.auth.scopes import bearer_challenge, format_scope
from twisted_registry.tokens.records import is_stored_token
from twisted_registry.tokens.signing import TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import Access
    from twisted_registry.tokens.records import TokenStore

    # @@EMPTY
    from twisted_registry.tokens.signing import TokenSigner


@frozen
class Principal:
    """Whom a token may be given.

    :ivar record: the id of the stored token that was shown, or empty.
    :ivar until: the time until which what was shown is good without another look.
    :ivar is_user: whether it is a user, whose password was right.
    """

    identity: IIdentity
    record: str = ""
    until: float = 0.0
    is_user: bool = False


#: Whoever has shown nothing.
ANONYMOUS_PRINCIPAL = Principal(ANONYMOUS)


class IOIDCVerifier(Interface):
    """Believes tokens that others have signed for their jobs."""

    async def principal(token: str) -> Principal:  # noqa: N805 - zope's methods have no self
        """Whom a token is for.

        :raises LoginFailed: if it is not believed.
        :raises RegistryError: UNAVAILABLE if that can not be found out now.
        """


@define(eq=False, repr=False)
class Authenticator:
    """Finds out who shows something.

    :ivar passwords: knows users, if there are any.
    :ivar records: knows robots, and who may refresh.
    :ivar vouchers: knows CI systems, if any are trusted.
    """

    passwords: Basic | None
    records: TokenStore
    _oidc: IOIDCVerifier | None = None

    async def authenticate_header(self, caller: Caller) -> Principal:
        """Who shows a name and a password in an Authorization header; a stranger without one.

        :raises LoginFailed: if they are not believed.
        :raises RegistryError: if that can not be found out now.
        """
        shown = caller.authorization
        if not shown:
            return ANONYMOUS_PRINCIPAL
        credentials = parse_basic(shown) if is_basic(shown) else None
        if credentials is None:
            raise LoginFailed("what was shown is not NAME:PASSWORD in base64")
        if is_empty_login(credentials):
            return ANONYMOUS_PRINCIPAL
        password = credentials.password.decode("utf-8", "replace")
        if is_stored_token(password):
            return await self._authenticate_robot(password)
        if self._oidc is not None and looks_like_jwt(password):
            return await self.authenticate_id_token(password)
        if self.passwords is None:
            raise LoginFailed("there are no users, and it is no token")
        login = self.passwords.find_cached_login(caller) or await self.passwords.authenticate(
            caller
        )
        assert login is not None
        return Principal(login.identity, is_user=True)

    async def authenticate_password(self, name: str, password: str) -> Principal:
        """Who has a name and a password.

        :raises LoginFailed: if they are not believed.
        :raises RegistryError: if that can not be found out now.
        """
        principal = await self.authenticate_header(Caller(basic_authorization(name, password)))
        if principal is ANONYMOUS_PRINCIPAL:
            raise LoginFailed("there is neither a name nor a password")
        return principal

    async def authenticate_id_token(self, token: str) -> Principal:
        """Whom a token of a CI system is for.

        :raises LoginFailed: if it is not believed.
        :raises RegistryError: if that can not be found out now.
        """
        if self._oidc is None:
            raise LoginFailed("no issuer of tokens is trusted")
        principal: Principal = await self._oidc.principal(token)
        return principal

    async def authenticate_refresh_token(self, token: str) -> Principal:
        """Whom a token that refreshes was given, if their account is still the same.

        :raises LoginFailed: if it is not believed.
        """
        record = await self.records.check(token, "refresh")
        if record is None or record.stamp != await self.stamp(record.name):
            raise LoginFailed("the refresh token is unknown, expired, revoked, or its user changed")
        return Principal(Identity(record.name), record.id)

    async def stamp(self, name: str) -> str | None:
        """What a user's account looks like; None if they have none."""
        accounts = None if self.passwords is None else self.passwords.accounts
        if accounts is None:
            return None
        stamp: str | None = await accounts.stamp(name)
        return stamp

    async def _authenticate_robot(self, token: str) -> Principal:
        record = await self.records.check(token, "robot")
        if record is None:
            raise LoginFailed("the robot's token is unknown, expired or revoked")
        return Principal(
            IdentityWithRights(f"robot:{record.name}", record.rights),
            record.id,
            self.records.cached_until(record),
        )


def looks_like_jwt(text: str) -> bool:
    """Whether a password is meant to be a JWT (RFC 7519): three parts, the first of them JSON."""
    return text.startswith("eyJ") and text.count(".") == 2


#: Where tokens are given, below the prefix of the API.
TOKEN_PATH = "auth/token"


@frozen
class Realm:
    """The URL of the place where tokens are given.

    :ivar host: scheme and host that the operator set, or empty: then what the client asked for.
    :ivar prefix: of the path; begins and ends with a slash.
    """

    host: str = ""
    prefix: str = "/"

    def url(self, caller: Caller) -> str:
        """The URL as a caller sees it; a path if they say nothing sound of the host."""
        seen = f"{'https' if caller.secure else 'http'}://{caller.host}" if caller.host else ""
        return f"{self.host.rstrip('/') or seen}{self.prefix}{TOKEN_PATH}"


@implementer(IScheme)
@define(eq=False, repr=False)
class TokenScheme:
    """Believes tokens that we signed, and whatever one gets a token for.

    :ivar realm: where tokens are given.
    :ivar signer: reads tokens. Its secret may have to be read first.
    :ivar logins: knows users, robots and CI systems.
    :ivar service: said in the challenge.
    :ivar end: frees what it holds.
    """

    realm: Realm
    service: str
    _signer: Callable[[], Awaitable[TokenSigner]]
    _authenticator: Authenticator
    _clock: IReactorTime
    _close: Callable[[], Deferred[None]] = lambda: succeed(None)
    _login_cache: LoginCache = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._login_cache = LoginCache(self._clock)

    def find_cached_login(self, caller: Caller) -> Login | None:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization
        if not shown:
            return None
        passwords = self._authenticator.passwords
        found = self._login_cache.find(shown)
        if found is None and passwords is not None and is_basic(shown):
            return passwords.find_cached_login(caller)
        return found

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization
        if not shown:
            return succeed(None)
        work = (
            self._authenticate_bearer(shown)
            if _is_bearer(shown)
            else self._authenticate_password(caller, shown)
        )
        found: Deferred[Any] = Deferred.fromCoroutine(work)
        return found

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """As promised by :class:`IScheme`."""
        return bearer_challenge(self.realm.url(caller), self.service, format_scope(accesses), error)

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return self._close()

    async def _authenticate_password(self, caller: Caller, shown: str) -> Login | None:
        principal = await self._authenticator.authenticate_header(caller)
        if principal is ANONYMOUS_PRINCIPAL:
            return None
        login = Login(principal.identity)
        if not principal.is_user:
            self._login_cache.store_login(shown, login, principal.until)
        return login

    async def _authenticate_bearer(self, shown: str) -> Login:
        signer = await self._signer()
        try:
            claims = signer.verify(shown[7:].strip())
        except TokenInvalid as error:
            raise LoginFailed(f"the token is not believed: {error}", "invalid_token") from error
        until = claims.expires
        if claims.record:
            record = await self._authenticator.records.find(claims.record)
            if record is None:
                raise LoginFailed("what the token was given for is revoked", "invalid_token")
            until = min(until, self._authenticator.records.cached_until(record))
        login = Login(claims.identity, claims.scope)
        self._login_cache.store_login(shown, login, until)
        return login


def _is_bearer(shown: str) -> bool:
    return shown[:7].lower() == "bearer "
