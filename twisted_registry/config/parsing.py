"""Parser of YAML documents, which makes trees and finds likely mistakes."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

import yaml
from attrs import define, field
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, ScalarNode, SequenceNode
from yaml.nodes import Node as YamlNode
from yaml.reader import Reader

from twisted_registry.config.document import (
    MASK,
    MAX_INTEGER,
    DocumentError,
    Node,
    Plain,
    Report,
)

#: Limits of a document. Aliases can expand a small file to a huge tree.
MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 40

#: The YAML loader: that of libyaml if PyYAML was built with it.
YAML_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS: Final = SafeConstructor()
_TAG_PREFIX: Final = "tag:yaml.org,2002:"
#: Quoted text in an error of PyYAML: names of YAML's tokens (``'<block end>'``), one to three
#: characters, or text of the document, in the third group.
_QUOTED: Final = re.compile(r"""'<[a-z ]+>'|(['"])[^'"]{1,3}\1|(['"])(.{4,})\2""")
#: Characters that look like a space and are text in YAML: U+00A0 and its kind.
_FALSE_SPACE: Final = "[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff]"
#: Where one of them was most likely meant to be a space: at the ends of a value without quotes,
#: after a colon, and before a comment.
_MISTAKEN_SPACE: Final = re.compile(f"^{_FALSE_SPACE}|(?<=:){_FALSE_SPACE}|{_FALSE_SPACE}(?=#|$)")
#: Quoted text and comments, in which they do no harm.
_HARMLESS: Final = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|(?:^|(?<=\s))\#.*""")


def parse(
    text: str,
    origin: str,
    report: Report,
    *,
    with_lines: bool = True,
    loader: Any = YAML_LOADER,
) -> Node:
    """Parse the one YAML document in *text*.

    :param origin: the name of the source in faults: the file, or the environment variable.
    :param report: receives warnings of duplicate keys, and values that do not match their tag.
    :param with_lines: add line numbers to *origin*.
    :param loader: the loader class of PyYAML.
    :raise DocumentError: if the text is not YAML, is nested too deeply or has too many values.
    """
    try:
        root = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = _false_space_before(text, mark.line if mark else 0, with_lines=with_lines)
        problem = _describe_yaml_error(error, with_lines=with_lines)
        raise DocumentError(f"not YAML{problem}{hint}") from None
    except (yaml.YAMLError, UnicodeError):
        place = _place_of_forbidden_character(text) if with_lines else ""
        raise DocumentError(f"not YAML{place}: special characters are not allowed") from None
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    return _TreeBuilder(origin, report, with_lines).build(root, "", 0)


@define(eq=False)
class _TreeBuilder:
    """Converts the nodes of PyYAML."""

    origin: str
    report: Report
    with_lines: bool
    _count: int = field(init=False, default=0)

    def build(self, node: YamlNode | None, path: str, depth: int) -> Node:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            raise DocumentError("nested too deeply" if depth > MAX_DEPTH else "too many values")
        if node is None:
            return Node(None, "", self.origin)
        origin = self._origin_of(node)
        if isinstance(node, MappingNode):
            return Node(self._build_mapping(node, path, depth), "", origin)
        if isinstance(node, SequenceNode):
            items = [
                self.build(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
            return Node(items, "", origin)
        assert isinstance(node, ScalarNode)
        self._warn_of_false_space(node, _MISTAKEN_SPACE, path)
        return Node(self._build_scalar(node, path, origin), str(node.value), origin)

    def _origin_of(self, node: YamlNode) -> str:
        if not self.with_lines:
            return self.origin
        return f"{self.origin} line {node.start_mark.line + 1}"

    def _build_mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            origin = self._origin_of(key)
            if not isinstance(key, ScalarNode):
                self.report.add_fault(path, None, "a key must be a single value", origin)
                continue
            if key.tag == f"{_TAG_PREFIX}merge":
                for source in value.value if isinstance(value, SequenceNode) else [value]:
                    child = self.build(source, path, depth + 1).value
                    if isinstance(child, dict):
                        merged = {**child, **merged}
                    else:
                        self.report.add_fault(
                            path, None, "<< merges a mapping or a list of mappings", origin
                        )
                continue
            name = str(key.value)
            child_path = f"{path}.{name}" if path else name
            self._warn_of_false_space(key, re.compile(_FALSE_SPACE), child_path)
            built = self.build(value, child_path, depth + 1)
            if name in children:
                built = self._combine(children[name], built, child_path, origin)
            children[name] = built
        return {**merged, **children}

    def _combine(self, earlier: Node, later: Node, path: str, origin: str) -> Node:
        """Return the value of a duplicate key: the last one, or one mapping of two, as in Go."""
        if not (isinstance(earlier.value, dict) and isinstance(later.value, dict)):
            self.report.add_warning(path, "duplicate key; the last applies", origin)
            return later
        self.report.add_warning(path, "duplicate key; the two sections are joined", origin)
        children = dict(earlier.value)
        for name, child in later.value.items():
            children[name] = (
                self._combine(children[name], child, f"{path}.{name}", child.origin)
                if name in children
                else child
            )
        return Node(children, "", earlier.origin)

    def _warn_of_false_space(self, node: ScalarNode, pattern: re.Pattern[str], path: str) -> None:
        """Warn if a key or value without quotes has a character that looks like a space.

        :param pattern: where in the text that is most likely a mistake.
        """
        found = None if node.style else pattern.search(node.value)
        if found is not None:
            start, end = node.start_mark, node.end_mark
            place = "the value"
            if start.line == end.line:
                place = f"column {start.column + found.start() + 1}"
            self.report.add_warning(
                path,
                f"{place} has {_describe_character(found[0])}, which YAML takes for text;"
                " write a space, or put the text into quotes",
                self._origin_of(node),
            )

    def _build_scalar(self, node: ScalarNode, path: str, origin: str) -> Plain:
        try:
            match node.tag.removeprefix(_TAG_PREFIX):
                case "null":
                    return None
                case "bool":
                    return bool(_SCALARS.construct_yaml_bool(node))
                case "int":
                    number = int(_SCALARS.construct_yaml_int(node))
                    return number if abs(number) < MAX_INTEGER else str(node.value)
                case "float":
                    return float(_SCALARS.construct_yaml_float(node))
                case "str" | "timestamp" | "value" | "merge":
                    return str(node.value)
        except (ValueError, LookupError, OverflowError):
            pass
        self.report.add_fault(path, None, "the value does not match its YAML tag", origin)
        return None


def _describe_yaml_error(error: yaml.MarkedYAMLError, *, with_lines: bool) -> str:
    """Return place and words of an error of PyYAML, without the text of the document.

    The parser may quote the text that it rejects, which may be a password.
    """
    context, problem = error.context or "", error.problem or ""
    places = [
        f" at line {mark.line + 1}, column {mark.column + 1}" if mark and with_lines else ""
        for mark in (error.problem_mark or error.context_mark, error.context_mark)
    ]
    if context and places[0] != places[1]:
        context += places[1]
    words = "; ".join(filter(None, [context, problem]))
    return f"{places[0]}: {_QUOTED.sub(_mask_quoted, words)}"


def _mask_quoted(quoted: re.Match[str]) -> str:
    return f"'{MASK}'" if quoted[3] else quoted[0]


def _place_of_forbidden_character(text: str) -> str:
    """Return where the first character is that YAML does not allow; empty if there is none."""
    found = Reader.NON_PRINTABLE.search(text)
    if found is None:
        return ""
    before = text[: found.start()]
    line, column = before.count("\n") + 1, found.start() - before.rfind("\n")
    return f" at line {line}, column {column}"


def _describe_character(character: str) -> str:
    """Return the name of a character: ``a no-break space (U+00A0)``."""
    name = unicodedata.name(character).lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name} (U+{ord(character):04X})"


def _false_space_before(text: str, line: int, *, with_lines: bool) -> str:
    """Name the last character before an error that looks like a space; empty if there is none.

    :param line: the line of the error, from 0.
    """
    for number, content in reversed([*enumerate(text.split("\n")[: line + 1], 1)]):
        visible = _HARMLESS.sub(lambda found: "x" * len(found[0]), content)
        found = re.search(_FALSE_SPACE, visible)
        if found is not None:
            place = f"line {number}, column" if with_lines else "column"
            what = _describe_character(found[0])
            return f"; {place} {found.start() + 1} has {what}, which YAML takes for text"
    return ""
