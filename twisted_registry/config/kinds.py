"""Kinds of values: how a value of the file is read, checked and written back.

Each field of the schema has a kind. The kinds are written here instead of using a structuring
library such as cattrs, because such a library reads plain dictionaries, which have lost line
numbers and spelling, and cannot warn about unknown keys instead of rejecting them.

The functions at the end make the kinds that the schema uses often.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from twisted_registry.config import values
from twisted_registry.config.document import MASK, Report, mask_url, quote_value
from twisted_registry.oci.linear_regex import LinearRegex

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_registry.config.document import Node


@frozen
class ReadContext:
    """The position of the reader.

    :ivar report: receives faults and warnings.
    :ivar path: the key being read, as in ``http.tls.clientcas[0]``.
    :ivar secret: the value must not be shown in a fault.
    """

    report: Report
    path: str = ""
    secret: bool = False

    def child(self, name: str, *, secret: bool = False) -> ReadContext:
        """Return the context of the key *name* below this one."""
        path = f"{self.path}.{name}" if self.path else name
        return ReadContext(self.report, path, self.secret or secret)

    def item(self, index: int) -> ReadContext:
        """Return the context of one item of a list."""
        return ReadContext(self.report, f"{self.path}[{index}]", self.secret)

    def add_fault(self, node: Node, kind: Kind) -> None:
        """Report that *node* does not match *kind*, without showing a secret."""
        # A single value given for a section may be one of the section's secrets.
        if isinstance(node.value, dict | list) or not isinstance(kind, Scalar | ListOf):
            value = node.type_name
        elif self.secret:
            value = MASK
        else:
            value = quote_value(node.text)
        self.report.add_fault(self.path, f"got {value}", kind.expected, node.origin)


@define(eq=False, repr=False)
class Kind(ABC):
    """The type of a key.

    :ivar expected: the type in words, for faults and the reference.
    :ivar default: the value of an absent key, if the key does not have its own default.
    :ivar allows_empty: a key without a value is read (``inmemory:``), not treated as absent.
    """

    expected: str
    default: Any = field(default=None, kw_only=True)
    allows_empty: bool = field(default=False, kw_only=True)

    @abstractmethod
    def read_node(self, node: Node, context: ReadContext) -> Any:
        """Return the value of *node*. Faults of its parts are added to the context's report.

        :raise ValueError: if the node itself does not match this kind.
        """

    def dump(self, value: Any) -> Any:
        """Return *value* as plain data for YAML, with passwords in URLs masked."""
        return value


@define(eq=False, repr=False)
class Scalar(Kind):
    """A single value.

    :ivar convert: one of the functions of :mod:`twisted_registry.config.values`; raises ValueError.
    """

    convert: Callable[[Node], Any]
    default: Any = field(default="", kw_only=True)

    def read_node(self, node: Node, context: ReadContext) -> Any:  # noqa: ARG002 - no parts
        """Convert the value."""
        return self.convert(node)

    def dump(self, value: Any) -> Any:
        """Return the value, or the source of a regular expression."""
        if isinstance(value, LinearRegex):
            return value.source
        return mask_url(value) if isinstance(value, str) else value


@define(eq=False, repr=False)
class Duration(Scalar):
    """A length of time; the value is in seconds."""

    default: Any = field(default=0.0, kw_only=True)

    def read_node(self, node: Node, context: ReadContext) -> Any:
        """Convert the value; warn of a short one without a unit, which is nanoseconds."""
        value = super().read_node(node, context)
        if isinstance(node.value, int) and value and value < values.MIN_PLAUSIBLE_S:
            context.report.add_warning(
                context.path,
                f"{node.text} without a unit is nanoseconds; write {node.text}s for seconds",
                node.origin,
            )
        return value

    def dump(self, value: Any) -> Any:
        """Return the value as a duration in Go's syntax."""
        return None if value is None else values.format_duration(value)


@define(eq=False, repr=False)
class Percentage(Scalar):
    """A percentage; the value is a fraction from 0 to 1."""

    default: Any = field(default=0.0, kw_only=True)

    def dump(self, value: Any) -> Any:
        """Return the value as text such as ``85%``."""
        return f"{100 * value:g}%" if value else None


@define(eq=False, repr=False)
class ListOf(Kind):
    """A list of values of one kind; the value is a tuple."""

    item: Kind
    default: Any = field(default=(), kw_only=True)

    def read_node(self, node: Node, context: ReadContext) -> Any:
        """Read the items; an item with a fault is left out."""
        if not isinstance(node.value, list):
            raise ValueError  # noqa: TRY004 - one error type for all values
        return tuple(
            value
            for index, child in enumerate(node.value)
            if (value := read_node(self.item, child, context.item(index))) is not None
        )

    def dump(self, value: Any) -> Any:
        """Return the items as a list."""
        return [self.item.dump(item) for item in value]


@define(eq=False, repr=False)
class MapOf(Kind):
    """A mapping whose keys the user chooses; the value is a dict.

    :ivar item: the kind of the values.
    :ivar check_name: checks a key; raises ValueError.
    :ivar name_expected: what a key must be, for faults.
    :ivar keep_case: keep the case of keys given by environment variables, instead of lower-casing.
    """

    item: Kind
    check_name: Callable[[str], object] = str
    name_expected: str = "a name"
    keep_case: bool = field(default=False, kw_only=True)
    default: Any = field(factory=dict, kw_only=True)

    def read_node(self, node: Node, context: ReadContext) -> Any:
        """Check the keys and read the values; a value with a fault is left out."""
        if not isinstance(node.value, dict):
            raise ValueError  # noqa: TRY004 - one error type for all values
        table = {}
        for name, child in node.value.items():
            child_context = context.child(name)
            try:
                self.check_name(name)
            except ValueError:
                context.report.add_fault(
                    child_context.path, None, f"the key must be {self.name_expected}", child.origin
                )
            value = read_node(self.item, child, child_context)
            if value is not None:
                table[name] = value
        return table

    def dump(self, value: Any) -> Any:
        """Return the values by key."""
        return {name: self.item.dump(item) for name, item in value.items()}


@define(eq=False, repr=False)
class Anything(Kind):
    """Any YAML value; the value is plain data."""

    expected: str = "any value"

    def read_node(self, node: Node, context: ReadContext) -> Any:  # noqa: ARG002 - always matches
        """Return the node as plain data."""
        return to_plain_data(node)


@define(eq=False, repr=False)
class OpaqueSection(Anything):
    """A section of which only the names of the keys are checked.

    :ivar known: the names, each with the names below it if it is a section.
    """

    expected: str = field(default="a section", init=False)
    allows_empty: bool = field(default=True, init=False)
    known: Mapping[str, Mapping[str, None] | None] = field(factory=dict, kw_only=True)

    def read_node(self, node: Node, context: ReadContext) -> Any:
        """Return the section as plain data, and warn about unknown keys."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            raise ValueError  # noqa: TRY004 - one error type for all values
        for name, child in node.value.items():
            child_context = context.child(name)
            if name not in self.known:
                context.report.warn_unknown_key(child_context.path, name, self.known, child.origin)
            elif self.known[name] and isinstance(child.value, dict):
                OpaqueSection(known=self.known[name] or {}).read_node(child, child_context)
        return to_plain_data(node)


def to_plain_data(node: Node) -> Any:
    """Return *node* as dictionaries, lists and single values."""
    if isinstance(node.value, dict):
        return {name: to_plain_data(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [to_plain_data(child) for child in node.value]
    return node.value


def read_node(kind: Kind, node: Node, context: ReadContext) -> Any:
    """Return the value of *node*; None if it has no value, or a fault, which is reported."""
    if node.value is None and not kind.allows_empty:
        return None
    try:
        return kind.read_node(node, context)
    except ValueError:
        context.add_fault(node, kind)
        return None


def mask(data: Any) -> Any:
    """Return plain *data* with every single value replaced by asterisks."""
    if isinstance(data, dict):
        return {name: mask(item) for name, item in data.items()}
    if isinstance(data, list):
        return [mask(item) for item in data]
    return MASK


def text(expected: str = "text") -> Kind:
    """Make the kind of any single value, read as it is spelled."""
    return Scalar(expected, values.text)


def boolean() -> Kind:
    """Make the kind of a YAML boolean."""
    return Scalar("true or false", values.boolean, default=False)


def integer(minimum: int, maximum: float = math.inf) -> Kind:
    """Make the kind of an integer within inclusive bounds."""
    upper = "or more" if maximum == math.inf else f"to {maximum}"
    convert = values.bounded(values.integer, minimum, maximum)
    return Scalar(f"an integer, {minimum} {upper}", convert, default=0)


def size(minimum: int) -> Kind:
    """Make the kind of a number of bytes."""
    expected = f"a number of bytes, {minimum} or more, such as 4194304 or 4MiB"
    return Scalar(expected, values.bounded(values.size, minimum), default=0)


def duration(*, positive: bool = False) -> Kind:
    """Make the kind of a duration in Go's syntax; the value is in seconds."""
    bound = "longer than 0" if positive else "0 or longer"
    return Duration(
        f"a duration, {bound}, such as 90s, 2h10m or 500ms",
        values.bounded(values.duration_seconds, 1e-9 if positive else 0),
    )


def choice(*names: str, change_case: Callable[[str], str] = str) -> Kind:
    """Make the kind of one of some words; *change_case* is applied to the value before."""

    def convert(node: Node) -> str:
        value = change_case(values.text(node))
        if value not in names:
            raise ValueError
        return value

    return Scalar(_either([name or "empty" for name in names]), convert)


def headers() -> Kind:
    """Make the kind of HTTP headers: a mapping of names to lists of values."""
    return MapOf(
        "a mapping of header names to lists of values",
        ListOf("a list of values", Scalar("a header value on one line", values.header_value)),
        values.header_name,
        "an HTTP header name, and not one that frames the message",
        keep_case=True,
    )


def text_list(expected: str = "a list of texts") -> Kind:
    """Make the kind of a list of single values that are not empty."""
    return ListOf(expected, Scalar("text that is not empty", values.nonempty_text))


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
