"""Space and inodes of a disk that are kept back for what frees space.

Deleting needs some space itself: a list, a record of a lease, a folder of the trash. The reserve is
a folder of small files. When such a write finds the disk full, the files are deleted one at a time
until the write succeeds. They are made again when there is space.

All methods block: call them on a thread. Several processes may use the reserve of one store.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.logger import Logger

from twisted_registry.storage.filesystem.oscalls import DISK_FULL_ERRNOS
from twisted_registry.storage.filesystem.tree import (
    PRIVATE_FILE_MODE,
    PRIVATE_FOLDER,
    PRIVATE_FOLDER_MODE,
)

if TYPE_CHECKING:
    from twisted_registry.storage.filesystem.oscalls import OSCalls

log = Logger()

#: Paths cannot name it, because of the dot.
RESERVE_FOLDER = f"{PRIVATE_FOLDER}/.reserve"
#: Files of the reserve, so that as many inodes are kept back.
_MAX_PIECES = 128
_MIN_PIECES = 8
#: The reserve takes at most this part of the blocks and inodes of a disk.
_DISK_DIVISOR = 50
_BLOCK_BYTES = 4096
#: The unit of ``st_blocks``.
_STAT_BLOCK_BYTES = 512
#: posix_fallocate() is not supported here.
_UNSUPPORTED_ERRNOS = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@define(eq=False)
class Reserve:
    """The reserve of one root folder.

    :ivar root: the absolute path of the root folder, which must exist when the reserve is made.
    :ivar files: the operating system.
    :ivar max_bytes: the size of the reserve; less on a small disk, see :meth:`refill`.
    """

    root: str
    files: OSCalls
    max_bytes: int
    _is_logged: bool = field(init=False, default=False)

    def release(self) -> bool:
        """Delete one file; return whether there was one."""
        for name in sorted(self._names() or ()):
            with suppress(FileNotFoundError):
                self.files.unlink(f"{self._folder}/{name}")
                self._commit()
                if not self._is_logged:
                    self._is_logged = True
                    log.warn("disk is full, the reserve is used path={path}", path=self._folder)
                return True
        return False

    def refill(self, *, create: bool = True) -> bool:
        """Make the files that are missing, as far as there is space.

        The reserve has at most a fiftieth of the blocks and inodes of the disk.

        :param create: whether to make a reserve if there never was one.
        :returns: whether the reserve is complete.
        :raises OSError: if that fails for another reason than a full disk.
        """
        present = self._names()
        if present is None and not create:
            return True
        pieces, size = self._plan()
        present = present or set()
        missing = [name for name in map(_piece_name, range(pieces)) if name not in present]
        try:
            if missing:
                self._make_folders()
            for name in missing:
                self._make_piece(f"{self._folder}/{name}", size)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            return False
        self._is_logged = False
        return True

    @property
    def _folder(self) -> str:
        return f"{self.root}/{RESERVE_FOLDER}"

    def _plan(self) -> tuple[int, int]:
        """Return the number of files and the bytes of each."""
        disk = self.files.statvfs(self.root)
        total = min(self.max_bytes, disk.f_blocks * disk.f_frsize // _DISK_DIVISOR)
        pieces = _MAX_PIECES
        if disk.f_files:
            pieces = max(_MIN_PIECES, min(pieces, disk.f_files // _DISK_DIVISOR))
        blocks = max(1, total // pieces // _BLOCK_BYTES)
        return pieces, blocks * _BLOCK_BYTES

    def _names(self) -> set[str] | None:
        """Return the names of the files; None if there is no reserve."""
        try:
            with self.files.scandir(self._folder) as entries:
                return {entry.name for entry in entries}
        except FileNotFoundError:
            return None

    def _make_folders(self) -> None:
        for folder in (os.path.dirname(self._folder), self._folder):  # noqa: PTH120
            with suppress(FileExistsError):
                self.files.mkdir(folder, PRIVATE_FOLDER_MODE)

    def _make_piece(self, path: str, size: int) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            fd = self.files.open(path, flags, PRIVATE_FILE_MODE)
        except FileExistsError:
            # Another process makes it.
            return
        try:
            self._fill(fd, size)
        except BaseException:
            self.files.unlink(path)
            raise
        finally:
            self.files.close(fd)

    def _fill(self, fd: int, size: int) -> None:
        """Allocate blocks to a new file."""
        with suppress(AttributeError):
            try:
                self.files.allocate(fd, size)
            except OSError as error:
                if error.errno not in _UNSUPPORTED_ERRNOS:
                    raise
            else:
                # Where it is not supported, the C library writes zeros.
                if self.files.fstat(fd).st_blocks * _STAT_BLOCK_BYTES >= size:
                    return
        # Random, because zeros take no space on a file system that compresses.
        rest = memoryview(os.urandom(size))
        offset = 0
        while rest:
            taken = self.files.pwrite(fd, rest, offset)
            rest, offset = rest[taken:], offset + taken

    def _commit(self) -> None:
        """Make the deletion durable: some file systems free the blocks only then."""
        with suppress(OSError):
            fd = self.files.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self.files.fsync(fd)
            finally:
                self.files.close(fd)


def _piece_name(number: int) -> str:
    return f"{number:03d}"
