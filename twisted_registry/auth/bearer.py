"""Distribution's token scheme: callers bring a token that another service gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_registry.auth.challenges import bearer, scope_of
from twisted_registry.auth.recent import REMEMBERED, RecentLogins
from twisted_registry.auth.schemes import IScheme, Login, LoginFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.auth.tokens import TokenCheck


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
    _check: TokenCheck
    _clock: IReactorTime
    _redirect_path: str = ""
    _recent: RecentLogins = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._recent = RecentLogins(self._clock)

    def recall(self, caller: Caller) -> Login | None:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization
        return self._recent.find(shown) if shown else None

    def identify(self, caller: Caller) -> Deferred[Login | None]:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization or ""
        scheme, _, raw = shown.partition(" ")
        if scheme.lower() != "bearer" or not raw:
            return succeed(None)
        try:
            token = self._check.check(raw)
        except LoginFailed as error:
            return fail(error)
        until = min(token.until, self._clock.seconds() + REMEMBERED)
        self._recent.keep(shown, token.login, until)
        return succeed(token.login)

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """As promised by :class:`IScheme`."""
        return bearer(self._realm_for(caller), self._check.service, scope_of(accesses), error)

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return succeed(None)

    def _realm_for(self, caller: Caller) -> str:
        if not self._redirect_path or not caller.host:
            return self.realm
        scheme = "http" if caller.scheme == "http" else "https"
        return f"{scheme}://{caller.host}{self._redirect_path}"
