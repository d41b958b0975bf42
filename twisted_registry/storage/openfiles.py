"""Descriptors of small files that were read lately, kept open for the next reader.

Opening a file costs a thread; looking at it does not. So a reader of a file that is still the one
that was opened before gets its descriptor at once, and it is closed when nobody has it any more.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_registry.storage.fileops import OSCalls
    from twisted_registry.storage.interfaces import FileVersion

#: Bytes: opening a larger file is nothing beside sending it, and a deleted file keeps its place on
#: the disk as long as it is open.
MAX_CACHED_FILE_BYTES = 1024 * 1024
#: Descriptors kept at most, and no more than this share of what the process may have.
_MAX_OPEN_FILES = 512
_DESCRIPTOR_DIVISOR = 8


def open_file_limit() -> int:
    """How many descriptors may be kept, seen from what the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else min(_MAX_OPEN_FILES, soft // _DESCRIPTOR_DIVISOR)


class CachedFile:
    """A descriptor that several may read from, at offsets of their own.

    :ivar seen: how the file looked.
    :ivar users: who has it.
    """

    __slots__ = ("_files", "fd", "version", "users")

    def __init__(self, files: OSCalls, version: FileVersion, fd: int) -> None:
        self._files = files
        self.version = version
        self.fd = fd
        self.users = 1

    def release(self) -> None:
        """Be told that one of them needs it no more."""
        self.users -= 1
        if not self.users:
            self._files.close(self.fd)


class OpenFileCache:
    """A bounded number of descriptors, by path."""

    def __init__(self, files: OSCalls, max_files: int) -> None:
        self._files = files
        self._max_files = max_files
        self._cache: OrderedDict[str, CachedFile] = OrderedDict()

    def acquire(self, path: str, version: FileVersion | None) -> CachedFile | None:
        """The file that was ``version``, for the caller to release; or None."""
        cached = self._cache.get(path)
        if cached is None:
            return None
        if cached.version != version:
            self._drop(path)
            return None
        self._cache.move_to_end(path)
        cached.users += 1
        return cached

    def add(self, path: str, version: FileVersion, fd: int) -> None:
        """Keep a duplicate of ``fd``, which was opened after the file was ``version``.

        Only if it is that file: another may have taken its place in between.
        """
        if version.size > MAX_CACHED_FILE_BYTES or path in self._cache:
            return
        found = self._files.fstat(fd)
        if (found.st_ino, found.st_mtime_ns, found.st_ctime_ns) != version.identity:
            return
        self._cache[path] = CachedFile(self._files, version, self._files.dup(fd))
        if len(self._cache) > self._max_files:
            self._drop(next(iter(self._cache)))

    def discard(self, path: str) -> None:
        """Keep none of this path."""
        if path in self._cache:
            self._drop(path)

    def close(self) -> None:
        """Close them all."""
        while self._cache:
            self._drop(next(iter(self._cache)))

    def _drop(self, path: str) -> None:
        self._cache.pop(path).release()
