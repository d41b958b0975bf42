"""The grammar of storage paths."""

from __future__ import annotations

import re
from functools import lru_cache

#: Names that begin with a dot are the drivers' own. Surrogates stand for bytes that are no UTF-8.
_NAME = r"[^./\x00-\x1f\x7f\ud800-\udfff][^/\x00-\x1f\x7f\ud800-\udfff]*"
_PATH = re.compile(rf"{_NAME}(?:/{_NAME})*")
_ONE = re.compile(_NAME)
#: Bytes of a component, on every common file system.
LONGEST_NAME = 255


def is_name(name: str) -> bool:
    """Whether ``name`` can be a component of a path."""
    return _ONE.fullmatch(name) is not None


def is_any_path(path: str) -> bool:
    """Whether ``path`` names something below the root of a driver: for one of very many."""
    return _PATH.fullmatch(path) is not None and not _has_long_name(path)


#: The same for paths that are asked for again and again.
is_path = lru_cache(maxsize=16384)(is_any_path)


def _has_long_name(path: str) -> bool:
    # A character takes four bytes at most: most paths need no second look.
    return len(path) * 4 > LONGEST_NAME and any(
        len(name.encode()) > LONGEST_NAME for name in path.split("/")
    )
