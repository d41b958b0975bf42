"""No authentication: everybody may do everything, as in Distribution without ``auth``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.auth.interfaces import Access, Caller, IAccessController, IGrant, OpenGrant

if TYPE_CHECKING:
    from collections.abc import Sequence


_GRANT = OpenGrant()


@implementer(IAccessController)
class OpenAccess:
    """Grants every request."""

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:  # noqa: ARG002
        """Say yes."""
        return succeed(_GRANT)
