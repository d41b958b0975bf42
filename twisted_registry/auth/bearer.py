"""Distribution's token scheme: callers bring a token that another service gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_registry.auth.challenges import bearer_challenge, format_scope
from twisted_registry.auth.recent import LOGIN_TTL_S, LoginCache
from twisted_registry.auth.schemes import IScheme, Login, LoginFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.auth.tokens import TokenVerifier


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
        return bearer_challenge(self._realm_for(caller), self._verifier.service, format_scope(accesses), error)

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return succeed(None)

    def _realm_for(self, caller: Caller) -> str:
        if not self._redirect_path or not caller.host:
            return self.realm
        scheme = "http" if caller.scheme == "http" else "https"
        return f"{scheme}://{caller.host}{self._redirect_path}"
