"""Short-lived bearer tokens: JWTs that this registry signs and verifies itself.

A token says who its holder is and what it is good for. It contains no rights: they are looked up
when the token is used, by :class:`~twisted_registry.tokens.logins.Authenticator`.

Only HMAC with SHA-256 is accepted, whatever the header of a token says (RFC 8725 section 3.1).

This module needs the package ``PyJWT`` (the extra ``auth``).
"""

from __future__ import annotations

import secrets
from math import isfinite
from typing import TYPE_CHECKING, Any

import jwt
from attrs import evolve, field, frozen

from twisted_registry.auth.access import LEEWAY_S
from twisted_registry.auth.scopes import Scope
from twisted_registry.tokens.keys import accepted_until

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.tokens.keys import KeyCache

#: The ``iss`` claim of the tokens.
ISSUER = "twisted-registry"
_ALGORITHM = "HS256"
#: The exceptions that decoding a malformed token can raise.
_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, RecursionError)


class TokenInvalid(Exception):
    """The token is not accepted; the text says why and does not contain the token."""


@frozen
class TokenClaims:
    """The content of a token. One of ``account``, ``record`` and ``rules`` says where rights are.

    :ivar name: the name of the user; empty for an anonymous caller.
    :ivar scope: the scope.
    :ivar account: the version of the user's account when the password was checked, see
        :class:`~twisted_registry.auth.interfaces.IAccountVersions`.
    :ivar record: the id of the stored token that the token was issued for, or empty.
    :ivar rules: the ids of the rules of an OIDC issuer that the token of a CI system has matched.
    :ivar expires: when the token expires, in seconds since the epoch.
    """

    name: str
    scope: Scope = field(factory=Scope)
    account: str = ""
    record: str = ""
    rules: tuple[str, ...] = ()
    expires: float = 0.0


@frozen
class TokenSigner:
    """Signs and verifies tokens.

    :ivar keys: the keys.
    :ivar clock: the current time.
    :ivar service: the audience of the tokens.
    :ivar lifetime: the lifetime of a token in seconds.
    """

    keys: KeyCache
    _clock: IReactorTime
    service: str
    lifetime: float

    async def sign(self, claims: TokenClaims) -> str:
        """Return a token that is valid from now on for :attr:`lifetime` seconds.

        :raises RegistryError: UNAVAILABLE if the keys cannot be read.
        """
        key = (await self.keys.current()).signing
        now = self._clock.seconds()
        payload: dict[str, Any] = {
            "iss": ISSUER,
            "sub": claims.name,
            "aud": self.service,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + self.lifetime),
            "jti": secrets.token_hex(8),
            "access": [part.as_json() for part in claims.scope.resources],
        }
        if claims.account:
            payload["account"] = claims.account
        if claims.record:
            payload["record"] = claims.record
        if claims.rules:
            payload["rules"] = list(claims.rules)
        return jwt.encode(payload, key.secret, _ALGORITHM, headers={"kid": key.id})

    async def verify(self, token: str) -> TokenClaims:
        """Verify a token and return its content.

        :raises TokenInvalid: if it has no valid signature, is expired or not yet valid.
        :raises RegistryError: UNAVAILABLE if the keys cannot be read.
        """
        key = await self.keys.find(_key_id_of(token))
        now = self._clock.seconds()
        key_end = 0.0 if key is None else accepted_until(key, self.lifetime)
        if key is None or now >= key_end:
            raise TokenInvalid("its key is unknown or no longer in use")
        try:
            payload = jwt.decode(
                token,
                key.secret,
                [_ALGORITHM],
                audience=self.service,
                issuer=ISSUER,
                options={
                    "require": ["exp", "nbf", "iss", "aud", "sub"],
                    # The times are compared with the reactor's clock below.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            claims = _parse_claims(payload)
            not_before = _parse_time(payload["nbf"])
        except _UNREADABLE as error:
            raise TokenInvalid(str(error) or type(error).__name__) from error
        if now >= claims.expires + LEEWAY_S or now < not_before - LEEWAY_S:
            raise TokenInvalid("it has expired or is not yet valid")
        return evolve(claims, expires=min(claims.expires, key_end))


def _key_id_of(token: str) -> object:
    """Return the key id that a token names.

    :raises TokenInvalid: if its header cannot be read.
    """
    try:
        return jwt.get_unverified_header(token).get("kid")
    except _UNREADABLE as error:
        raise TokenInvalid(f"its header cannot be read: {type(error).__name__}") from error


def _parse_claims(payload: dict[str, Any]) -> TokenClaims:
    rules = payload.get("rules", [])
    if not isinstance(rules, list):
        raise ValueError("rules is not a list")  # noqa: TRY004 - one error for bad content
    return TokenClaims(
        payload["sub"],
        Scope.from_claim(payload.get("access")),
        str(payload.get("account", "")),
        str(payload.get("record", "")),
        tuple(map(str, rules)),
        _parse_time(payload["exp"]),
    )


def _parse_time(value: Any) -> float:
    time = float(value)
    if not isfinite(time):
        raise ValueError("exp or nbf is not a time")
    return time
