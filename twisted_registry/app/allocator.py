"""Settings of the C library's allocator, for processes that the registry owns."""

from __future__ import annotations

import ctypes
import os
from typing import Final

#: From malloc.h of glibc; the same as MALLOC_ARENA_MAX.
_M_ARENA_MAX: Final = -8
_MAX_ARENAS: Final = 2


def limit_arenas() -> None:
    """Let all threads share two arenas of glibc. Call it before there are threads.

    By default there are eight for each CPU. Python's lock lets one thread allocate at a time, so
    that more of them are not faster, but each keeps the free memory of its own peak. Another C
    library, and a number in the environment, are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    environ = (os.environ.get("GLIBC_TUNABLES", ""), *os.environ)
    if mallopt is not None and not any("ARENA_MAX" in each.upper() for each in environ):
        mallopt(_M_ARENA_MAX, _MAX_ARENAS)
