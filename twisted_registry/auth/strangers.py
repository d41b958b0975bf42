"""A policy without a scheme: nobody can log in, and everybody may do what strangers may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_registry.auth.interfaces import Access, Caller, IClosableAccessController, IGrant, IPolicy
from twisted_registry.auth.schemes import ANONYMOUS_LOGIN, Grant, error_detail
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence


@implementer(IClosableAccessController)
@define(eq=False, repr=False)
class AnonymousOnly:
    """Asks a policy what strangers may; there is no login that could help."""

    _policy: IPolicy

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:  # noqa: ARG002
        """As promised by :class:`~twisted_registry.auth.interfaces.IAccessController`."""
        grant = Grant("", ANONYMOUS_LOGIN, self._policy)
        if all(map(grant.permits, accesses)):
            return succeed(grant)
        return fail(RegistryError(ErrorCode.DENIED, detail=error_detail(accesses)))

    def close(self) -> Deferred[None]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IClosableAccessController`."""
        return succeed(None)
