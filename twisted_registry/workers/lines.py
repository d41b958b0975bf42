"""Standard output that several processes write to, with whole lines.

What one process writes to a pipe in one piece may be taken apart by what another writes, if it is
longer than a page or the pipe is full. A lock on the output itself keeps that from happening; it
is the kernel's, for processes, and goes with its holder.
"""

from __future__ import annotations

import fcntl
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from _typeshed import ReadableBuffer


class LockedOutput(io.RawIOBase):
    """Writes all of its argument before another process writes anything."""

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor that all of the processes have; it is never closed here."""
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write everything, and answer how many bytes that was."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        # Some devices can not be locked; a line to them goes in one piece anyway.
        with suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        finally:
            with suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return size


def open_locked_output(descriptor: int) -> TextIO:
    """A text stream; what one call of ``write`` takes stays together."""
    output = io.BufferedWriter(LockedOutput(descriptor), 1)
    return io.TextIOWrapper(output, "utf-8", "backslashreplace", write_through=True)
