"""Memory that went through the C library's heap, given back to the system after a large upload.

What comes from a socket at a time is up to 1 MiB. glibc cuts such pieces out of a heap, of which
by itself it gives back only what lies beyond the last byte in use: after some pushes of eight
clients, 10 to 15 MiB stay that nobody uses. To map each piece anew would cost a fifth more
processor time; to look through the heap once at the end costs a millisecond.
"""

from __future__ import annotations

import ctypes
from typing import Final

#: Bytes of an upload after which it is worth it.
TRIM_THRESHOLD_BYTES: Final = 8 * 1024 * 1024

# Other C libraries than glibc have none, nor need it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim_heap() -> None:
    """Give back what is free; on a thread, since it takes a while."""
    if _malloc_trim is not None:
        _malloc_trim(0)
