"""YAML text as a tree that still knows its lines and its spelling.

Distribution reads a scalar into a text field as it is spelled (``password: 0123`` is four
characters), and a fault line should say where the value was written. Both are lost once
YAML has become plain dictionaries, so the tree keeps them.

What is wrong with a configuration: every fault at once, one line each, no secret in any.

A fault names the key, shows what stands there and says what was expected. Values of secret
keys, and user names and passwords inside URLs, are replaced by asterisks before a line is
made, so that whatever prints a line needs no care.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

import yaml
from attrs import frozen
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, ScalarNode, SequenceNode
from yaml.nodes import Node as YamlNode

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Iterable

Plain: TypeAlias = bool | int | float | str | None

#: Aliases can make a small file huge; no honest configuration comes near these.
MAX_VALUES = 20_000
MAX_DEPTH = 40
MAX_NUMBER = 2**64

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_QUOTED = re.compile(r"(['\"]).{4,}\1")


class DocumentError(ValueError):
    """The text is not usable YAML; the message says why and shows none of it."""


class Node:
    """One value of the tree, changed in place by the environment.

    :ivar value: a scalar, or the children by key or in order.
    :ivar text: a scalar as it is spelled.
    :ivar origin: where it was written, for fault lines.
    """

    def __init__(
        self, value: Plain | dict[str, Node] | list[Node], text: str = "", origin: str = ""
    ) -> None:
        self.value = value
        self.text = text
        self.origin = origin

    @property
    def type_name(self) -> str:
        """What it is, in words that show none of it."""
        if isinstance(self.value, dict):
            return "a mapping"
        return "a list" if isinstance(self.value, list) else "a single value"


def parse(text: str, origin: str, report: Report, *, lines: bool = True) -> Node:
    """The tree of the one YAML document in *text*.

    :param origin: what to name in faults: the file, or the environment variable.
    :param report: takes duplicate keys and unknown tags.
    :param lines: add line numbers to *origin*.
    :raise DocumentError: if it is not YAML, or too deep, or too large.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" at line {mark.line + 1}" if mark and lines else ""
        # The parser may quote what it choked on, and that may be a password.
        problem = _QUOTED.sub("it", error.problem or "")
        raise DocumentError(f"not YAML{line}: {problem}") from None
    except (yaml.YAMLError, UnicodeError):
        raise DocumentError("not YAML: holds a character that YAML does not allow") from None
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    return _Reader(origin, report, lines=lines).node(root, "", 0)


class _Reader:
    def __init__(self, origin: str, report: Report, *, lines: bool) -> None:
        self.origin = origin
        self.report = report
        self.lines = lines
        self.count = 0

    def node(self, node: YamlNode | None, path: str, depth: int) -> Node:
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise DocumentError("nested too deeply" if depth > MAX_DEPTH else "too many values")
        if node is None:
            return Node(None, "", self.origin)
        origin = self.where(node)
        if isinstance(node, MappingNode):
            return Node(self.mapping(node, path, depth), "", origin)
        if isinstance(node, SequenceNode):
            items = [
                self.node(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
            return Node(items, "", origin)
        assert isinstance(node, ScalarNode)
        scalar = self.scalar(node, path, origin)
        return Node(scalar, str(node.value), origin)

    def where(self, node: YamlNode) -> str:
        if not self.lines:
            return self.origin
        return f"{self.origin} line {node.start_mark.line + 1}"

    def mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.report.fault(path, None, "a key must be a single value", self.where(key))
                continue
            if key.tag == f"{_TAG}merge":
                for source in value.value if isinstance(value, SequenceNode) else [value]:
                    child = self.node(source, path, depth + 1).value
                    if isinstance(child, dict):
                        merged = {**child, **merged}
                    else:
                        self.report.fault(path, None, "<<: takes mappings", self.where(key))
                continue
            name = str(key.value)
            below = f"{path}.{name}" if path else name
            if name in own:
                self.report.fault(below, None, "the key stands here twice", self.where(key))
            own[name] = self.node(value, below, depth + 1)
        return {**merged, **own}

    def scalar(self, node: ScalarNode, path: str, origin: str) -> Plain:
        tag = node.tag.removeprefix(_TAG)
        try:
            match tag:
                case "null":
                    return None
                case "bool":
                    return bool(_SCALARS.construct_yaml_bool(node))
                case "int":
                    number = int(_SCALARS.construct_yaml_int(node))
                    # Nothing here counts that far, and Python refuses to print longer ones.
                    return number if abs(number) < MAX_NUMBER else str(node.value)
                case "float":
                    return float(_SCALARS.construct_yaml_float(node))
                case "str" | "timestamp" | "value" | "merge":
                    return str(node.value)
        except (ValueError, LookupError, OverflowError):
            pass
        self.report.fault(path, None, "the value does not fit its YAML tag", origin)
        return None


MASK = "******"
#: A value longer than this is cut in a fault line.
MAX_VALUE_CHARS = 80

_USERINFO = r"//[^/@\s]*(?:@[^/@\s]*)*@"


def mask_url(text: str) -> str:
    """*text* with user name and password of any URL in it replaced (``//******@host``)."""
    return re.sub(_USERINFO, f"//{MASK}@", text)


def printable(text: str) -> str:
    """*text* on one line: as it is, or quoted and escaped if it holds control characters."""
    return text if text.isprintable() else ascii(text)


def quote_value(text: str) -> str:
    """*text* as a fault line shows a value: quoted, on one line, cut when long."""
    masked = mask_url(text)
    return repr(masked if len(masked) <= MAX_VALUE_CHARS else masked[:MAX_VALUE_CHARS] + "...")


@frozen
class Fault:
    """One thing that keeps a configuration from being used.

    :ivar path: the key, as in ``http.tls.clientcas[0]``.
    :ivar value: what stands there, ready to print; None if the sentence needs no value.
    :ivar expected: what should stand there; a whole sentence if *value* is None.
    :ivar origin: where it was written: a line of the file or an environment variable.
    """

    path: str
    value: str | None
    expected: str
    origin: str = ""

    def __str__(self) -> str:
        said = self.expected if self.value is None else f"{self.value}, expected {self.expected}"
        where = f" ({self.origin})" if self.origin and self.origin != self.path else ""
        return f"{printable(self.path) or 'configuration'}: {said}{printable(where)}"


class ConfigurationError(Exception):
    """The configuration can not be used.

    :ivar faults: everything that was found, in the order of the file.
    :ivar warnings: what would have been warned of, had it been usable.
    """

    def __init__(self, faults: tuple[Fault, ...], warnings: tuple[str, ...] = ()) -> None:
        super().__init__(faults, warnings)
        self.faults = faults
        self.warnings = warnings

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)

    def lines(self) -> list[str]:
        """What an operator should read: a line for each fault, then for each warning."""
        return [*map(str, self.faults), *(f"warning: {warning}" for warning in self.warnings)]


class Report:
    """What is found while a configuration is read."""

    def __init__(
        self,
        faults: list[Fault] | None = None,
        warnings: list[str] | None = None,
        notices: list[str] | None = None,
    ) -> None:
        self.faults = [] if faults is None else faults
        self.warnings = [] if warnings is None else warnings
        self.notices = [] if notices is None else notices

    def fault(self, path: str, value: str | None, expected: str, origin: str = "") -> None:
        """Remember one fault."""
        self.faults.append(Fault(path, value, expected, origin))

    def warn(self, path: str, sentence: str, origin: str = "") -> None:
        """Remember one warning about the key *path*."""
        where = f" ({origin})" if origin else ""
        self.warnings.append(f"{printable(path)}: {printable(sentence + where)}")

    def unknown(self, path: str, name: str, known: Iterable[str], origin: str) -> None:
        """Warn that the key *path*, whose last part is *name*, is none of *known*."""
        from difflib import get_close_matches  # noqa: PLC0415 - most files need no such help

        near = get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.warn(path, f"unknown key, ignored{hint}", origin)

    def raise_faults(self) -> None:
        """Do nothing if all is well.

        :raise ConfigurationError: with every fault found so far.
        """
        if self.faults:
            raise ConfigurationError(tuple(self.faults), tuple(self.warnings))
