"""Tokens of Distribution's scheme: who somebody else says may do what, until when.

A JSON Web Token (RFC 7519) whose ``access`` claim lists what it is good for. Its signature is
PyJWT's business; what its claims must be is said here, because they are checked against a clock.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from zope.interface import implementer

from twisted_registry.auth.identity import Identity
from twisted_registry.auth.interfaces import IScope
from twisted_registry.auth.schemes import Login, LoginFailed
from twisted_registry.auth.signingkeys import KeyUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_registry.auth.identity import IIdentity
    from twisted_registry.auth.interfaces import Access
    from twisted_registry.auth.keyring import Keyring

#: Seconds by which the clocks of two machines may differ.
LEEWAY = 60
_INVALID = "invalid_token"
#: What reading may raise, whatever a token holds.
_UNREADABLE = (*(PyJWTError, ValueError, TypeError, AttributeError, OverflowError, RecursionError),)


@implementer(IScope)
@frozen
class Scope:
    """What a token is good for.

    :ivar actions: by type and name; ``*`` stands for all.
    """

    actions: Mapping[tuple[str, str], frozenset[str]]

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """As promised by :class:`IScope`."""
        allowed = self.actions.get((access.type, access.name), frozenset())
        return access.action in allowed or "*" in allowed


@frozen
class Token:
    """A token that is believed.

    :ivar login: whose it is, and what for.
    :ivar until: when it is over, in seconds since 1970, leeway included.
    """

    login: Login
    until: float


@frozen(eq=False)
class TokenCheck:
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

    def check(self, raw: str) -> Token:
        """Believe a token, or not.

        :raises LoginFailed: if it is not good, or not now.
        """
        try:
            return self._check(raw)
        except KeyUnusable as error:
            raise LoginFailed(f"a token whose key is not trusted: {error}", _INVALID) from None
        except _UNREADABLE as error:
            # What the text says comes from the token; the kind of the error does not.
            name = type(error).__name__
            raise LoginFailed(f"a token that can not be read: {name}", _INVALID) from None

    def _check(self, raw: str) -> Token:
        now = self.seconds()
        key = self.keyring.find(self._jws.get_unverified_header(raw), now)
        allowed = sorted(key.algorithms & self.algorithms)
        if not allowed:
            raise KeyUnusable("its algorithms are not allowed")
        payload = self._jws.decode(raw, key.key, algorithms=allowed)
        claims = json.loads(payload)
        if not isinstance(claims, dict):
            raise LoginFailed("a token without claims", _INVALID)
        return self._judge(claims, now)

    def _judge(self, claims: Mapping[str, Any], now: float) -> Token:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.issuer:
            raise LoginFailed("a token of another issuer", _INVALID)
        if self.service not in audiences:
            raise LoginFailed("a token for another service", _INVALID)
        until = _time(claims.get("exp")) + LEEWAY
        if now > until:
            raise LoginFailed("a token that is over", _INVALID)
        if now < _time(claims.get("nbf", 0)) - LEEWAY:
            raise LoginFailed("a token that is not good yet", _INVALID)
        name = claims.get("sub", "")
        if not isinstance(name, str) or not name.isprintable():
            raise LoginFailed("a token whose subject is no name", _INVALID)
        return Token(Login(Identity(name), _scope(claims.get("access"))), until)


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LoginFailed("a token without an end, or with a time that is none", _INVALID)
    return float(value)


def _scope(access: object) -> Scope:
    actions: dict[tuple[str, str], frozenset[str]] = {}
    for entry in () if access is None else access:  # type: ignore[attr-defined]
        where, names = (entry.get("type", ""), entry.get("name", "")), entry.get("actions") or []
        texts = (*where, *names) if isinstance(names, list) else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise LoginFailed("a token whose access is no list of rights", _INVALID)
        actions[where] = actions.get(where, frozenset()) | frozenset(names)
    return Scope(actions)
