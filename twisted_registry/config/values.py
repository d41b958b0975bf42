"""Single values: what a scalar of the file must look like, and what it becomes.

Each function takes a node of the tree and returns the value, or raises ValueError; the kind
that calls it knows what was expected. Durations and loose booleans follow Go, because the
files that people have were written for a Go program.
"""

from __future__ import annotations

import os
import re
import warnings
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from twisted_registry.config.document import Node

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # the micro sign
    "\u03bcs": 1_000,  # the Greek letter, as Go takes both
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
# Patterns are compiled once there is something to match, not at each start.
_PART: Final = r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_LONGEST: Final = 2**63 - 1
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SIZE: Final = r"(\d{1,15})\s*(KiB|MiB|GiB)?"
_UNITS: Final = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_FIELD: Final = r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
_PREFIX: Final = r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]+/)*"
#: More processes than this on one socket are a mistake.
MAX_WORKERS: Final = 64
#: The HTTP machinery owns these; a configured one would break the framing of answers.
_FRAMING: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


def text(node: Node) -> str:
    """A scalar as it is spelled, numbers and ``yes`` included."""
    if isinstance(node.value, dict | list):
        raise ValueError  # noqa: TRY004 - one kind of error for all values
    return node.text


def nonempty_text(node: Node) -> str:
    """As :func:`text`, and not empty."""
    value = text(node)
    if not value.strip():
        raise ValueError
    return value


def boolean(node: Node) -> bool:
    """A real YAML boolean; quoted ones are refused, as Distribution does."""
    if not isinstance(node.value, bool):
        raise ValueError  # noqa: TRY004 - one kind of error for all values
    return node.value


def lenient_boolean(node: Node) -> bool:
    """A YAML boolean, or text that Go's ``strconv.ParseBool`` takes."""
    if isinstance(node.value, bool):
        return node.value
    value = text(node)
    if value not in _TRUE | _FALSE:
        raise ValueError
    return value in _TRUE


def integer(node: Node) -> int:
    """A YAML integer of at most 64 bits."""
    if not isinstance(node.value, int) or isinstance(node.value, bool):
        raise ValueError  # noqa: TRY004 - one kind of error for all values
    if abs(node.value) > _LONGEST:
        raise ValueError
    return node.value


def worker_count(node: Node) -> int:
    """A number of processes; ``auto`` is one for each CPU that this process may use."""
    if node.value == "auto":
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    count = integer(node)
    if not 1 <= count <= MAX_WORKERS:
        raise ValueError
    return count


def lenient_integer(node: Node) -> int:
    """A YAML integer, or text that is one (``"100"``, ``"0x40"``)."""
    if not isinstance(node.value, str):
        return integer(node)
    value = int(node.value, 0)
    if abs(value) > _LONGEST:
        raise ValueError
    return value


def size(node: Node) -> int:
    """Bytes: a YAML integer, or text with a unit of 1024 (``64KiB``, ``4MiB``)."""
    if not isinstance(node.value, str):
        return integer(node)
    match = re.fullmatch(_SIZE, node.value.strip(), re.ASCII)
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[match[2]]


def seconds(node: Node) -> float:
    """A Go duration in seconds: ``2h10m``, ``1.5h``, ``300ms``; a bare integer is nanoseconds."""
    if isinstance(node.value, str):
        return duration(node.value)
    return integer(node) / 1e9


def quoted_seconds(node: Node) -> float:
    """As :func:`seconds`, for the keys where Distribution insists on text with a unit."""
    if not isinstance(node.value, str):
        raise ValueError  # noqa: TRY004 - one kind of error for all values
    return duration(node.value)


def duration(said: str) -> float:
    """The seconds of a duration in the syntax of Go's ``time.ParseDuration``.

    :raise ValueError: if it is none, or longer than Go can say (about 292 years).
    """
    sign = -1 if said.startswith("-") else 1
    rest = said[1:] if said[:1] in {"+", "-"} else said
    if rest == "0":
        return 0.0
    total = 0.0
    end = 0
    pattern = re.compile(_PART, re.ASCII)
    while end < len(rest):
        part = pattern.match(rest, end)
        if part is None:
            raise ValueError
        total += float(part[1]) * _NANOSECONDS[part[2]]
        end = part.end()
    if not end or total > _LONGEST:
        raise ValueError
    return sign * total / 1e9


def format_duration(length: float) -> str:
    """The Go duration that says *length* seconds, as ``2h10m`` or ``1.5s``."""
    nanoseconds = round(abs(length) * 1e9)
    sign = "-" if length < 0 else ""
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


def pattern(node: Node) -> re.Pattern[str]:
    """A regular expression of Go that means the same in Python.

    Most do. What Python would read in another sense (POSIX classes such as ``[[:alpha:]]``)
    or does not know is refused rather than guessed at.
    """
    said = text(node).replace(r"\z", r"\Z")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(said)
    except (re.error, Warning, OverflowError, RecursionError):
        raise ValueError from None


def url(node: Node) -> str:
    """An absolute http or https URL."""
    value = text(node)
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError unless it is a port
    if parts.scheme not in {"http", "https"} or not parts.hostname or not value.isprintable():
        raise ValueError
    if set(value) & set(' "<>\\^`{|}'):
        raise ValueError
    return value


def base_url(node: Node) -> str:
    """An absolute http or https URL that paths can follow, without a slash at its end."""
    value = url(node)
    parts = urlsplit(value)
    if "?" in value or "#" in value or parts.username is not None:
        raise ValueError
    return value.rstrip("/")


def part(node: Node) -> float:
    """A percentage, as a part of 1."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?)\s?%", text(node), re.ASCII)
    value = float(found[1]) / 100 if found else 0.0
    if not 0.01 <= value <= 1:
        raise ValueError
    return value


def path(node: Node) -> str:
    """An absolute path of a URL that names something."""
    value = text(node)
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
        raise ValueError
    return value


def prefix(node: Node) -> str:
    """A URL path that starts and ends with a slash, or nothing."""
    value = text(node)
    if value and (not re.fullmatch(_PREFIX, value) or {".", ".."} & set(value.split("/"))):
        raise ValueError
    return value


def header_name(name: str) -> str:
    """A header's name: a token (RFC 9110 section 5.6.2) that does not frame the message."""
    if not re.fullmatch(_TOKEN, name) or name.lower() in _FRAMING:
        raise ValueError
    return name


def header_value(node: Node) -> str:
    """A header's value (RFC 9110 section 5.5): one line, no space around it."""
    value = text(node)
    if not re.fullmatch(_FIELD, value):
        raise ValueError
    return value
