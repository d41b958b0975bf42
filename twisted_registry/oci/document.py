"""JSON documents of clients: how they are loaded, and which are refused at a push.

A registry checks a document by one reading, and clients use it by another. Programs in Go, which
are most clients, match the keys of an object without regard to case, and use the last of several
values; so ``"layers"`` beside ``"Layers"`` has two readings. Such documents are refused, see
:func:`load_pushed_object` and :func:`check_keys`.

A document is bounded before it is parsed, by counts of some characters. The scanner of the standard
library that is written in C holds the interpreter's lock until it is done; so a large document is
parsed with the one that is written in Python, between whose steps other threads run.
"""

from __future__ import annotations

import json
import re
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Bytes of a document that is parsed in one step, which takes a few milliseconds at worst.
MAX_BYTES_AT_ONCE = 64 * 1024
#: Keys of objects with free keys, which no program matches without regard to case.
_FREE_KEYS = frozenset({"annotations"})
#: The start of a JSON object (RFC 8259 section 2).
_OBJECT_START_RE = re.compile(rb"[ \t\r\n]*\{")
#: Characters that cost the parser time beyond their size. Each value but the first follows a comma,
#: or begins an array or object; each escape in a string is parsed by itself.
_STRUCTURE = (b",", b"[", b"{", b"\\")
#: Digits of a number that is read; a longer one is none that any field may have.
_MAX_NUMBER_DIGITS = 20


class DocumentInvalid(ValueError):
    """The document is refused.

    :ivar limit: the limit that it exceeds, as in ``RegistryError``; empty for another reason.
    """

    def __init__(self, reason: str, limit: str = "") -> None:
        super().__init__(reason)
        self.limit = limit


@frozen
class DocumentLimits:
    """Limits of the structure of a document.

    :ivar depth: nested objects and arrays, the outermost included.
    :ivar values: commas, opening brackets and braces, and backslashes; the number of values is at
        most one more.
    """

    depth: int = 32
    values: int = 100_000


def load_object(content: bytes) -> dict[str, Any] | None:
    """Load a stored JSON object; the last of duplicate keys applies, as in Go.

    Numbers that are not integers of at most 20 digits are loaded as -1.0.

    :returns: None for content that is not a JSON object in UTF-8.
    """
    if _OBJECT_START_RE.match(content) is None:
        return None
    try:
        document = _decode(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def load_pushed_object(content: bytes, limits: DocumentLimits) -> dict[str, Any] | None:
    """Load a JSON object as :func:`load_object` does, unless it has to be refused.

    :raises DocumentInvalid: if it exceeds a limit, or an object in it has a key twice.
    """
    if _OBJECT_START_RE.match(content) is None:
        return None
    if sum(map(content.count, _STRUCTURE)) > limits.values:
        raise DocumentInvalid(
            f"the document has more than {limits.values} values", "manifestvalues"
        )
    try:
        document = _decode(content, _reject_duplicate_keys)
    except DocumentInvalid:
        raise
    except ValueError:
        return None
    except RecursionError:
        raise _nested_too_deep(limits) from None
    _check_depth(document, limits)
    return document if isinstance(document, dict) else None


def check_keys(document: dict[str, Any]) -> None:
    """Check that no object in a document has two keys that differ only in case.

    The keys of ``annotations`` are free.

    :raises DocumentInvalid: naming the keys.
    """
    pending: list[tuple[Any, bool]] = [(document, False)]
    while pending:
        container, has_free_keys = pending.pop()
        if isinstance(container, dict):
            if not has_free_keys:
                _check_object(container)
            pending += [
                (value, key in _FREE_KEYS)
                for key, value in container.items()
                if isinstance(value, dict | list)
            ]
        else:
            pending += [(item, False) for item in container if isinstance(item, dict | list)]


def fold_keys(*names: str) -> Mapping[str, str]:
    """Return the names of fields by what :func:`str.casefold` makes of them."""
    return {name.casefold(): name for name in names}


def check_known_keys(found: dict[str, Any], known: Mapping[str, str], where: str) -> None:
    """Check that no key of an object is a known one but for its case.

    :param known: as from :func:`fold_keys`.
    :param where: the path of the object, for the message.
    :raises DocumentInvalid: naming both keys.
    """
    for key in found:
        name = known.get(key.casefold(), key)
        if name != key:
            raise DocumentInvalid(f"{where}: the key {key!r} differs from {name!r} only in case")


def _decode(
    content: bytes, make_object: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None
) -> Any:
    """Decode JSON in UTF-8; that of many bytes lets other threads run meanwhile.

    :param make_object: makes an object of its keys and values; None for the last of duplicate keys.
    :raises ValueError: if it is not JSON in UTF-8.
    :raises RecursionError: if it is nested too deep for the interpreter.
    """
    decoder = json.JSONDecoder(
        parse_constant=_reject_constant,
        parse_float=_load_float,
        parse_int=_load_integer,
        object_pairs_hook=make_object,
    )
    if len(content) > MAX_BYTES_AT_ONCE:
        decoder.scan_once = py_make_scanner(decoder)  # type: ignore[attr-defined]
    # json would guess the encoding of bytes, and accept lone surrogates.
    return decoder.decode(content.decode("utf-8"))


def _check_object(found: dict[str, Any]) -> None:
    if len(set(map(str.casefold, found))) == len(found):
        return
    first: dict[str, str] = {}
    pairs = ((first.setdefault(key.casefold(), key), key) for key in found)
    one, other = next(pair for pair in pairs if pair[0] != pair[1])
    raise DocumentInvalid(f"the keys {one[:100]!r} and {other[:100]!r} differ only in case")


def _check_depth(document: Any, limits: DocumentLimits) -> None:
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > limits.depth:
            raise _nested_too_deep(limits)
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]


def _nested_too_deep(limits: DocumentLimits) -> DocumentInvalid:
    return DocumentInvalid(
        f"the document is nested deeper than {limits.depth} levels", "manifestdepth"
    )


def _reject_constant(name: str) -> None:
    raise ValueError(name)


def _load_float(text: str) -> float:
    """Return a number without reading it: no field is one, and a long one costs time."""
    _check_digits(text)
    return -1.0


def _load_integer(text: str) -> float:
    _check_digits(text)
    return int(text) if len(text) <= _MAX_NUMBER_DIGITS else -1.0


def _check_digits(text: str) -> None:
    # Before Python 3.14, the scanner in Python takes the digits of other scripts for digits.
    if not text.isascii():
        raise ValueError("a number has other digits than 0 to 9")


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DocumentInvalid("an object has the same key twice")
    return found
