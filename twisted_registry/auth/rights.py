"""What somebody may do, and what they may see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from zope.interface import implementer

from twisted_registry.auth.identity import IIdentity
from twisted_registry.auth.interfaces import CATALOG, MAINTENANCE, ISteady, IRepositoryFilter
from twisted_registry.globs import GlobSet

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
                "*" in right.actions and right.repositories.matches_everything for right in self.rights
            )
        # Whoever may pull anything may list what they may pull.
        return access == CATALOG and any("pull" in right.actions for right in self.rights)

    @property
    def visible(self) -> IRepositoryFilter | None:
        """The repositories that can be pulled; None if that is every one."""
        choices = tuple(right.repositories for right in self.rights if "pull" in right.actions)
        return None if any(choice.matches_everything for choice in choices) else RepositoryFilter(choices)


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
