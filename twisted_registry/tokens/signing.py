"""Short-lived bearer tokens: JWTs that this registry signs and verifies itself.

The keys are derived from one secret (``http.secret``, or the secret in the store) and the number
of the current period. All processes and machines with the same secret therefore have the same
keys without communicating, and no key is stored. A key signs for one period and is accepted for
one more, which is longer than any token lives. Replacing the secret invalidates all tokens;
clients then get new ones.

Only HMAC with SHA-256 is accepted, whatever the header of a token says (RFC 8725 section 3.1).

This module needs the package ``PyJWT`` (the extra ``auth``).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Any

import jwt
from attrs import field, frozen

from twisted_registry.auth.access import LEEWAY_S
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.rules import IdentityWithRights, Rights
from twisted_registry.auth.scopes import Scope

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import IIdentity

#: The ``iss`` claim of the tokens.
ISSUER = "twisted-registry"
_ALGORITHM = "HS256"
_KEY_PREFIX = b"twisted-registry token key "
_KEY_ID = re.compile(r"[0-9]{1,12}", re.ASCII)


class TokenInvalid(Exception):
    """The token is not accepted; the text says why and does not contain the token."""


@frozen
class TokenClaims:
    """The content of a token.

    :ivar identity: the user. The rights of an
        :class:`~twisted_registry.auth.rules.IdentityWithRights` are part of the token.
    :ivar scope: the scope.
    :ivar record: the id of the stored token that the token was issued for, or empty. Revoking the
        stored token revokes this one.
    :ivar expires: when the token expires, in seconds since the epoch.
    """

    identity: IIdentity
    scope: Scope = field(factory=Scope)
    record: str = ""
    expires: float = 0.0


@frozen
class TokenSigner:
    """Signs and verifies tokens.

    :ivar secret: the secret that all registries over the same store share.
    :ivar clock: the current time.
    :ivar service: the audience of the tokens.
    :ivar lifetime: the lifetime of a token in seconds.
    :ivar rotation: the length of a period in seconds.
    """

    _secret: bytes = field(repr=False)
    _clock: IReactorTime
    service: str
    lifetime: float
    rotation: float

    def sign(self, claims: TokenClaims) -> str:
        """Return a token that is valid from now on for :attr:`lifetime` seconds."""
        now = self._clock.seconds()
        payload: dict[str, Any] = {
            "iss": ISSUER,
            "sub": claims.identity.name,
            "aud": self.service,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + self.lifetime),
            "jti": secrets.token_hex(8),
            "access": [part.as_json() for part in claims.scope.resources],
        }
        if claims.identity.groups:
            payload["groups"] = sorted(claims.identity.groups)
        if isinstance(claims.identity, IdentityWithRights):
            payload["rights"] = claims.identity.rights.as_json()
        if claims.record:
            payload["record"] = claims.record
        period = self._period()
        return jwt.encode(payload, self._key(period), _ALGORITHM, headers={"kid": str(period)})

    def verify(self, token: str) -> TokenClaims:
        """Verify a token and return its content.

        :raises TokenInvalid: if it has no valid signature, is expired or not yet valid.
        """
        try:
            payload = jwt.decode(
                token,
                self._key(self._period_of(token)),
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
            not_before = float(payload["nbf"])
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenInvalid(str(error) or type(error).__name__) from error
        now = self._clock.seconds()
        if now >= claims.expires + LEEWAY_S or now < not_before - LEEWAY_S:
            raise TokenInvalid("it has expired or is not yet valid")
        return claims

    def _period(self) -> int:
        return int(self._clock.seconds() // self.rotation)

    def _period_of(self, token: str) -> int:
        """Return the period that a token names, if it is the current one or next to it.

        :raises TokenInvalid: if it is another one.
        """
        name = jwt.get_unverified_header(token).get("kid")
        if not isinstance(name, str) or not _KEY_ID.fullmatch(name):
            raise TokenInvalid("its kid is not the number of a period")
        if abs(int(name) - self._period()) > 1:
            raise TokenInvalid("its key is no longer in use")
        return int(name)

    def _key(self, period: int) -> bytes:
        return hmac.digest(self._secret, _KEY_PREFIX + str(period).encode(), hashlib.sha256)


def _parse_claims(payload: dict[str, Any]) -> TokenClaims:
    name, groups = payload["sub"], frozenset(map(str, payload.get("groups", ())))
    identity: IIdentity = Identity(name, groups)
    if "rights" in payload:
        identity = IdentityWithRights(name, Rights.from_json(payload["rights"]), groups)
    scope = Scope.from_claim(payload.get("access"))
    return TokenClaims(identity, scope, str(payload.get("record", "")), float(payload["exp"]))
