"""Descriptors of small files that were read lately, kept open for the next reader.

Opening a file costs a thread; looking at it does not. So a reader of a file that is still the one
that was opened before gets its descriptor at once, and it is closed when nobody has it any more.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_registry.storage.fileops import OsFiles
    from twisted_registry.storage.interfaces import Glance

#: Bytes: opening a larger file is nothing beside sending it, and a deleted file keeps its place on
#: the disk as long as it is open.
LARGEST = 1024 * 1024
#: Descriptors kept at most, and no more than this share of what the process may have.
MOST = 512
_SHARE = 8


def room_for_open_files() -> int:
    """How many descriptors may be kept, seen from what the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // _SHARE)


class OpenFile:
    """A descriptor that several may read from, at offsets of their own.

    :ivar seen: how the file looked.
    :ivar users: who has it.
    """

    __slots__ = ("_files", "fd", "seen", "users")

    def __init__(self, files: OsFiles, seen: Glance, fd: int) -> None:
        self._files = files
        self.seen = seen
        self.fd = fd
        self.users = 1

    def release(self) -> None:
        """Be told that one of them needs it no more."""
        self.users -= 1
        if not self.users:
            self._files.close(self.fd)


class OpenFiles:
    """A bounded number of descriptors, by path."""

    def __init__(self, files: OsFiles, most: int) -> None:
        self._files = files
        self._most = most
        self._kept: OrderedDict[str, OpenFile] = OrderedDict()

    def take(self, path: str, seen: Glance | None) -> OpenFile | None:
        """The file that was ``seen``, for the caller to release; or None."""
        kept = self._kept.get(path)
        if kept is None:
            return None
        if kept.seen != seen:
            self._drop(path)
            return None
        self._kept.move_to_end(path)
        kept.users += 1
        return kept

    def keep(self, path: str, seen: Glance, fd: int) -> None:
        """Keep a duplicate of ``fd``, which was opened after the file was ``seen``.

        Only if it is that file: another may have taken its place in between.
        """
        if seen.size > LARGEST or path in self._kept:
            return
        found = self._files.fstat(fd)
        if (found.st_ino, found.st_mtime_ns, found.st_ctime_ns) != seen.mark:
            return
        self._kept[path] = OpenFile(self._files, seen, self._files.dup(fd))
        if len(self._kept) > self._most:
            self._drop(next(iter(self._kept)))

    def forget(self, path: str) -> None:
        """Keep none of this path."""
        if path in self._kept:
            self._drop(path)

    def close(self) -> None:
        """Close them all."""
        while self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, path: str) -> None:
        self._kept.pop(path).release()
