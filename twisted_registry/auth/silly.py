"""``silly``: any Authorization will do. For trying out how clients behave, and nothing else."""

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
    """Takes whoever shows something for the user "silly".

    :ivar realm: said in the challenge.
    :ivar service: said in the challenge.
    """

    realm: str
    service: str

    def find_cached_login(self, caller: Caller) -> Login | None:
        """As promised by :class:`IScheme`."""
        return _LOGIN if caller.authorization else None

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """As promised by :class:`IScheme`."""
        return succeed(self.find_cached_login(caller))

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:  # noqa: ARG002
        """As promised by :class:`IScheme`."""
        return bearer_challenge(self.realm, self.service, format_scope_by_action(accesses))

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return succeed(None)
