"""Files that get their name only when they are whole. All of it blocks: call it on a thread."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from twisted_registry.storage.fileops import OSCalls

_COPY_CHUNK_BYTES = 64 * 1024 * 1024
_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}\.tmp", re.ASCII)


class AtomicFile:
    """A new file under a hidden name: renamed by the end of the block, or removed.

    :ivar files: the operating system.
    :ivar folder: where in the file system to make it.
    """

    def __init__(self, files: OSCalls, folder: str) -> None:
        self._files = files
        self._folder = folder
        self.path = ""
        self._fd = -1
        self._renamed = False

    def __enter__(self) -> Self:
        self.path = f"{self._folder}/{temporary_name()}"
        self._fd = self._files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._files.close(self._fd)
        finally:
            if not self._renamed:
                self._remove()

    def write(self, content: bytes) -> None:
        """Write all of it."""
        write_all(self._files, self._fd, content, 0)

    def copy_from(self, source: int) -> None:
        """Write all that an open file holds."""
        while self._files.copy_range(source, self._fd, _COPY_CHUNK_BYTES):
            pass

    def sync(self) -> None:
        """Make the content last."""
        self._files.fsync(self._fd)

    def rename(self, os_path: str) -> None:
        """Give it its name."""
        self._files.rename(self.path, os_path)
        self._renamed = True

    def is_at(self, os_path: str) -> bool:
        """Whether a name is still that of this file."""
        here, there = self._files.fstat(self._fd), self._files.stat(os_path)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def _remove(self) -> None:
        # Its folder may have been deleted meanwhile.
        with suppress(FileNotFoundError):
            self._files.unlink(self.path)


def write_all(files: OSCalls, fd: int, content: bytes, offset: int) -> None:
    """Write at an offset until all is written."""
    rest = memoryview(content)
    while rest:
        taken = files.pwrite(fd, rest, offset)
        rest = rest[taken:]
        offset += taken


def temporary_name() -> str:
    """Make up a name for a file or folder that nobody is to see: it begins with a dot."""
    return f".{token_hex(8)}.tmp"


def is_temporary_name(name: str) -> bool:
    """Whether a name is one that :func:`temporary_name` made up."""
    return _TEMPORARY_NAME.fullmatch(name) is not None
