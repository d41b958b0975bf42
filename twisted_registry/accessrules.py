"""``access`` joined to constructors: a part of accesscontrol.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.auth.rights import Right
from twisted_registry.auth.rules import AccessRule, AccessPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twisted_registry.auth.interfaces import IPolicy
    from twisted_registry.config.access import AccessRules

_EVERYWHERE = ("**",)


def make_access_policy(access: AccessRules | None, otherwise: IPolicy) -> IPolicy:
    """The policy that the section describes.

    :param otherwise: the policy where there is no such section.
    """
    if access is None:
        return otherwise
    return AccessPolicy(tuple(_rules(access)), _members(access.groups))


def _rules(access: AccessRules) -> Iterator[AccessRule]:
    if access.anonymous:
        yield AccessRule(Right.make(_EVERYWHERE, access.anonymous), anonymous=True)
    if access.authenticated:
        yield AccessRule(Right.make(_EVERYWHERE, access.authenticated), authenticated=True)
    for rule in access.rules:
        yield AccessRule(
            Right.make(rule.repositories, rule.allow),
            frozenset(rule.users),
            frozenset(rule.groups),
            rule.authenticated,
            rule.anonymous,
        )


def _members(groups: Mapping[str, tuple[str, ...]]) -> Mapping[str, frozenset[str]]:
    return {name: frozenset(users) for name, users in groups.items()}
