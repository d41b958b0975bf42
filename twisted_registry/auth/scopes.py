"""Scopes of Distribution's token scheme: as they are asked for, granted and said in a token.

Values of WWW-Authenticate, spelled as Distribution spells them: that is what clients parse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from attrs import field, frozen
from zope.interface import implementer

from twisted_registry.auth.interfaces import CATALOG, Access, Action, IScope, ISteady
from twisted_registry.oci.names import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted_registry.auth.interfaces import IIdentity

#: Parts of what is asked for in one go; more are left out.
MAX_RESOURCES = 100
_ACTIONS = frozenset({"pull", "push", "delete", "*"})


@frozen
class ResourceActions:
    """Actions on one resource.

    :ivar type: ``repository`` or ``registry``; others are nothing that we have.
    """

    type: str
    name: str
    actions: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """An entry of the ``access`` of a token."""
        return {"type": self.type, "name": self.name, "actions": list(self.actions)}

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


@implementer(IScope, ISteady)
@frozen
class Scope:
    """What a token says may be done."""

    resources: tuple[ResourceActions, ...] = ()
    _actions: dict[tuple[str, str], frozenset[str]] = field(init=False, repr=False, eq=False)

    @_actions.default
    def _by_resource(self) -> dict[tuple[str, str], frozenset[str]]:
        found: dict[tuple[str, str], frozenset[str]] = {}
        for part in self.resources:
            key = part.type, part.name
            found[key] = found.get(key, frozenset()) | frozenset(part.actions)
        return found

    @classmethod
    def from_claim(cls, claim: object) -> Scope:
        """Read the ``access`` of a token.

        :raises ValueError: if it is not a list of types, names and actions.
        """
        if claim is None:
            return cls()
        if not isinstance(claim, list):
            raise ValueError("access is not a list")  # noqa: TRY004 - all that can be wrong is one
        return cls(tuple(map(_parse_resource, claim)))

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """As promised by :class:`~twisted_registry.auth.interfaces.IScope`."""
        actions = self._actions.get((access.type, access.name), ())
        return access.action in actions or "*" in actions


def _parse_resource(entry: object) -> ResourceActions:
    if not isinstance(entry, dict):
        raise ValueError("access has an entry that is no object")  # noqa: TRY004
    type_, name, actions = entry.get("type", ""), entry.get("name", ""), entry.get("actions") or []
    if not (isinstance(type_, str) and isinstance(name, str) and isinstance(actions, list)):
        raise ValueError("access has an entry without type, name and actions")  # noqa: TRY004
    if not all(isinstance(action, str) for action in actions):
        raise ValueError("access has an action that is no text")
    return ResourceActions(type_, name, tuple(actions))


def parse_scopes(texts: Iterable[str]) -> list[ResourceActions]:
    """What somebody asks a token to be good for.

    What makes no sense is left out, as what they may not do is: a token is never refused for it.

    :param texts: each of them scopes with spaces between, as ``repository:a/b:pull,push``.
    """
    found = []
    for scope in (scope for text in texts for scope in text.split()):
        type_, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        # "repository(plugin)" is how Distribution says that a repository is of a class.
        type_ = type_.partition("(")[0]
        known = tuple(dict.fromkeys(each for each in actions.split(",") if each in _ACTIONS))
        if _is_resource(type_, name) and known:
            found.append(ResourceActions(type_, name, known))
        if len(found) == MAX_RESOURCES:
            break
    return found


def _is_resource(type_: str, name: str) -> bool:
    """Whether there could be such a thing here: rules are made for names, and not for ``..``."""
    if type_ == "registry":
        return name == CATALOG.name
    return type_ == "repository" and is_name(name)


def grant_scope(asked: Iterable[ResourceActions], allows: Callable[[Access], bool]) -> Scope:
    """The part of what is asked for that is allowed."""
    resources = []
    for part in asked:
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
    """Ask for a name and a password (RFC 7617 section 2)."""
    return f"Basic realm={quote_string(realm)}"


def bearer_challenge(realm: str, service: str, scope: str = "", error: str = "") -> str:
    """Ask for a token (RFC 6750 section 3, and Distribution's token scheme).

    :param realm: the URL that gives tokens.
    :param scope: what the token has to be good for, or empty.
    :param error: what was wrong with the one that was shown, or empty.
    """
    value = f"Bearer realm={quote_string(realm)},service={quote_string(service)}"
    if scope:
        value += f",scope={quote_string(scope)}"
    if error:
        value += f",error={quote_string(error)}"
    return value


def format_scope(accesses: Iterable[Access]) -> str:
    """The scope of a token for these: ``repository:a/b:pull,push``, with spaces between."""
    actions: dict[tuple[str, str], list[str]] = {}
    for access in accesses:
        of = actions.setdefault((access.type, access.name), [])
        if access.action not in of:
            of.append(access.action)
    return " ".join(f"{type_}:{name}:{','.join(of)}" for (type_, name), of in actions.items())


def format_scope_by_action(accesses: Sequence[Access]) -> str:
    """The scope with each action apart: ``repository:a/b:pull repository:a/b:push``."""
    return " ".join(f"{access.type}:{access.name}:{access.action}" for access in accesses)


def quote_string(text: str) -> str:
    r"""Text as a quoted string (RFC 9110 section 5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
