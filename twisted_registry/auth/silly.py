"""``silly``: any Authorization will do. For trying out how clients behave, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.auth.challenges import bearer, scopes_of
from twisted_registry.auth.identity import Identity
from twisted_registry.auth.schemes import IScheme, Login

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

    def recall(self, caller: Caller) -> Login | None:
        """As promised by :class:`IScheme`."""
        return _LOGIN if caller.authorization else None

    def identify(self, caller: Caller) -> Deferred[Login | None]:
        """As promised by :class:`IScheme`."""
        return succeed(self.recall(caller))

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:  # noqa: ARG002
        """As promised by :class:`IScheme`."""
        return bearer(self.realm, self.service, scopes_of(accesses))

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return succeed(None)
