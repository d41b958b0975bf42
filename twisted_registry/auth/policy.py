"""Rules that need no configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import implementer

from twisted_registry.auth.identity import ANONYMOUS
from twisted_registry.auth.interfaces import IPolicy, ISteady

if TYPE_CHECKING:
    from twisted_registry.auth.identity import IIdentity
    from twisted_registry.auth.interfaces import Access


@implementer(IPolicy, ISteady)
@frozen
class AuthenticatedPolicy:
    """Whoever has a name may do everything, as in Distribution."""

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """See the class."""
        return bool(identity.name)

    def visible(self, identity: IIdentity) -> None:
        """Everything."""


@implementer(IPolicy, ISteady)
@frozen
class TokenScopePolicy:
    """Whoever has shown good credentials may do what these allow, be it without a name: a token
    has its scope. Whoever has shown none may do nothing.
    """

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """See the class."""
        return identity is not ANONYMOUS

    def visible(self, identity: IIdentity) -> None:
        """Everything."""
