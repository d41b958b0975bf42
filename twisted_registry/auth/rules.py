"""The rules of ``access``: each adds to what the others allow, and nothing takes away.

What somebody may do, and what they may see of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen
from zope.interface import implementer

from twisted_registry.auth.interfaces import (
    CATALOG,
    MAINTENANCE,
    IIdentity,
    IPolicy,
    IRepositoryFilter,
    ISteady,
)
from twisted_registry.oci.patterns import GlobSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_registry.auth.interfaces import Access

#: What an action of a rule allows, in the words of :class:`~.interfaces.Access`. A push reads, too:
#: clients look whether a blob is there.
IMPLIED_ACTIONS = {
    "pull": frozenset({"pull"}),
    "push": frozenset({"pull", "push"}),
    "delete": frozenset({"delete"}),
    "admin": frozenset({"pull", "push", "delete", "*"}),
}
#: Answers that are kept of what somebody may do.
_MAX_DECISIONS = 256


@frozen
class Right:
    """Some actions in some repositories.

    :ivar actions: those of :class:`~twisted_registry.auth.interfaces.Access`.
    """

    repositories: GlobSet
    actions: frozenset[str]

    @classmethod
    def make(cls, repositories: Iterable[str], actions: Iterable[str]) -> Right:
        """A right from patterns and the actions of a rule.

        :raises GlobInvalid: if one is no pattern.
        :raises KeyError: if one is no action.
        """
        allowed = frozenset[str]().union(*(IMPLIED_ACTIONS[action] for action in actions))
        return cls(GlobSet.parse(repositories), allowed)

    def as_json(self) -> dict[str, list[str]]:
        """What :meth:`from_json` reads."""
        chosen = [glob.text for glob in self.repositories.included]
        chosen += [f"!{glob.text}" for glob in self.repositories.excluded]
        return {"repositories": chosen, "actions": sorted(self.actions)}

    @classmethod
    def from_json(cls, said: Mapping[str, Iterable[str]]) -> Right:
        """Read a right again.

        :raises ValueError: if it is none.
        """
        try:
            actions = frozenset(said["actions"]) & IMPLIED_ACTIONS["admin"]
            return cls(GlobSet.parse(said["repositories"]), actions)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no right") from error


@frozen
class Rights:
    """All that somebody may do; nothing without a right to it."""

    rights: tuple[Right, ...] = ()
    _decisions: dict[tuple[str, str], bool] = field(init=False, factory=dict, eq=False, repr=False)

    def as_json(self) -> list[dict[str, list[str]]]:
        """What :meth:`from_json` reads."""
        return [right.as_json() for right in self.rights]

    @classmethod
    def from_json(cls, said: Iterable[Mapping[str, Iterable[str]]]) -> Rights:
        """Read rights again.

        :raises ValueError: if they are none.
        """
        return cls(tuple(map(Right.from_json, said)))

    def allow(self, access: Access) -> bool:
        """Whether one of them allows this."""
        if access.type == "registry":
            return self._allows_registry_access(access)
        key = access.name, access.action
        allowed = self._decisions.get(key)
        if allowed is None:
            if len(self._decisions) >= _MAX_DECISIONS:
                self._decisions.clear()
            allowed = self._decisions[key] = any(
                access.action in right.actions and access.name in right.repositories
                for right in self.rights
            )
        return allowed

    def _allows_registry_access(self, access: Access) -> bool:
        if access == MAINTENANCE:
            return any(
                "*" in right.actions and right.repositories.matches_everything
                for right in self.rights
            )
        # Whoever may pull anything may list what they may pull.
        return access == CATALOG and any("pull" in right.actions for right in self.rights)

    @property
    def visible(self) -> IRepositoryFilter | None:
        """The repositories that can be pulled; None if that is every one."""
        choices = tuple(right.repositories for right in self.rights if "pull" in right.actions)
        return (
            None
            if any(choice.matches_everything for choice in choices)
            else RepositoryFilter(choices)
        )


@implementer(IRepositoryFilter)
@frozen
class RepositoryFilter:
    """Repositories that one of some choices has."""

    choices: tuple[GlobSet, ...]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """As promised by :class:`IRepositoryFilter`."""
        found: list[str] = []
        for prefix in sorted(glob.prefix for choice in self.choices for glob in choice.included):
            # A prefix of this one, if there is any, is right before it.
            if not found or not prefix.startswith(found[-1]):
                found.append(prefix)
        return tuple(found)

    def includes(self, name: str) -> bool:
        """As promised by :class:`IRepositoryFilter`."""
        return any(name in choice for choice in self.choices)


@implementer(IIdentity, ISteady)
@frozen
class IdentityWithRights:
    """Somebody who brings their own rights, whom no rule is asked about.

    :ivar rights: all that they may do.
    """

    name: str
    rights: Rights
    groups: frozenset[str] = frozenset()


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
