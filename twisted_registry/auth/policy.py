"""Rules that need no configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import implementer

from twisted_registry.auth.interfaces import IPolicy

if TYPE_CHECKING:
    from twisted_registry.auth.identity import IIdentity
    from twisted_registry.auth.interfaces import Access


@implementer(IPolicy)
@frozen
class LoggedIn:
    """Whoever has a name may do everything, as in Distribution."""

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """See the class."""
        return bool(identity.name)

    def visible(self, identity: IIdentity) -> None:
        """Everything."""


@implementer(IPolicy)
@frozen
class Everything:
    """Everybody may do everything that the scheme itself does not forbid: a token has its scope."""

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """See the class."""
        return True

    def visible(self, identity: IIdentity) -> None:
        """Everything."""
