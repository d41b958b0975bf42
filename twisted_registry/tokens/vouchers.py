"""Tokens that CI systems sign for their jobs (OpenID Connect), in the place of a password.

An issuer speaks for very many: that a token is genuine says little. So a rule has to name what the
claims must be, and gives rights of its own.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any

from attrs import define, frozen
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from zope.interface import implementer

from twisted_registry.auth.rights import IdentityWithRights, Right, Rights
from twisted_registry.auth.schemes import LoginFailed
from twisted_registry.auth.tokens import TokenVerifier
from twisted_registry.tokens.logins import Principal, IOIDCVerifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.tokens.issuerkeys import IssuerKeys

#: Only such as need a private key: what an issuer publishes is no secret.
ALGORITHMS = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }
)
#: Seconds for which a token is not checked again.
_LOGIN_TTL_S = 60.0
#: Characters of a subject, which comes to logs and events.
_MAX_SUBJECT_CHARS = 255


@frozen
class ClaimCondition:
    """What a claim must be.

    :ivar pattern: the text of the claim; ``*`` stands for any part of it.
    """

    claim: str
    pattern: str

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token says so; of a list one entry is enough."""
        value = claims.get(self.claim)
        values = value if isinstance(value, list) else [value]
        return any(matches_pattern(self.pattern, text) for each in values if (text := _claim_text(each)) is not None)


@frozen
class OIDCRule:
    """Tokens of which all conditions hold have a right."""

    conditions: tuple[ClaimCondition, ...]
    right: Right

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether it is for a token; for none if it has no condition."""
        return bool(self.conditions) and all(each.matches(claims) for each in self.conditions)


@frozen
class TrustedIssuer:
    """Somebody whose tokens are believed.

    :ivar audience: what a token must be for.
    """

    keys: IssuerKeys
    audience: str
    rules: tuple[OIDCRule, ...]


@implementer(IOIDCVerifier)
@define(eq=False, repr=False)
class OIDCVerifier:
    """Believes the tokens of some issuers.

    :ivar issuers: each with a URL of its own.
    """

    _issuers: Sequence[TrustedIssuer]
    _clock: IReactorTime

    async def principal(self, token: str) -> Principal:
        """As promised by :class:`IOIDCVerifier`."""
        kid, named = _unverified_key_and_issuer(token)
        issuer = next((each for each in self._issuers if each.keys.issuer == named), None)
        if issuer is None:
            raise LoginFailed("the token is of an issuer that is not trusted")
        keyring = await issuer.keys.keyring_for(kid)
        check = TokenVerifier(
            issuer.keys.issuer, issuer.audience, keyring, self._clock.seconds, ALGORITHMS
        )
        claims = check.claims(token)
        rights = tuple(rule.right for rule in issuer.rules if rule.matches(claims))
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject.isprintable() or not subject:
            raise LoginFailed("the token has no subject")
        name = f"ci:{subject[:_MAX_SUBJECT_CHARS]}"
        if not rights:
            raise LoginFailed(f"no rule of the issuer is for {name!r}")
        now = self._clock.seconds()
        return Principal(
            IdentityWithRights(name, Rights(rights)), until=min(now + _LOGIN_TTL_S, float(claims["exp"]))
        )


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether a text is of a form in which ``*`` stands for any characters.

    The first place that fits is as good as any, so that nothing is tried twice.
    """
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *between, last = others
    if not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for part in between:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end


def _claim_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _unverified_key_and_issuer(token: str) -> tuple[object, object]:
    """The key and the issuer that a token names, which nobody has checked yet.

    :raises LoginFailed: if it is no token.
    """
    try:
        header = PyJWS().get_unverified_header(token)
        body = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return header.get("kid"), claims.get("iss")
    except (PyJWTError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise LoginFailed("the token can not be read") from error
