"""``REGISTRY_*`` variables laid over the file, as Distribution does it.

``REGISTRY_HTTP_ADDR`` is ``http.addr``; a value is YAML; a number is a place in a list, and
the one after the last appends; the variables apply in the order of their names, so that
``REGISTRY_STORAGE=inmemory`` replaces the section before ``REGISTRY_STORAGE_DELETE_ENABLED``
adds to it. Keys that hold an underscore are found by the longest match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.config.document import DocumentError, Node, parse, printable
from twisted_registry.config.kinds import Anything, Kind, ListOf, MapOf, OpaqueSection
from twisted_registry.config.sections import Section, expand_bare_name, schema_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_registry.config.document import Report

PREFIX = "REGISTRY_"
#: Says which file to read, and overrides nothing.
FILE_VARIABLE = "REGISTRY_CONFIGURATION_PATH"
#: The version belongs to the file that it describes.
VERSION_VARIABLE = "REGISTRY_VERSION"
#: Where podman, skopeo and buildah keep logins: whoever uses them may well have set it.
_FOREIGN_VARIABLES = frozenset({"REGISTRY_AUTH_FILE"})


@frozen
class Override:
    """A variable that applied.

    :ivar variable: its name.
    :ivar path: the key that it set, part by part.
    """

    variable: str
    path: tuple[str, ...]


class _UnknownKeyError(Exception):
    """The variable names no key."""


class _BadIndexError(Exception):
    """The variable names no item that the list has or could get next."""


def apply_overrides(
    root: Node, schema: Kind, environ: Mapping[str, str], report: Report
) -> tuple[Override, ...]:
    """Apply every variable of *environ* to the tree under *root*, in the order of names.

    :return: those that named a key of *schema*; the others are warned of.
    """
    applied = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        if name == VERSION_VARIABLE or name in _FOREIGN_VARIABLES:
            _ignore(name, report)
            continue
        try:
            value = parse(environ[name], name, report, lines=False)
        except DocumentError as error:
            report.fault(name, None, f"the value is {error}; quote it if it is text")
            continue
        parts = tuple(name.removeprefix(PREFIX).split("_"))
        writer = _Writer(value)
        try:
            writer.write(root, schema, parts)
        except _UnknownKeyError:
            _ignore(name, report)
        except _BadIndexError:
            report.fault(name, None, "must name an item of the list by its index, or the next one")
        else:
            applied.append(Override(name, tuple(writer.path)))
    return tuple(applied)


def _ignore(name: str, report: Report) -> None:
    report.warnings.append(f"Ignoring unrecognized environment variable {printable(name)}")


class _Writer:
    """Carries one value down to its place; nothing changes unless the place is found."""

    def __init__(self, value: Node, path: list[str] | None = None) -> None:
        self.value = value
        self.path = [] if path is None else path

    def write(self, node: Node, kind: Kind, parts: tuple[str, ...]) -> None:
        if not parts:
            node.value, node.text = self.value.value, self.value.text
            node.origin = self.value.origin
        elif isinstance(kind, ListOf):
            self.item(node, kind, parts)
        elif isinstance(kind, Section | MapOf | Anything):
            self.child(node, kind, parts)
        else:
            raise _UnknownKeyError

    def child(self, node: Node, kind: Section | MapOf | Anything, parts: tuple[str, ...]) -> None:
        if isinstance(kind, Section) and kind.allows_bare_name:
            expand_bare_name(node)
        children = {} if node.value is None else node.value
        if not isinstance(children, dict):
            return  # a fault of the file, told when the tree is read
        name, below, rest = _name(kind, children, parts)
        child = children.get(name) or Node(None, "", self.value.origin)
        self.path.append(name)
        self.write(child, below, rest)
        children[name] = child
        node.value = children

    def item(self, node: Node, kind: ListOf, parts: tuple[str, ...]) -> None:
        items = [] if node.value is None else node.value
        if not isinstance(items, list):
            return  # a fault of the file, told when the tree is read
        digits = parts[0]
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 6):
            raise _BadIndexError
        index = int(digits)
        if index > len(items):
            raise _BadIndexError
        child = items[index] if index < len(items) else Node(None, "", self.value.origin)
        self.path.append(digits)
        self.write(child, kind.item, parts[1:])
        if index == len(items):
            items.append(child)
        node.value = items


def _name(
    kind: Section | MapOf | Anything, present: Iterable[str], parts: tuple[str, ...]
) -> tuple[str, Kind, tuple[str, ...]]:
    """The key that the first of *parts* name, its kind, and the parts that remain."""
    if isinstance(kind, Section):
        known: dict[str, Kind] = {name: spec.kind for name, spec in schema_keys(kind.of).items()}
    elif isinstance(kind, MapOf):
        known = dict.fromkeys(present, kind.item)
    elif isinstance(kind, OpaqueSection):
        known = {
            name: Anything() if below is None else OpaqueSection(known=below)
            for name, below in kind.known.items()
        }
    else:
        known = dict.fromkeys(present, kind)
    by_name = {name.upper(): name for name in known}
    for count in range(len(parts), 0, -1):
        said = "_".join(parts[:count])
        name = by_name.get(said.upper() if isinstance(kind, MapOf) else said)
        if name is not None:
            return name, known[name], parts[count:]
    if isinstance(kind, MapOf):
        return _match_new_name(kind, parts)
    if isinstance(kind, Section) and not kind.strict:
        raise _UnknownKeyError
    if isinstance(kind, OpaqueSection):
        raise _UnknownKeyError
    return parts[0].lower(), Anything(), parts[1:]


def _match_new_name(kind: MapOf, parts: tuple[str, ...]) -> tuple[str, Kind, tuple[str, ...]]:
    """A name that the user makes up: all that remains, but for the index of a list's item."""
    indexed = isinstance(kind.item, ListOf) and len(parts) > 1 and parts[-1].isdecimal()
    count = len(parts) - 1 if indexed else len(parts)
    if isinstance(kind.item, Anything):
        count = 1  # nested, as in Distribution
    name = "_".join(parts[:count])
    return (name if kind.keep_case else name.lower()), kind.item, parts[count:]
