"""The rules of ``access``: each adds to what the others allow, and nothing takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from zope.interface import implementer

from twisted_registry.auth.interfaces import CATALOG, IPolicy, ISteady
from twisted_registry.auth.rights import IdentityWithRights, Right, Rights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.auth.identity import IIdentity
    from twisted_registry.auth.interfaces import Access, IRepositoryFilter

#: Users whose rights are kept.
_MAX_USERS = 4096


@frozen
class AccessRule:
    """Some users have a right.

    :ivar anonymous: whether everybody has it.
    :ivar authenticated: whether everybody with a name has it.
    """

    right: Right
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    authenticated: bool = False
    anonymous: bool = False

    def applies_to(self, name: str, groups: frozenset[str]) -> bool:
        """Whether it is about a user of these groups; about a stranger if the name is empty."""
        if self.anonymous:
            return True
        return bool(name) and (
            self.authenticated or name in self.users or not self.groups.isdisjoint(groups)
        )


@implementer(IPolicy, ISteady)
@define(eq=False, repr=False)
class AccessPolicy:
    """Allows what a rule allows.

    :ivar rules: all of them.
    :ivar members: the users of each group; a login can say of further groups.
    """

    _rules: tuple[AccessRule, ...]
    _members: Mapping[str, frozenset[str]] = field(factory=dict)
    _rights_by_user: dict[tuple[str, frozenset[str]], Rights] = field(init=False, factory=dict)

    def allows(self, identity: IIdentity, access: Access) -> bool:
        """As promised by :class:`IPolicy`."""
        if access.type == "registry" and access == CATALOG and identity.name:
            # Their list may be empty, which is no secret to them.
            return True
        return self.rights(identity).allow(access)

    def visible(self, identity: IIdentity) -> IRepositoryFilter | None:
        """As promised by :class:`IPolicy`."""
        return self.rights(identity).visible

    def rights(self, identity: IIdentity) -> Rights:
        """All that somebody may do."""
        if isinstance(identity, IdentityWithRights):
            return identity.rights
        key = identity.name, identity.groups
        found = self._rights_by_user.get(key)
        if found is None:
            if len(self._rights_by_user) >= _MAX_USERS:
                self._rights_by_user.clear()
            found = self._rights_by_user[key] = self._find_rights(*key)
        return found

    def _find_rights(self, name: str, groups: frozenset[str]) -> Rights:
        mine = groups | {group for group, users in self._members.items() if name in users}
        return Rights(tuple(rule.right for rule in self._rules if rule.applies_to(name, mine)))
