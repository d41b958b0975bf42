"""Short-lived bearer tokens: JWTs that this registry signs and that no other believes.

The keys are derived from one secret, ``http.secret`` or the one that the store keeps, and from the
number of the period in which they are used. So all processes and machines that share the secret
have the same keys without telling each other; a key is no longer used after a period, and
believed for one more, which outlasts every token; and nothing is written. Whoever replaces the
secret ends all tokens, which clients answer by asking for new ones.

Only HMAC with SHA-256 is believed, whatever the head of a token says (RFC 8725 section 3.1).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Any

import jwt
from attrs import field, frozen

from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.rules import IdentityWithRights, Rights
from twisted_registry.auth.scopes import Scope

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import IIdentity

#: Who signs.
ISSUER = "twisted-registry"
#: Seconds by which the clocks of machines may differ.
LEEWAY_S = 60
_ALGORITHM = "HS256"
_KEY_PREFIX = b"twisted-registry token key "
_KEY_ID = re.compile(r"[0-9]{1,12}", re.ASCII)


class TokenInvalid(Exception):
    """A token is not believed; the text says why, without the token."""


@frozen
class TokenClaims:
    """What a token says.

    :ivar identity: whose it is; a :class:`~twisted_registry.auth.rules.IdentityWithRights` keeps its rights.
    :ivar scope: what it is good for.
    :ivar record: the id of the stored token that it was given for, or empty. It is good only as
        long as that is.
    :ivar expires: seconds since the epoch.
    """

    identity: IIdentity
    scope: Scope = field(factory=Scope)
    record: str = ""
    expires: float = 0.0


@frozen
class TokenSigner:
    """Signs and reads tokens.

    :ivar secret: what only registries over the same store have.
    :ivar service: the audience.
    :ivar lifetime: seconds for which a token is good.
    :ivar rotation: seconds for which a key signs.
    """

    _secret: bytes = field(repr=False)
    _clock: IReactorTime
    service: str
    lifetime: float
    rotation: float

    def sign(self, claims: TokenClaims) -> str:
        """A token that says this from now on, for as long as tokens live."""
        now = self._clock.seconds()
        said: dict[str, Any] = {
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
            said["groups"] = sorted(claims.identity.groups)
        if isinstance(claims.identity, IdentityWithRights):
            said["rights"] = claims.identity.rights.as_json()
        if claims.record:
            said["record"] = claims.record
        period = self._period()
        return jwt.encode(said, self._key(period), _ALGORITHM, headers={"kid": str(period)})

    def verify(self, token: str) -> TokenClaims:
        """What a token says that was signed here.

        :raises TokenInvalid: if it was not, or is not good now.
        """
        try:
            said = jwt.decode(
                token,
                self._key(self._period_of(token)),
                [_ALGORITHM],
                audience=self.service,
                issuer=ISSUER,
                options={
                    "require": ["exp", "nbf", "iss", "aud", "sub"],
                    # By our own clock, below.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            claims = _claims(said)
            begins = float(said["nbf"])
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenInvalid(str(error) or type(error).__name__) from error
        now = self._clock.seconds()
        if now >= claims.expires + LEEWAY_S or now < begins - LEEWAY_S:
            raise TokenInvalid("it has expired, or is not good yet")
        return claims

    def _period(self) -> int:
        return int(self._clock.seconds() // self.rotation)

    def _period_of(self, token: str) -> int:
        """The period that a token names, if its key may still, or already, be in use.

        :raises TokenInvalid: if not.
        """
        name = jwt.get_unverified_header(token).get("kid")
        if not isinstance(name, str) or not _KEY_ID.fullmatch(name):
            raise TokenInvalid("its key has no name of ours")
        if abs(int(name) - self._period()) > 1:
            raise TokenInvalid("its key is no longer in use")
        return int(name)

    def _key(self, period: int) -> bytes:
        return hmac.digest(self._secret, _KEY_PREFIX + str(period).encode(), hashlib.sha256)


def _claims(said: dict[str, Any]) -> TokenClaims:
    name, groups = said["sub"], frozenset(map(str, said.get("groups", ())))
    identity: IIdentity = Identity(name, groups)
    if "rights" in said:
        identity = IdentityWithRights(name, Rights.from_json(said["rights"]), groups)
    scope = Scope.from_claim(said.get("access"))
    return TokenClaims(identity, scope, str(said.get("record", "")), float(said["exp"]))
