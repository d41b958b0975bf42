"""The Bearer scheme: Distribution's token scheme with an external token service.

A token is a JSON Web Token (RFC 7519) whose ``access`` claim lists what it is good for. PyJWT
verifies the signature. The claims are checked here, because their times are compared with the
reactor's clock.

This module needs the package ``PyJWT`` (the extra ``auth``).
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Factory, define, field, frozen
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_registry.auth.access import LEEWAY_S, IScheme, Login, LoginFailed
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.keys import KeyUnusable
from twisted_registry.auth.login_cache import LOGIN_TTL_S, LoginCache
from twisted_registry.auth.scopes import Scope, bearer_challenge, format_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.auth.keys import Keyring, SigningKey

#: The claims of a token.
Claims: TypeAlias = "Mapping[str, Any]"

#: The ``error`` of a challenge after an invalid token (RFC 6750 section 3.1).
_INVALID = "invalid_token"
#: The exceptions that decoding a malformed token can raise.
_UNREADABLE = (PyJWTError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)


@implementer(IScheme)
@define(eq=False, repr=False)
class Bearer:
    """A scheme for tokens of an external token service (RFC 6750).

    A valid token is not verified again for five minutes, or until it expires: verifying a
    signature costs more than the rest of a pull.

    :ivar realm: the URL of the token service.
    :ivar verifier: verifies tokens.
    :ivar clock: for the lifetime of cached logins.
    :ivar redirect_path: the path of the token service on the host that the client has requested;
        empty to use ``realm``.
    :ivar login_cache: the cache of logins.
    """

    realm: str
    _verifier: TokenVerifier
    _clock: IReactorTime
    _redirect_path: str = ""
    _login_cache: LoginCache = field(
        default=Factory(lambda self: LoginCache(self._clock), takes_self=True), kw_only=True
    )

    def find_cached_login(self, caller: Caller) -> Login | None:
        """Return the cached login for the token."""
        authorization = caller.authorization
        return self._login_cache.find_login(authorization) if authorization else None

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """Verify the token and cache its login."""
        authorization = caller.authorization or ""
        scheme, _, raw = authorization.partition(" ")
        if scheme.lower() != "bearer" or not raw:
            return succeed(None)
        try:
            token = self._verifier.verify(raw)
        except LoginFailed as error:
            return fail(error)
        expires = min(token.expires, self._clock.seconds() + LOGIN_TTL_S)
        self._login_cache.store_login(authorization, token.login, expires)
        return succeed(token.login)

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """Return the challenge for a token with a scope for the accesses."""
        return bearer_challenge(
            self._realm_for(caller), self._verifier.service, format_scope(accesses), error
        )

    def close(self) -> Deferred[None]:
        """Do nothing: there are no resources to release."""
        return succeed(None)

    def _realm_for(self, caller: Caller) -> str:
        if not self._redirect_path or not caller.host:
            return self.realm
        scheme = "http" if caller.scheme == "http" else "https"
        return f"{scheme}://{caller.host}{self._redirect_path}"


@frozen
class VerifiedToken:
    """The content of a valid token.

    :ivar login: the user and the scope.
    :ivar expires: when the token expires, in seconds since 1970, including the leeway.
    """

    login: Login
    expires: float


@frozen(eq=False)
class TokenVerifier:
    """Verifies the tokens of one issuer for one service.

    :ivar issuer: the required ``iss`` claim.
    :ivar service: the required ``aud`` claim, or one entry of its list.
    :ivar keyring: the trusted keys.
    :ivar seconds: returns the time in seconds since 1970.
    :ivar algorithms: the accepted signature algorithms. The algorithms of a key narrow them.
    """

    issuer: str
    service: str
    keyring: Keyring
    seconds: Callable[[], float]
    algorithms: frozenset[str]
    _jws: PyJWS = field(init=False, factory=PyJWS)

    def verify(self, raw: str) -> VerifiedToken:
        """Verify a token and return its user and scope.

        :raises LoginFailed: if the token is invalid, expired or not yet valid.
        """
        claims, expires = self._verify(raw)
        name = claims.get("sub", "")
        if not isinstance(name, str) or not name.isprintable():
            raise LoginFailed("token rejected: its subject is not a name", _INVALID)
        try:
            scope = Scope.from_claim(claims.get("access"))
        except ValueError as error:
            raise LoginFailed(f"token rejected: {error}", _INVALID) from None
        return VerifiedToken(Login(Identity(name), scope), expires)

    def verify_claims(self, raw: str) -> Claims:
        """Verify a token and return all its claims.

        :raises LoginFailed: if the token is invalid, expired or not yet valid.
        """
        return self._verify(raw)[0]

    def _verify(self, raw: str) -> tuple[Claims, float]:
        now = self.seconds()
        try:
            key = self.keyring.find_key(self._jws.get_unverified_header(raw), now)
            claims = self._verify_signature(raw, key)
            return claims, self._check_claims(claims, now)
        except KeyUnusable as error:
            raise LoginFailed(f"token rejected: {error}", _INVALID) from None
        except _UNREADABLE as error:
            # The message comes from the token; the type of the error does not.
            name = type(error).__name__
            raise LoginFailed(f"token rejected: it cannot be read: {name}", _INVALID) from None

    def _verify_signature(self, raw: str, key: SigningKey) -> Claims:
        allowed = sorted(key.algorithms & self.algorithms)
        if not allowed:
            raise KeyUnusable("the algorithms of its key are not allowed")
        claims = json.loads(self._jws.decode(raw, key.key, algorithms=allowed))
        if not isinstance(claims, dict):
            raise LoginFailed("token rejected: it has no claims", _INVALID)
        return claims

    def _check_claims(self, claims: Claims, now: float) -> float:
        """Return when a valid token expires, including the leeway."""
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.issuer:
            raise LoginFailed("token rejected: wrong issuer", _INVALID)
        if self.service not in audiences:
            raise LoginFailed("token rejected: wrong audience", _INVALID)
        expires = _parse_time(claims.get("exp")) + LEEWAY_S
        if now > expires:
            raise LoginFailed("token rejected: it has expired", _INVALID)
        if now < _parse_time(claims.get("nbf", 0)) - LEEWAY_S:
            raise LoginFailed("token rejected: it is not yet valid", _INVALID)
        return expires


def _parse_time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LoginFailed("token rejected: exp or nbf is missing or not a time", _INVALID)
    return float(value)
