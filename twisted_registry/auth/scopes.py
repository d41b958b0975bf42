"""Scopes of Distribution's token scheme, and the challenges that name them.

A scope is requested as text (``repository:a/b:pull,push``), granted as a :class:`Scope`, and
stored in the ``access`` claim of a token. The challenges are spelled exactly as Distribution
spells them, because clients parse that spelling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from attrs import field, frozen
from zope.interface import implementer

from twisted_registry.auth.interfaces import CATALOG, Access, Action, IScope
from twisted_registry.oci.names import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted_registry.auth.interfaces import IIdentity

#: Resources in one requested scope; further ones are ignored.
MAX_RESOURCES = 100
_ACTIONS = frozenset({"pull", "push", "delete", "*"})


@frozen
class ResourceActions:
    """Actions on one resource.

    :ivar type: ``repository`` or ``registry``; this registry has no resources of other types.
    :ivar name: the repository, or ``catalog``.
    :ivar actions: the actions.
    """

    type: str
    name: str
    actions: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Return the entry of an ``access`` claim."""
        return {"type": self.type, "name": self.name, "actions": list(self.actions)}

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


@implementer(IScope)
@frozen
class Scope:
    """The scope of a token."""

    resources: tuple[ResourceActions, ...] = ()
    _actions: dict[tuple[str, str], frozenset[str]] = field(init=False, repr=False, eq=False)

    @_actions.default
    def _actions_by_resource(self) -> dict[tuple[str, str], frozenset[str]]:
        actions: dict[tuple[str, str], frozenset[str]] = {}
        for part in self.resources:
            key = part.type, part.name
            actions[key] = actions.get(key, frozenset()) | frozenset(part.actions)
        return actions

    @classmethod
    def from_claim(cls, claim: object) -> Scope:
        """Parse the ``access`` claim of a token; None gives an empty scope.

        :raises ValueError: if the claim is not a list of objects with type, name and actions.
        """
        if claim is None:
            return cls()
        if not isinstance(claim, list):
            raise ValueError("access is not a list")  # noqa: TRY004 - one error for bad content
        return cls(tuple(map(_parse_resource, claim)))

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """Return whether the scope contains the access; the identity does not matter."""
        actions = self._actions.get((access.type, access.name), ())
        return access.action in actions or "*" in actions


def _parse_resource(entry: object) -> ResourceActions:
    if not isinstance(entry, dict):
        raise ValueError("access has an entry that is not an object")  # noqa: TRY004
    type_, name, actions = entry.get("type", ""), entry.get("name", ""), entry.get("actions") or []
    if not (isinstance(type_, str) and isinstance(name, str) and isinstance(actions, list)):
        raise ValueError("access has an entry without type, name and actions")  # noqa: TRY004
    if not all(isinstance(action, str) for action in actions):
        raise ValueError("access has an action that is not a string")
    return ResourceActions(type_, name, tuple(actions))


def parse_scopes(texts: Iterable[str]) -> list[ResourceActions]:
    """Parse the scopes of a token request.

    Invalid scopes are ignored, as disallowed ones are: a token request is never rejected because
    of its scope.

    :param texts: each contains scopes separated by spaces: ``repository:a/b:pull,push``.
    """
    resources = []
    for scope in (scope for text in texts for scope in text.split()):
        type_, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        # Distribution writes the class of a repository in parentheses: "repository(plugin)".
        type_ = type_.partition("(")[0]
        known = tuple(dict.fromkeys(each for each in actions.split(",") if each in _ACTIONS))
        if _is_resource(type_, name) and known:
            resources.append(ResourceActions(type_, name, known))
        if len(resources) == MAX_RESOURCES:
            break
    return resources


def _is_resource(type_: str, name: str) -> bool:
    """Return whether the resource can exist: rules match valid names only, not ``..``."""
    if type_ == "registry":
        return name == CATALOG.name
    return type_ == "repository" and is_name(name)


def grant_scope(requested: Iterable[ResourceActions], allows: Callable[[Access], bool]) -> Scope:
    """Return the part of the requested scope that is allowed."""
    resources = []
    for part in requested:
        type_ = cast("Literal['repository', 'registry']", part.type)
        granted = tuple(
            action
            for action in part.actions
            if allows(Access(type_, part.name, cast("Action", action)))
        )
        if granted:
            resources.append(ResourceActions(part.type, part.name, granted))
    return Scope(tuple(resources))


def basic_challenge(realm: str) -> str:
    """Return the challenge for a user name and password (RFC 7617 section 2)."""
    return f"Basic realm={quote_string(realm)}"


def bearer_challenge(realm: str, service: str, scope: str = "", error: str = "") -> str:
    """Return the challenge for a token (RFC 6750 section 3, Distribution's token scheme).

    :param realm: the URL of the token service.
    :param service: the name of this registry, the audience of the token.
    :param scope: the scope that the token needs, or empty.
    :param error: why the presented token was rejected, or empty.
    """
    value = f"Bearer realm={quote_string(realm)},service={quote_string(service)}"
    if scope:
        value += f",scope={quote_string(scope)}"
    if error:
        value += f",error={quote_string(error)}"
    return value


def format_scope(accesses: Iterable[Access]) -> str:
    """Return accesses as scopes separated by spaces: ``repository:a/b:pull,push``."""
    by_resource: dict[tuple[str, str], list[str]] = {}
    for access in accesses:
        actions = by_resource.setdefault((access.type, access.name), [])
        if access.action not in actions:
            actions.append(access.action)
    return " ".join(
        f"{type_}:{name}:{','.join(actions)}" for (type_, name), actions in by_resource.items()
    )


def format_scope_by_action(accesses: Sequence[Access]) -> str:
    """Return a separate scope for each action: ``repository:a/b:pull repository:a/b:push``."""
    return " ".join(f"{access.type}:{access.name}:{access.action}" for access in accesses)


def quote_string(text: str) -> str:
    r"""Return text as a quoted-string (RFC 9110 section 5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
