"""``REGISTRY_*`` environment variables that override the file, as in Distribution.

``REGISTRY_HTTP_ADDR`` is ``http.addr``. The value is YAML. A number is an index of a list; the
first index past the end appends. The variables apply in the order of their names, so that
``REGISTRY_STORAGE=inmemory`` replaces the section before ``REGISTRY_STORAGE_DELETE_ENABLED`` adds
to it. Keys that contain an underscore are found by the longest match.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from twisted_registry.config.document import DocumentError, Node, printable
from twisted_registry.config.kinds import Anything, Kind, ListOf, MapOf, OpaqueSection
from twisted_registry.config.sections import Section, expand_bare_name, schema_keys
from twisted_registry.config.suggestion import most_similar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_registry.config.document import Report

PREFIX: Final = "REGISTRY_"
#: Names the file to read. It is not an override.
FILE_VARIABLE: Final = "REGISTRY_CONFIGURATION_PATH"
#: Not overrides: ``version`` is the format of the file, and ``REGISTRY_AUTH_FILE`` is where podman,
#: skopeo and buildah store logins.
_IGNORED_VARIABLES: Final = frozenset({"REGISTRY_VERSION", "REGISTRY_AUTH_FILE"})
_MAX_INDEX_DIGITS: Final = 5
_BAD_INDEX: Final = "the index must be that of an item of the list, or the next one"
#: What Kubernetes adds to the name of a service for its variables. ``REGISTRY_PORT`` is an address
#: such as ``tcp://192.0.2.1:5000``.
_SERVICE_VARIABLE: Final = re.compile(
    r"_SERVICE_HOST|_SERVICE_PORT(_.+)?|_PORT(_\d+_[A-Z]+(_PROTO|_PORT|_ADDR)?)?"
)


class _UnknownKeyError(Exception):
    """The variable does not name a key.

    :ivar rest: the number of parts of the name from the unknown one on.
    :ivar known: the keys that could be there.
    """

    def __init__(self, rest: int = 0, known: Iterable[str] = ()) -> None:
        super().__init__(rest, known)
        self.rest = rest
        self.known = known


class _BadIndexError(Exception):
    """The variable names neither an item of the list nor the next one.

    :ivar rest: the number of parts of the name from the index on.
    :ivar is_missing: whether there is no number at all.
    """

    def __init__(self, rest: int, *, is_missing: bool) -> None:
        super().__init__(rest, is_missing)
        self.rest = rest
        self.is_missing = is_missing


def apply_overrides(
    root: Node, schema: Kind, environ: Mapping[str, str], report: Report
) -> list[tuple[str, ...]]:
    """Apply every variable of *environ* to the tree below *root*, in the order of names.

    :return: the keys that were set, each part by part. A variable that names no key adds a warning
        to *report*.
    """
    applied = []
    services = _kubernetes_services(environ)
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        if any(
            name.startswith(service) and _SERVICE_VARIABLE.fullmatch(name, len(service))
            for service in services
        ):
            continue
        if name in _IGNORED_VARIABLES:
            _warn_unknown_variable(name, report)
            continue
        try:
            value = _parse_value(name, environ[name], report)
        except DocumentError as error:
            report.add_fault(name, None, f"the value is {error}; quote it if it is text")
            continue
        parts = tuple(name.removeprefix(PREFIX).split("_"))
        try:
            applied.append(_write(value, root, schema, parts))
        except _UnknownKeyError as error:
            _warn_unknown_variable(name, report, _similar_variable(parts, error))
        except _BadIndexError as error:
            report.add_fault(name, None, f"{_BAD_INDEX}{_example(parts, error)}")
    return applied


def _parse_value(name: str, text: str, report: Report) -> Node:
    from twisted_registry.config.parsing import parse  # noqa: PLC0415 - PyYAML, for YAML only

    return parse(text, name, report, with_lines=False)


def _example(parts: tuple[str, ...], error: _BadIndexError) -> str:
    """Return the variable with an index; empty if it has one."""
    if not error.is_missing:
        return ""
    place = len(parts) - error.rest
    return f", as in {PREFIX}{'_'.join((*parts[:place], '0', *parts[place:]))}"


def _kubernetes_services(environ: Mapping[str, str]) -> list[str]:
    """Return the names, as in variables, of the services that Kubernetes describes to its pods.

    It sets variables for a service ``registry`` that begin as the overrides do.
    """
    suffix = "_SERVICE_HOST"
    names = [name.removesuffix(suffix) for name in environ if name.endswith(suffix)]
    return [name for name in names if f"{name}_SERVICE_PORT" in environ]


def _similar_variable(parts: tuple[str, ...], error: _UnknownKeyError) -> str:
    """Return the variable with a known key in place of the unknown one; empty if none is near."""
    place = len(parts) - error.rest
    near = most_similar(parts[place], [name.upper() for name in error.known]) if error.rest else ""
    return f"{PREFIX}{'_'.join((*parts[:place], near, *parts[place + 1 :]))}" if near else ""


def _warn_unknown_variable(name: str, report: Report, similar: str = "") -> None:
    hint = f"; did you mean {printable(similar)}?" if similar else ""
    report.warnings.append(f"Ignoring unrecognized environment variable {printable(name)}{hint}")


def _write(value: Node, node: Node, kind: Kind, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Write *value* to the key *parts* below *node*; nothing changes if there is no such key.

    :return: the key, part by part; up to a fault of the file, which is reported when the tree is
        read.
    :raise _UnknownKeyError: if *parts* are not a key of *kind*.
    :raise _BadIndexError: if an index is out of range.
    """
    if not parts:
        node.value, node.text, node.origin = value.value, value.text, value.origin
        return ()
    if isinstance(kind, ListOf):
        return _write_item(value, node, kind, parts)
    if isinstance(kind, Section | MapOf | Anything):
        return _write_child(value, node, kind, parts)
    raise _UnknownKeyError


def _write_child(
    value: Node, node: Node, kind: Section | MapOf | Anything, parts: tuple[str, ...]
) -> tuple[str, ...]:
    if isinstance(kind, Section) and kind.allows_bare_name:
        expand_bare_name(node)
    children = {} if node.value is None else node.value
    if not isinstance(children, dict):
        return ()
    name, child_kind, rest = _match_key(kind, children, parts)
    child = children.get(name) or Node(None, "", value.origin)
    path = (name, *_write(value, child, child_kind, rest))
    children[name] = child
    node.value = children
    return path


def _write_item(value: Node, node: Node, kind: ListOf, parts: tuple[str, ...]) -> tuple[str, ...]:
    items = [] if node.value is None else node.value
    if not isinstance(items, list):
        return ()
    digits, *rest = parts
    is_section = isinstance(kind.item, Section)
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_INDEX_DIGITS):
        raise _BadIndexError(len(parts), is_missing=digits.isalpha() and is_section)
    index = int(digits)
    if index > len(items):
        raise _BadIndexError(len(parts), is_missing=False)
    child = items[index] if index < len(items) else Node(None, "", value.origin)
    path = (digits, *_write(value, child, kind.item, tuple(rest)))
    node.value = [*items[:index], child, *items[index + 1 :]]
    return path


def _match_key(
    kind: Section | MapOf | Anything, present: Iterable[str], parts: tuple[str, ...]
) -> tuple[str, Kind, tuple[str, ...]]:
    """Return the key that *parts* begin with, its kind, and the remaining parts.

    :param present: the keys that the mapping has.
    :raise _UnknownKeyError: if there is no such key.
    """
    if isinstance(kind, Section):
        known: dict[str, Kind] = {name: spec.kind for name, spec in schema_keys(kind.cls).items()}
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
        joined = "_".join(parts[:count])
        name = by_name.get(joined.upper() if isinstance(kind, MapOf) else joined)
        if name is not None:
            return name, known[name], parts[count:]
    if isinstance(kind, MapOf):
        return _match_new_key(kind, parts)
    if isinstance(kind, OpaqueSection) or (isinstance(kind, Section) and not kind.strict):
        raise _UnknownKeyError(len(parts), known)
    return parts[0].lower(), Anything(), parts[1:]


def _match_new_key(kind: MapOf, parts: tuple[str, ...]) -> tuple[str, Kind, tuple[str, ...]]:
    """Return a key that the mapping does not have yet: all parts, without the index of a list."""
    indexed = isinstance(kind.item, ListOf) and len(parts) > 1 and parts[-1].isdecimal()
    count = len(parts) - 1 if indexed else len(parts)
    if isinstance(kind.item, Anything):
        count = 1  # nested, as in Distribution
    name = "_".join(parts[:count])
    return (name if kind.keep_case else name.lower()), kind.item, parts[count:]
