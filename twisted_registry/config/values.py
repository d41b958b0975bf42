"""Conversion of single values: from a scalar of the file to a Python value.

Each function takes a node of the tree and returns the value, or raises ValueError; the kind that
calls it knows what was expected. Durations and lenient booleans have the syntax of Go, because
existing files were written for a Go program.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from twisted_registry.oci.linear_regex import LinearRegex

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.config.document import Node

Number = TypeVar("Number", int, float)

#: The largest value of ``worker_count``.
MAX_WORKERS: Final = 64

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # the micro sign
    "\u03bcs": 1_000,  # the Greek letter; Go accepts both
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,  # an extension: Go has no days
}
_DURATION_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h|d)", re.ASCII)
_MAX_INT64: Final = 2**63 - 1
#: Shorter durations without a unit were most likely meant to be seconds.
MIN_PLAUSIBLE_S: Final = 1e-3
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_SIZE: Final = re.compile(r"(\d{1,15})\s*(KiB|MiB|GiB|TiB)?", re.ASCII)
_SIZE_UNITS: Final = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
#: The bounds of a rate per second: one in about three hours; more than a process can serve.
_MIN_RATE: Final = 1e-4
_MAX_RATE: Final = 1e6
_PERCENTAGE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s?%", re.ASCII)
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_PREFIX: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]+/)*")
#: RFC 9110 section 5.6.2.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: RFC 9110 section 5.5.
_FIELD_VALUE: Final = re.compile(
    r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
#: Headers that the HTTP server sets; a configured one would break the framing of responses.
_FRAMING: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


def bounded(
    convert: Callable[[Node], Number], minimum: float, maximum: float = math.inf
) -> Callable[[Node], Number]:
    """Return *convert*, limited to values within inclusive bounds."""

    def convert_bounded(node: Node) -> Number:
        value = convert(node)
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    return convert_bounded


def matching(pattern: re.Pattern[str]) -> Callable[[Node], str]:
    """Return a function that returns a scalar as it is spelled, if all of it matches *pattern*."""

    def convert_matching(node: Node) -> str:
        value = text(node)
        if not pattern.fullmatch(value):
            raise ValueError
        return value

    return convert_matching


def text(node: Node) -> str:
    """Return a scalar as it is spelled, numbers and ``yes`` included."""
    if isinstance(node.value, dict | list):
        raise ValueError  # noqa: TRY004 - one error type for all values
    return node.text


def nonempty_text(node: Node) -> str:
    """Return a scalar as it is spelled, unless it is empty or blank."""
    value = text(node)
    if not value.strip():
        raise ValueError
    return value


def boolean(node: Node) -> bool:
    """Return a YAML boolean. Quoted ones are rejected, as Distribution does."""
    if not isinstance(node.value, bool):
        raise ValueError  # noqa: TRY004 - one error type for all values
    return node.value


def lenient_boolean(node: Node) -> bool:
    """Return a YAML boolean, or text that Go's ``strconv.ParseBool`` accepts."""
    if isinstance(node.value, bool):
        return node.value
    value = _BOOLEANS.get(text(node))
    if value is None:
        raise ValueError
    return value


def integer(node: Node) -> int:
    """Return a YAML integer that fits into 64 bits."""
    value = node.value
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_INT64:
        raise ValueError
    return value


def rate(node: Node) -> float:
    """Return a rate per second: a YAML number, 0 or more, such as 20 or 0.5."""
    value = node.value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - one error type for all values
    if value and not _MIN_RATE <= value <= _MAX_RATE:
        raise ValueError
    return float(value)


def worker_count(node: Node) -> int:
    """Return a number of processes; ``auto`` is one for each CPU available to this process."""
    if node.value == "auto":
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    return bounded(integer, 1, MAX_WORKERS)(node)


def lenient_integer(node: Node) -> int:
    """Return a YAML integer, or text that is one (``"100"``, ``"0x40"``)."""
    if not isinstance(node.value, str):
        return integer(node)
    value = int(node.value, 0)
    if abs(value) > _MAX_INT64:
        raise ValueError
    return value


def size(node: Node) -> int:
    """Return a number of bytes: a YAML integer, or text with a unit (``64KiB``, ``4MiB``)."""
    if not isinstance(node.value, str):
        return integer(node)
    match = _SIZE.fullmatch(node.value.strip())
    if match is None:
        raise ValueError
    return int(match[1]) * _SIZE_UNITS[match[2]]


def duration_seconds(node: Node) -> float:
    """Return the seconds of a Go duration (``2h10m``, ``300ms``); a bare integer is nanoseconds."""
    if isinstance(node.value, str):
        return parse_duration(node.value)
    return integer(node) / 1e9


def text_duration_seconds(node: Node) -> float:
    """Return the seconds of a Go duration, for keys where Distribution requires a unit."""
    if not isinstance(node.value, str):
        raise ValueError  # noqa: TRY004 - one error type for all values
    return parse_duration(node.value)


def parse_duration(duration: str) -> float:
    """Return the seconds of a duration: the syntax of Go's ``time.ParseDuration``, and days.

    :raise ValueError: if it is not a duration, or longer than Go's longest (about 292 years).
    """
    sign = -1 if duration.startswith("-") else 1
    rest = duration[1:] if duration[:1] in {"+", "-"} else duration
    if rest == "0":
        return 0.0
    total = 0.0
    end = 0
    while end < len(rest):
        part = _DURATION_PART.match(rest, end)
        if part is None:
            raise ValueError
        total += float(part[1]) * _NANOSECONDS[part[2]]
        end = part.end()
    if not end or total > _MAX_INT64:
        raise ValueError
    return sign * total / 1e9


def format_duration(seconds: float) -> str:
    """Return *seconds* as a Go duration such as ``2h10m`` or ``1.5s``."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    parts = []
    for unit in ("h", "m"):
        count, nanoseconds = divmod(nanoseconds, _NANOSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if nanoseconds or not parts:
        count, fraction = divmod(nanoseconds, _NANOSECONDS["s"])
        decimals = f".{fraction:09}".rstrip("0") if fraction else ""
        parts.append(f"{count}{decimals}s")
    return sign + "".join(parts)


def regex(node: Node) -> LinearRegex:
    """Return a regular expression."""
    return LinearRegex.parse(text(node))


def url(node: Node) -> str:
    """Return an absolute http or https URL."""
    value = text(node)
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError if it is not a port
    if parts.scheme not in {"http", "https"} or not parts.hostname or not value.isprintable():
        raise ValueError
    if set(value) & set(' "<>\\^`{|}'):
        raise ValueError
    return value


def base_url(node: Node) -> str:
    """Return an absolute http or https URL to which a path can be appended.

    It has no query, fragment or user name; a trailing slash is removed.
    """
    value = url(node)
    parts = urlsplit(value)
    if "?" in value or "#" in value or parts.username is not None:
        raise ValueError
    return value.rstrip("/")


def percentage(node: Node) -> float:
    """Return a percentage as a fraction from 0.01 to 1."""
    match = _PERCENTAGE.fullmatch(text(node))
    value = float(match[1]) / 100 if match else 0.0
    if not 0.01 <= value <= 1:
        raise ValueError
    return value


def prefix(node: Node) -> str:
    """Return a URL path that starts and ends with a slash, or an empty text."""
    value = text(node)
    if value and (not _PREFIX.fullmatch(value) or {".", ".."} & set(value.split("/"))):
        raise ValueError
    return value


def header_name(name: str) -> str:
    """Return a header name: a token (RFC 9110 section 5.6.2) that does not frame the message."""
    if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING:
        raise ValueError
    return name


#: Return a header value (RFC 9110 section 5.5): one line, no space around it.
header_value: Final = matching(_FIELD_VALUE)
#: Return an absolute URL path with at least one component.
path: Final = matching(_PATH)
