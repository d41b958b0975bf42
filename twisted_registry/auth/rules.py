"""The rules of the ``access`` section: who may do what in which repositories.

A :class:`Right` is a set of actions in a set of repositories. An :class:`AccessRule` gives a right
to some users. Each rule adds to what the others allow; no rule takes anything away.
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
)
from twisted_registry.oci.patterns import GlobSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_registry.auth.interfaces import Access

#: The actions of :class:`~.interfaces.Access` that an action of a rule allows. A push includes
#: pulls, because clients check whether a blob exists before they upload it.
IMPLIED_ACTIONS = {
    "pull": frozenset({"pull"}),
    "push": frozenset({"pull", "push"}),
    "delete": frozenset({"delete"}),
    "admin": frozenset({"pull", "push", "delete", "*"}),
}
#: Cached decisions per :class:`Rights`.
_MAX_DECISIONS = 256
#: Users whose rights are cached.
_MAX_USERS = 4096


@frozen
class Right:
    """Permission for some actions in some repositories.

    :ivar actions: actions of :class:`~twisted_registry.auth.interfaces.Access`.
    """

    repositories: GlobSet
    actions: frozenset[str]

    @classmethod
    def make(cls, repositories: Iterable[str], actions: Iterable[str]) -> Right:
        """Make a right from patterns and the actions of a rule.

        :raises GlobInvalid: if a pattern is invalid.
        :raises KeyError: if an action is unknown.
        """
        allowed = frozenset[str]().union(*(IMPLIED_ACTIONS[action] for action in actions))
        return cls(GlobSet.parse(repositories), allowed)

    def as_json(self) -> dict[str, list[str]]:
        """Return the JSON object that :meth:`from_json` reads."""
        patterns = [glob.text for glob in self.repositories.included]
        patterns += [f"!{glob.text}" for glob in self.repositories.excluded]
        return {"repositories": patterns, "actions": sorted(self.actions)}

    @classmethod
    def from_json(cls, document: Mapping[str, Iterable[str]]) -> Right:
        """Make a right from the JSON object of :meth:`as_json`.

        :raises ValueError: if the object is not a right.
        """
        try:
            actions = frozenset(document["actions"]) & IMPLIED_ACTIONS["admin"]
            return cls(GlobSet.parse(document["repositories"]), actions)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("invalid right") from error


@frozen
class Rights:
    """All rights of one user. An access without a matching right is not allowed."""

    rights: tuple[Right, ...] = ()
    _decisions: dict[tuple[str, str], bool] = field(init=False, factory=dict, eq=False, repr=False)

    def as_json(self) -> list[dict[str, list[str]]]:
        """Return the JSON array that :meth:`from_json` reads."""
        return [right.as_json() for right in self.rights]

    @classmethod
    def from_json(cls, documents: Iterable[Mapping[str, Iterable[str]]]) -> Rights:
        """Make rights from the JSON array of :meth:`as_json`.

        :raises ValueError: if an entry is not a right.
        """
        return cls(tuple(map(Right.from_json, documents)))

    def allows(self, access: Access) -> bool:
        """Return whether one of the rights allows the access."""
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
        # A user who may pull from any repository may list the repositories visible to them.
        return access == CATALOG and any("pull" in right.actions for right in self.rights)

    @property
    def visible_repositories(self) -> IRepositoryFilter | None:
        """The repositories that the user may pull; None for all of them."""
        choices = tuple(right.repositories for right in self.rights if "pull" in right.actions)
        return (
            None
            if any(choice.matches_everything for choice in choices)
            else RepositoryFilter(choices)
        )


@implementer(IRepositoryFilter)
@frozen
class RepositoryFilter:
    """The union of several sets of repositories."""

    choices: tuple[GlobSet, ...]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The literal prefixes of the patterns, sorted; none is a prefix of another."""
        prefixes: list[str] = []
        for prefix in sorted(glob.prefix for choice in self.choices for glob in choice.included):
            # In sorted order, a prefix of this one directly precedes it.
            if not prefixes or not prefix.startswith(prefixes[-1]):
                prefixes.append(prefix)
        return tuple(prefixes)

    def includes(self, name: str) -> bool:
        """Return whether one of the sets contains the repository."""
        return any(name in choice for choice in self.choices)


@implementer(IIdentity)
@frozen
class IdentityWithRights:
    """A user with rights that come with the credentials; no rule applies to this user.

    Robots and the jobs of CI systems have such identities.

    :ivar rights: everything that the user may do.
    """

    name: str
    rights: Rights
    groups: frozenset[str] = frozenset()


@frozen
class AccessRule:
    """A right for some users.

    :ivar right: the right.
    :ivar users: the names of users who have it.
    :ivar groups: the groups whose members have it.
    :ivar authenticated: whether every caller with a name has it.
    :ivar anonymous: whether every caller has it.
    """

    right: Right
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    authenticated: bool = False
    anonymous: bool = False

    def applies_to(self, name: str, groups: frozenset[str]) -> bool:
        """Return whether the rule gives its right to a user in these groups.

        :param name: empty for an anonymous caller.
        """
        if self.anonymous:
            return True
        return bool(name) and (
            self.authenticated or name in self.users or not self.groups.isdisjoint(groups)
        )


@implementer(IPolicy)
@define(eq=False, repr=False)
class AccessPolicy:
    """A policy that allows what at least one rule allows.

    :ivar rules: the rules.
    :ivar members: the users of each group. An identity may name further groups.
    """

    _rules: tuple[AccessRule, ...]
    _members: Mapping[str, frozenset[str]] = field(factory=dict)
    _rights_by_user: dict[tuple[str, frozenset[str]], Rights] = field(init=False, factory=dict)

    def allows(self, identity: IIdentity, access: Access) -> bool:
        """Return whether a rule, or the rights of the identity itself, allow the access."""
        if access.type == "registry" and access == CATALOG and identity.name:
            # Every named user may list the visible repositories, even if there are none.
            return True
        return self.rights(identity).allows(access)

    def visible_repositories(self, identity: IIdentity) -> IRepositoryFilter | None:
        """Return the repositories that the user may pull; None for all of them."""
        return self.rights(identity).visible_repositories

    def rights(self, identity: IIdentity) -> Rights:
        """Return all rights of an identity."""
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
        all_groups = groups | {group for group, users in self._members.items() if name in users}
        return Rights(
            tuple(rule.right for rule in self._rules if rule.applies_to(name, all_groups))
        )
