"""The calls to the operating system that the filesystem driver makes, and no others.

Tests replace this layer by models of a disk that count calls, fail or lose power. All calls block.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted_registry.storage.files import inherit_directory_owner, inherit_owner
from twisted_registry.storage.interfaces import PathExists, PathInvalid, PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

# The names are those of the os module, not of pathlib.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108


_ERROR_CLASSES: dict[int, type[StorageError]] = {
    errno.ENOENT: PathNotFound,
    errno.EEXIST: PathExists,
    errno.ENOTDIR: PathInvalid,
    errno.EISDIR: PathInvalid,
    errno.ENAMETOOLONG: PathInvalid,
}
#: No blocks or inodes are left on the disk, or for this user.
DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
#: copy_file_range() is not supported for these two files.
_COPY_UNSUPPORTED_ERRNOS = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
}


def translate_oserror(error: OSError, path: str) -> StorageError:
    """Return the error of the driver for an error of the operating system."""
    kind = _ERROR_CLASSES.get(error.errno or 0, StorageError)
    return kind(path, error.strerror or repr(error), error.errno in DISK_FULL_ERRNOS)


class OSCalls:
    """The operating system. Every method makes the call of its name and may raise OSError."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """Open a file, or make it with those of some permissions that the umask permits."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def dup(self, fd: int) -> int:
        """Return another descriptor of the same open file."""
        return os.dup(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read at an offset; may return fewer bytes than requested."""
        return os.pread(fd, length, offset)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """Write at an offset; return the number of bytes written."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Truncate an open file."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Give an open file that many bytes of the disk, where that is supported."""
        os.posix_fallocate(fd, 0, size)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Tell the kernel to begin writing a new range to the disk, where that is supported."""
        with suppress(OSError, AttributeError):
            # It drops only pages that are on the disk already: none of these are.
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def fsync(self, fd: int) -> None:
        """Make an open file or folder durable."""
        os.fsync(fd)

    def lock(self, fd: int) -> None:
        """Take the exclusive lock of an open file.

        :raises BlockingIOError: if another descriptor has it.
        """
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def copy_range(self, source: int, destination: int, length: int) -> int:
        """Copy within the kernel, from and to the current positions; return 0 at the end."""
        try:
            return os.copy_file_range(source, destination, length)
        except OSError as error:
            if error.errno not in _COPY_UNSUPPORTED_ERRNOS:
                raise
            return os.sendfile(destination, source, None, length)

    def fstat(self, fd: int) -> os.stat_result:
        """Return the status of an open file."""
        return os.fstat(fd)

    #: Return the status of a file or folder, following symbolic links. Not wrapped in a method,
    #: because a cached pull consists of little else.
    stat = staticmethod(os.stat)

    def utime(self, fd: int) -> None:
        """Set the time of modification of an open file to now."""
        os.utime(fd)

    def statvfs(self, path: str) -> os.statvfs_result:
        """Return the size of the file system of a path, and what is free."""
        return os.statvfs(path)

    def realpath(self, path: str) -> str:
        """Resolve symbolic links."""
        return os.path.realpath(path)

    def scandir(self, path: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Iterate over the entries of a folder."""
        return os.scandir(path)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """Make a folder with those of some permissions that the umask permits."""
        os.mkdir(path, mode)

    def inherit_owner(self, fd: int, folder: str) -> None:
        """Give an open new file to the owner of its folder, if this process is root."""
        inherit_owner(fd, folder)

    def inherit_folder_owner(self, path: str) -> None:
        """Give a new folder to the owner of the one above it, if this process is root."""
        inherit_directory_owner(path)

    def rmdir(self, path: str) -> None:
        """Delete an empty folder."""
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        """Delete a file or a symbolic link."""
        os.unlink(path)

    def rename(self, source: str, destination: str) -> None:
        """Rename atomically, replacing a file."""
        os.rename(source, destination)

    def link(self, source: str, destination: str) -> None:
        """Add a name to a file; fail if the name exists."""
        os.link(source, destination)
