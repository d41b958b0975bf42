"""How a value of the file is read, checked and said again: scalars, lists, tables.

The schema is classes whose fields name one of these kinds each. That is little enough
that we do it ourselves: a general structuring library such as cattrs costs 45 to 65 ms at
every start, reads dictionaries that have lost their lines and spelling, and does not know
keys that should only warn.

Short names for the kinds that the schema uses again and again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from re import Pattern
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import frozen

from twisted_registry.config import values
from twisted_registry.config.document import MASK, Report, mask_url, quote_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_registry.config.document import Node


class KindMismatchError(Exception):
    """A value is not what its kind takes."""


@frozen
class ReadContext:
    """Where the reader stands: the path of the key, and who hears of faults."""

    report: Report
    path: str = ""
    secret: bool = False

    def key(self, name: str, *, secret: bool = False) -> ReadContext:
        """The place of a key below this one."""
        below = f"{self.path}.{name}" if self.path else name
        return ReadContext(self.report, below, self.secret or secret)

    def item(self, index: int) -> ReadContext:
        """The place of a list's item."""
        return ReadContext(self.report, f"{self.path}[{index}]", self.secret)

    def fault(self, node: Node, kind: Kind) -> None:
        """Report that *node* is not what *kind* takes, without giving a secret away."""
        # What stands for a whole section may be one of its secrets.
        if isinstance(node.value, dict | list) or not isinstance(kind, Scalar | ListOf):
            value = node.type_name
        elif self.secret:
            value = MASK
        else:
            value = quote_value(node.text)
        self.report.fault(self.path, f"got {value}", kind.expected, node.origin)


class Kind(ABC):
    """What a key takes.

    :ivar expected: in words, for fault lines and the reference.
    """

    #: a key without a value is still read, not as if the key were absent
    takes_null: ClassVar[bool] = False

    def __init__(self, expected: str) -> None:
        self.expected = expected

    @abstractmethod
    def read(self, node: Node, place: ReadContext) -> Any:
        """The value of *node*; faults of its parts go to the place's report.

        :raise Mismatch: if it is nothing of this kind.
        """

    def dump(self, value: Any) -> Any:
        """*value* as YAML says it."""
        return value


class Scalar(Kind):
    """One value, read by a function of :mod:`twisted_registry.config.values`."""

    def __init__(self, expected: str, convert: Callable[[Node], Any]) -> None:
        super().__init__(expected)
        self.convert = convert

    def read(self, node: Node, place: ReadContext) -> Any:  # noqa: ARG002 - one value has no parts
        """As promised by :class:`Kind`."""
        try:
            return self.convert(node)
        except ValueError:
            raise KindMismatchError from None

    def dump(self, value: Any) -> Any:
        """As promised by :class:`Kind`."""
        if isinstance(value, Pattern):
            return value.pattern
        return mask_url(value) if isinstance(value, str) else value


class Duration(Scalar):
    """A length of time in seconds."""

    def dump(self, value: Any) -> Any:
        """As promised by :class:`Kind`."""
        return None if value is None else values.format_duration(value)


class Percentage(Scalar):
    """A part of a whole, from 0 to 1."""

    def dump(self, value: Any) -> Any:
        """As promised by :class:`Kind`."""
        return f"{100 * value:g}%" if value else None


class ListOf(Kind):
    """A list of one kind; the value is a tuple."""

    def __init__(self, expected: str, item: Kind) -> None:
        super().__init__(expected)
        self.item = item

    def read(self, node: Node, place: ReadContext) -> Any:
        """As promised by :class:`Kind`."""
        if not isinstance(node.value, list):
            raise KindMismatchError
        return tuple(
            value
            for index, child in enumerate(node.value)
            if (value := read(self.item, child, place.item(index))) is not None
        )

    def dump(self, value: Any) -> Any:
        """As promised by :class:`Kind`."""
        return [self.item.dump(item) for item in value]


class MapOf(Kind):
    """A mapping with names of the user's own; the value is a dict.

    :ivar item: the kind of the values.
    :ivar name: checks a name; raises ValueError.
    :ivar names: what a name must be, for fault lines.
    :ivar keep_case: names that the environment makes are not lower-cased.
    """

    def __init__(
        self,
        expected: str,
        item: Kind,
        name: Callable[[str], str] = str,
        names: str = "a name",
        *,
        keep_case: bool = False,
    ) -> None:
        super().__init__(expected)
        self.item = item
        self.name = name
        self.names = names
        self.keep_case = keep_case

    def read(self, node: Node, place: ReadContext) -> Any:
        """As promised by :class:`Kind`."""
        if not isinstance(node.value, dict):
            raise KindMismatchError
        table = {}
        for name, child in node.value.items():
            below = place.key(name)
            try:
                self.name(name)
            except ValueError:
                place.report.fault(below.path, None, f"the key must be {self.names}", child.origin)
            value = read(self.item, child, below)
            if value is not None:
                table[name] = value
        return table

    def dump(self, value: Any) -> Any:
        """As promised by :class:`Kind`."""
        return {name: self.item.dump(item) for name, item in value.items()}


class Anything(Kind):
    """Whatever YAML can say, as plain data."""

    def __init__(self, expected: str = "anything") -> None:
        super().__init__(expected)

    def read(self, node: Node, place: ReadContext) -> Any:  # noqa: ARG002 - nothing can be wrong
        """As promised by :class:`Kind`."""
        return plain(node)


class OpaqueSection(Anything):
    """A section that is known by the names of its keys, its values being another's business.

    :ivar known: the names, each with the names below it, if it is a section.
    """

    takes_null: ClassVar[bool] = True

    def __init__(self, known: Mapping[str, Mapping[str, None] | None] | None = None) -> None:
        super().__init__("a section")
        self.known = {} if known is None else known

    def read(self, node: Node, place: ReadContext) -> Any:
        """As promised by :class:`Kind`."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            raise KindMismatchError
        for name, child in node.value.items():
            below = place.key(name)
            if name not in self.known:
                place.report.unknown(below.path, name, self.known, child.origin)
            elif self.known[name] and isinstance(child.value, dict):
                OpaqueSection(known=self.known[name] or {}).read(child, below)
        return plain(node)


def plain(node: Node) -> Any:
    """*node* as dictionaries, lists and single values."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def read(kind: Kind, node: Node, place: ReadContext) -> Any:
    """The value of *node*; None if it has none, or has a fault, which is reported."""
    if node.value is None and not kind.takes_null:
        return None
    try:
        return kind.read(node, place)
    except KindMismatchError:
        place.fault(node, kind)
        return None


def mask(data: Any) -> Any:
    """Plain *data* with every single value replaced by asterisks."""
    if isinstance(data, dict):
        return {name: mask(item) for name, item in data.items()}
    if isinstance(data, list):
        return [mask(item) for item in data]
    return MASK


T = TypeVar("T")


def text(expected: str = "text") -> Kind:
    """Any single value, as it is spelled."""
    return Scalar(expected, values.text)


def boolean() -> Kind:
    """A real boolean."""
    return Scalar("true or false", values.boolean)


def integer(minimum: int, maximum: int | None = None) -> Kind:
    """An integer between bounds, which are included."""
    upper = "" if maximum is None else f" to {maximum}"
    return Scalar(
        f"a whole number from {minimum}{upper}", _bounded(values.integer, minimum, maximum)
    )


def size(minimum: int) -> Kind:
    """A number of bytes."""
    return Scalar(
        f"a number of bytes from {minimum}, as 4194304 or 4MiB", _bounded(values.size, minimum)
    )


def duration(*, positive: bool = False) -> Kind:
    """Seconds, written as a Go duration."""
    least = "longer than 0" if positive else "0 or longer"
    return Duration(
        f"a duration, {least}, as 90s, 2h10m or 500ms",
        _bounded(values.seconds, 1e-9 if positive else 0),
    )


def choice(*names: str, ignore_case: bool = False) -> Kind:
    """One of some words."""

    def convert(node: Node) -> str:
        value = values.text(node)
        value = value.lower() if ignore_case else value
        if value not in names:
            raise ValueError
        return value

    return Scalar(_either(names), convert)


def headers() -> Kind:
    """HTTP headers: a mapping of names to lists of values."""
    return MapOf(
        "a mapping of header names to lists of values",
        ListOf("a list of values", Scalar("a header value on one line", values.header_value)),
        values.header_name,
        "the name of an HTTP header, and not one that frames the message",
        keep_case=True,
    )


def text_list(expected: str = "a list of texts") -> Kind:
    """A list of single values."""
    return ListOf(expected, Scalar("text that is not empty", values.nonempty_text))


def _bounded(
    convert: Callable[[Node], T], minimum: float, maximum: float | None = None
) -> Callable[[Node], T]:
    def bounded(node: Node) -> T:
        value: Any = convert(node)
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError
        made: T = value
        return made

    return bounded


def _either(names: tuple[str, ...]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
