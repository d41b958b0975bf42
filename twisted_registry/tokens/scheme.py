"""Our own tokens as a scheme: bearer tokens that we signed, or a name and a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.auth.basic import is_basic
from twisted_registry.auth.challenges import bearer_challenge, format_scope
from twisted_registry.auth.recent import LoginCache
from twisted_registry.auth.schemes import IScheme, Login, LoginFailed
from twisted_registry.tokens.logins import ANONYMOUS_PRINCIPAL
from twisted_registry.tokens.signing import TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.tokens.logins import Authenticator
    from twisted_registry.tokens.signing import TokenSigner

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
        work = self._authenticate_bearer(shown) if _is_bearer(shown) else self._authenticate_password(caller, shown)
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
