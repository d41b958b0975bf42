"""The calls to the operating system that the filesystem driver makes, and no others.

A thin layer, so that a test can put a model of a disk in its place, one that counts, fails, or
loses power. All of it blocks: call it on a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted_registry.storage.interfaces import PathExists, PathInvalid, PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

# The layer mirrors the calls of the os module, where pathlib hides some of them.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108


_ERROR_CLASSES: dict[int, type[StorageError]] = {
    errno.ENOENT: PathNotFound,
    errno.EEXIST: PathExists,
    errno.ENOTDIR: PathInvalid,
    errno.EISDIR: PathInvalid,
    errno.ENAMETOOLONG: PathInvalid,
}
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
#: What a kernel or filesystem answers that can not copy between these two files by itself.
_COPY_UNSUPPORTED_ERRNOS = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
}


def translate_oserror(error: OSError, path: str) -> StorageError:
    """Say in the driver's words what the operating system said about ``path``."""
    kind = _ERROR_CLASSES.get(error.errno or 0, StorageError)
    return kind(path, error.strerror or repr(error), error.errno in _DISK_FULL_ERRNOS)


class OSCalls:
    """The real operating system. Every method is the call of its name; all raise OSError."""

    def open(self, path: str, flags: int) -> int:
        """Open, or make with the permissions that the umask leaves."""
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def dup(self, fd: int) -> int:
        """Another descriptor of the same open file."""
        return os.dup(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read at an offset; fewer bytes than asked for is no error."""
        return os.pread(fd, length, offset)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """Write at an offset; answers how many bytes it took."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut an open file."""
        os.ftruncate(fd, size)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Let the kernel begin to write a stretch that was not written before; where it can."""
        with suppress(OSError, AttributeError):
            # It throws away only what is on the disk already, so that here nothing is.
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def fsync(self, fd: int) -> None:
        """Wait until an open file or folder is on the disk."""
        os.fsync(fd)

    def lock(self, fd: int) -> None:
        """Take the exclusive lock of an open file; BlockingIOError if another has it."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def copy_range(self, source: int, destination: int, length: int) -> int:
        """Copy on from both positions, within the kernel; 0 at the end of the source."""
        try:
            return os.copy_file_range(source, destination, length)
        except OSError as error:
            if error.errno not in _COPY_UNSUPPORTED_ERRNOS:
                raise
            return os.sendfile(destination, source, None, length)

    def fstat(self, fd: int) -> os.stat_result:
        """Look at an open file."""
        return os.fstat(fd)

    #: Look at a file or folder, through symbolic links. Without a method around it: a pull looks
    #: at several files, and at nothing else.
    stat = staticmethod(os.stat)

    def realpath(self, path: str) -> str:
        """Resolve symbolic links."""
        return os.path.realpath(path)

    def scandir(self, path: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Go through the entries of a folder."""
        return os.scandir(path)

    def mkdir(self, path: str) -> None:
        """Make one folder."""
        os.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        """Remove a file, or a symbolic link itself."""
        os.unlink(path)

    def rename(self, source: str, destination: str) -> None:
        """Rename in one step, replacing a file."""
        os.rename(source, destination)

    def link(self, source: str, destination: str) -> None:
        """Give a file a second name, if that name is free."""
        os.link(source, destination)
