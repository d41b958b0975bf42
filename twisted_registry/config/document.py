"""YAML text as a tree that still knows its lines and its spelling.

Distribution reads a scalar into a text field as it is spelled (``password: 0123`` is four
characters), and a fault line should say where the value was written. Both are lost once
YAML has become plain dictionaries, so the tree keeps them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, ScalarNode, SequenceNode
from yaml.nodes import Node as YamlNode

if TYPE_CHECKING:
    from twisted_registry.config.faults import Report

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
