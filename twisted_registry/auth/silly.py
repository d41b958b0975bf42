"""Distribution's ``silly`` scheme: accepts any Authorization header. For testing clients only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.auth.access import IScheme, Login
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.scopes import bearer_challenge, format_scope_by_action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.auth.interfaces import Access, Caller

_LOGIN = Login(Identity("silly"))


@implementer(IScheme)
@frozen
class Silly:
    """A scheme that logs in every caller with an Authorization header as the user "silly".

    :ivar realm: the realm of the challenge.
    :ivar service: the service of the challenge.
    """

    realm: str
    service: str

    def find_cached_login(self, caller: Caller) -> Login | None:
        """Return the login, or None without an Authorization header."""
        return _LOGIN if caller.authorization else None

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """Fire with the login, or with None without an Authorization header."""
        return succeed(self.find_cached_login(caller))

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:  # noqa: ARG002
        """Return a challenge for a token, with a separate scope for each action."""
        return bearer_challenge(self.realm, self.service, format_scope_by_action(accesses))

    def close(self) -> Deferred[None]:
        """Do nothing: there are no resources to release."""
        return succeed(None)
