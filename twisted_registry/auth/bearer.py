"""Distribution's token scheme: callers bring a token that another service gave them.

Tokens of Distribution's scheme: who somebody else says may do what, until when.

A JSON Web Token (RFC 7519) whose ``access`` claim lists what it is good for. Its signature is
PyJWT's business; what its claims must be is said here, because they are checked against a clock.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import define, field, frozen
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_registry.auth.access import IScheme, Login, LoginFailed
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.keys import KeyUnusable
from twisted_registry.auth.login_cache import LOGIN_TTL_S, LoginCache
from twisted_registry.auth.scopes import Scope, bearer_challenge, format_scope

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.auth.keys import Keyring, SigningKey


@implementer(IScheme)
@define(eq=False, repr=False)
class Bearer:
    """Asks for a token (RFC 6750).

    One that was good is not checked again for five minutes, or until it is over: a signature costs
    more than all else that a pull does.

    :ivar realm: the URL that gives tokens.
    :ivar check: believes tokens.
    :ivar clock: tells when a token is over.
    :ivar redirect_path: where on the very host that a caller asked tokens are given instead; empty
        for ``realm``.
    """

    realm: str
    _verifier: TokenVerifier
    _clock: IReactorTime
    _redirect_path: str = ""
    _login_cache: LoginCache = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._login_cache = LoginCache(self._clock)

    def find_cached_login(self, caller: Caller) -> Login | None:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization
        return self._login_cache.find(shown) if shown else None

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization or ""
        scheme, _, raw = shown.partition(" ")
        if scheme.lower() != "bearer" or not raw:
            return succeed(None)
        try:
            token = self._verifier.check(raw)
        except LoginFailed as error:
            return fail(error)
        until = min(token.until, self._clock.seconds() + LOGIN_TTL_S)
        self._login_cache.store_login(shown, token.login, until)
        return succeed(token.login)

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """As promised by :class:`IScheme`."""
        return bearer_challenge(
            self._realm_for(caller), self._verifier.service, format_scope(accesses), error
        )

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return succeed(None)

    def _realm_for(self, caller: Caller) -> str:
        if not self._redirect_path or not caller.host:
            return self.realm
        scheme = "http" if caller.scheme == "http" else "https"
        return f"{scheme}://{caller.host}{self._redirect_path}"


T = TypeVar("T")
#: All that a token says.
Claims: TypeAlias = "Mapping[str, Any]"

#: Seconds by which the clocks of two machines may differ.
LEEWAY_S = 60
_INVALID = "invalid_token"
#: What reading may raise, whatever a token holds.
_UNREADABLE = (*(PyJWTError, ValueError, TypeError, AttributeError, OverflowError, RecursionError),)


@frozen
class VerifiedToken:
    """A token that is believed.

    :ivar login: whose it is, and what for.
    :ivar until: when it is over, in seconds since 1970, leeway included.
    """

    login: Login
    until: float


@frozen(eq=False)
class TokenVerifier:
    """Believes tokens of one issuer for one service.

    :ivar issuer: what ``iss`` must be.
    :ivar service: what ``aud`` must be, or have in its list.
    :ivar keyring: what a token may be signed with.
    :ivar algorithms: how it may be signed, where its key allows that.
    :ivar seconds: the time since 1970.
    """

    issuer: str
    service: str
    keyring: Keyring
    seconds: Callable[[], float]
    algorithms: frozenset[str]
    _jws: PyJWS = field(init=False, factory=PyJWS)

    def check(self, raw: str) -> VerifiedToken:
        """Believe a token, or not.

        :raises LoginFailed: if it is not good, or not now.
        """
        return self._verify(raw, _make_token)

    def claims(self, raw: str) -> Claims:
        """All that a token says that is believed.

        :raises LoginFailed: if it is not good, or not now.
        """
        return self._verify(raw, lambda claims, _: claims)

    def _verify(self, raw: str, made: Callable[[Claims, float], T]) -> T:
        now = self.seconds()
        try:
            key = self.keyring.find(self._jws.get_unverified_header(raw), now)
            claims = self._verify_signature(raw, key)
            return made(claims, self._check_claims(claims, now))
        except KeyUnusable as error:
            raise LoginFailed(f"a token whose key is not trusted: {error}", _INVALID) from None
        except _UNREADABLE as error:
            # What the text says comes from the token; the kind of the error does not.
            name = type(error).__name__
            raise LoginFailed(f"a token that can not be read: {name}", _INVALID) from None

    def _verify_signature(self, raw: str, key: SigningKey) -> Claims:
        allowed = sorted(key.algorithms & self.algorithms)
        if not allowed:
            raise KeyUnusable("its algorithms are not allowed")
        claims = json.loads(self._jws.decode(raw, key.key, algorithms=allowed))
        if not isinstance(claims, dict):
            raise LoginFailed("a token without claims", _INVALID)
        return claims

    def _check_claims(self, claims: Claims, now: float) -> float:
        """When a token that is good is over."""
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.issuer:
            raise LoginFailed("a token of another issuer", _INVALID)
        if self.service not in audiences:
            raise LoginFailed("a token for another service", _INVALID)
        until = _parse_time(claims.get("exp")) + LEEWAY_S
        if now > until:
            raise LoginFailed("a token that is over", _INVALID)
        if now < _parse_time(claims.get("nbf", 0)) - LEEWAY_S:
            raise LoginFailed("a token that is not good yet", _INVALID)
        return until


def _make_token(claims: Claims, until: float) -> VerifiedToken:
    name = claims.get("sub", "")
    if not isinstance(name, str) or not name.isprintable():
        raise LoginFailed("a token whose subject is no name", _INVALID)
    try:
        scope = Scope.from_claim(claims.get("access"))
    except ValueError:
        raise LoginFailed("a token whose access is no list of rights", _INVALID) from None
    return VerifiedToken(Login(Identity(name), scope), until)


def _parse_time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LoginFailed("a token without an end, or with a time that is none", _INVALID)
    return float(value)
