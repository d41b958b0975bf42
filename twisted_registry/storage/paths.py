"""The grammar of storage paths."""

from __future__ import annotations

import re
from functools import lru_cache

#: Names that begin with a dot are the drivers' own.
_NAME = r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*"
_PATH_PATTERN = re.compile(rf"{_NAME}(?:/{_NAME})*")
_NAME_PATTERN = re.compile(_NAME)
#: Bytes of a component, on every common file system.
_MAX_NAME_BYTES = 255


def is_name(name: str) -> bool:
    """Whether ``name`` can be a component of a path."""
    return _NAME_PATTERN.fullmatch(name) is not None and _is_text(name)


def is_path_uncached(path: str) -> bool:
    """Whether ``path`` names something below the root of a driver: for one of very many."""
    return _PATH_PATTERN.fullmatch(path) is not None and _is_text(path) and not _has_long_name(path)


#: The same for paths that are asked for again and again.
is_path = lru_cache(maxsize=16384)(is_path_uncached)


def _is_text(path: str) -> bool:
    # Surrogates stand for bytes that are no UTF-8. To look for them by the patterns above would
    # take 1 to 2 ms at each start, for the tables that such patterns need.
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_long_name(path: str) -> bool:
    # A character takes one byte or four at most: most paths need no second look.
    most = len(path) if path.isascii() else len(path) * 4
    return most > _MAX_NAME_BYTES and any(
        len(name.encode()) > _MAX_NAME_BYTES for name in path.split("/")
    )
