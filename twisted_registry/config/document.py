"""Documents as trees that keep line numbers and spelling, and the report of faults.

Distribution reads a scalar into a text field as it is spelled (``password: 0123`` is four
characters), and a fault should name the line of its value. Plain dictionaries keep neither, so a
document is a tree of :class:`Node`: :mod:`twisted_registry.config.parsing` makes one from YAML,
:func:`make_tree` from what a program passes.

A :class:`Report` collects every fault of a configuration, so that all of them are printed at once,
one line each: key, value, what was expected, and where the value was written. Values of secret
keys, and user names and passwords in URLs, are masked before a line is made.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import define, field, frozen

from twisted_registry.config.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Plain: TypeAlias = bool | int | float | str | None

#: Integers from here on are kept as text: Python refuses to print very long ones.
MAX_INTEGER: Final = 2**64

#: Printed in place of a secret.
MASK: Final = "******"
#: Longer values are cut in a fault.
MAX_VALUE_CHARS: Final = 80
_USERINFO: Final = re.compile(r"//[^/@\s]*(?:@[^/@\s]*)*@")
_QUERY: Final = re.compile(r"(https?://[^\s?#'\"]*\?)[^\s#'\"]+")
_PATH_PART: Final = re.compile(r"[^.\[\]]+")


class DocumentError(ValueError):
    """The text is not usable YAML. The message gives the reason and quotes nothing of the text."""


@define(eq=False, repr=False)
class Node:
    """One value of the tree. Environment variables change it in place.

    :ivar value: a scalar, the children by key, or the children in order.
    :ivar text: a scalar as it is spelled; empty for a mapping or list.
    :ivar origin: where the value was written, for faults: file and line, or a variable.
    """

    value: Plain | dict[str, Node] | list[Node]
    text: str = ""
    origin: str = ""

    @property
    def type_name(self) -> str:
        """The type of the value in words, for faults that must not show the value."""
        if isinstance(self.value, dict):
            return "a mapping"
        return "a list" if isinstance(self.value, list) else "a single value"

    def find_origin(self, path: str) -> str:
        """Return the origin of the deepest node on *path* that exists below this node.

        :param path: a key as in ``http.tls.clientcas[0]``.
        :return: an empty text if not even the first part of *path* exists.
        """
        node, origin = self, ""
        for part in _PATH_PART.findall(path):
            child: Node | None = None
            if isinstance(node.value, dict):
                child = node.value.get(part)
            elif isinstance(node.value, list) and part.isdecimal() and int(part) < len(node.value):
                child = node.value[int(part)]
            if child is None:
                break
            node, origin = child, child.origin
        return origin


def make_tree(data: Mapping[str, Any], origin: str) -> Node:
    """Make the tree of a document that a program passes as a mapping.

    :param data: as for JSON; what JSON does not have, such as a path, is taken as its text.
    :param origin: the name of the source in faults.
    :raise ValueError: if a value contains itself.
    """
    return _make_node(json.loads(json.dumps(dict(data), default=str)), origin)


def _make_node(data: Any, origin: str) -> Node:
    if isinstance(data, dict):
        return Node({name: _make_node(child, origin) for name, child in data.items()}, "", origin)
    if isinstance(data, list):
        return Node([_make_node(child, origin) for child in data], "", origin)
    text = data if isinstance(data, str) else json.dumps(data)
    if isinstance(data, int) and abs(data) >= MAX_INTEGER:
        data = text
    return Node(data, text, origin)


def mask_url(text: str) -> str:
    """Return *text* with user name, password and query of each URL replaced by asterisks.

    URLs of webhooks often have a secret in the query.
    """
    return _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(f"//{MASK}@", text))


def printable(text: str) -> str:
    """Return *text* as it is, or quoted and escaped if it contains control characters."""
    return text if text.isprintable() else ascii(text)


def quote_value(text: str) -> str:
    """Return *text* as a fault shows a value: URLs masked, cut if long, quoted, on one line."""
    masked = mask_url(text)
    return repr(masked if len(masked) <= MAX_VALUE_CHARS else masked[:MAX_VALUE_CHARS] + "...")


@frozen
class Fault:
    """One reason why a configuration cannot be used.

    :ivar path: the key, as in ``http.tls.clientcas[0]``.
    :ivar value: the value found, ready to print; None if *expected* is a whole sentence.
    :ivar expected: what the value should be; a whole sentence if *value* is None.
    :ivar origin: where the value was written: file and line, or an environment variable.
    """

    path: str
    value: str | None
    expected: str
    origin: str = ""

    def __str__(self) -> str:
        text = self.expected if self.value is None else f"{self.value}, expected {self.expected}"
        origin = f" ({self.origin})" if self.origin and self.origin != self.path else ""
        return f"{printable(self.path) or 'configuration'}: {text}{printable(origin)}"


class ConfigurationError(Exception):
    """The configuration cannot be used.

    :ivar faults: every fault found, in the order of the file.
    :ivar warnings: the warnings found along with them.
    """

    def __init__(self, faults: tuple[Fault, ...], warnings: tuple[str, ...] = ()) -> None:
        super().__init__(faults, warnings)
        self.faults = faults
        self.warnings = warnings

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)

    def lines(self) -> list[str]:
        """Return the lines to print: one for each warning, then one for each fault."""
        return [*(f"warning: {warning}" for warning in self.warnings), *map(str, self.faults)]


@define(eq=False)
class Report:
    """The faults, warnings and notices found while a configuration is read."""

    faults: list[Fault] = field(factory=list)
    warnings: list[str] = field(factory=list)
    notices: list[str] = field(factory=list)

    def add_fault(self, path: str, value: str | None, expected: str, origin: str = "") -> None:
        """Add one fault; the arguments are those of :class:`Fault`."""
        self.faults.append(Fault(path, value, expected, origin))

    def add_warning(self, path: str, sentence: str, origin: str = "") -> None:
        """Add one warning about the key *path*."""
        suffix = f" ({origin})" if origin else ""
        self.warnings.append(f"{printable(path)}: {printable(sentence + suffix)}")

    def warn_unknown_key(self, path: str, name: str, known: Iterable[str], origin: str) -> None:
        """Warn that the key *path*, whose last part is *name*, is not one of *known*."""
        self.add_warning(path, f"unknown key, ignored{did_you_mean(name, known)}", origin)

    def raise_faults(self) -> None:
        """Raise the faults found so far, if there are any.

        :raise ConfigurationError: with all faults and warnings.
        """
        if self.faults:
            raise ConfigurationError(tuple(self.faults), tuple(self.warnings))
