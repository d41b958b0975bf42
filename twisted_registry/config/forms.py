"""Short names for the kinds that the schema uses again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted_registry.config import values
from twisted_registry.config.kinds import Duration, Kind, ListOf, Scalar, MapOf

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.config.document import Node

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
    return Scalar(f"a whole number from {minimum}{upper}", _bounded(values.integer, minimum, maximum))


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
