"""Locks between the processes of one host: flock on one of a bounded number of empty files.

A lock goes with its holder, however that ends. Taking a free one is three calls that touch no
disk, so it is done on the reactor's thread; one that is taken is asked for again and again, so that
waiting costs no thread.

One writer at a time: the lock of a file that is being written.

The lock is flock's, on the data file itself: it goes with its holder, so that nothing is left
to clean up after a crash, and it follows the file when that is moved.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from zlib import crc32

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from twisted_registry.storage.filesystem.tree import MAX_ATTEMPTS
from twisted_registry.storage.interfaces import (
    OffsetInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.filesystem.tree import FileTree

#: A name with a dot: no path leads there.
_LOCK_FOLDER = "twisted-registry/.locks"
#: Names that fall on the same file wait for each other, which does no harm.
_MAX_LOCK_FILES = 256
#: Seconds between two attempts, at first and at last.
_FIRST_RETRY_S = 0.001
_MAX_RETRY_S = 0.02
#: Seconds until a holder is given up for stuck.
_TIMEOUT_S = 30.0


class HostLocks:
    """The locks of one root folder.

    :ivar tree: where the files are.
    :ivar clock: when to ask again.
    :ivar run: makes a call for a path on a thread.
    """

    def __init__(
        self, tree: FileTree, clock: IReactorTime, run_blocking: Callable[..., Deferred[int]]
    ) -> None:
        self.tree = tree
        self.clock = clock
        self.run_blocking = run_blocking

    @inlineCallbacks
    def acquire(self, name: str) -> Generator[Any, Any, Callable[[], object]]:
        """Fire with what lets go, once nobody else has the lock of a name.

        :raises StorageError: if somebody has had it for 30 s.
        """
        path = f"{_LOCK_FOLDER}/{crc32(name.encode()) % _MAX_LOCK_FILES:02x}"
        os_path = self.tree.os_path(path)
        files = self.tree.files
        try:
            fd = files.open(os_path, os.O_RDWR)
        except OSError:
            # It was never used. What else is wrong is told there.
            fd = yield self.run_blocking(path, self._make, path, undo=files.close)
        try:
            yield from self._lock(fd, path)
        except BaseException:
            files.close(fd)
            raise
        return lambda: files.close(fd)

    def _lock(self, fd: int, path: str) -> Generator[Any, Any, None]:
        last = self.clock.seconds() + _TIMEOUT_S
        pause = _FIRST_RETRY_S
        while True:
            try:
                self.tree.files.lock(fd)
            except BlockingIOError as error:
                if self.clock.seconds() >= last:
                    raise StorageError(path, "is held by another process for too long") from error
            else:
                return
            yield deferLater(self.clock, pause)
            pause = min(2 * pause, _MAX_RETRY_S)

    def _make(self, path: str) -> int:
        os_path = self.tree.os_path(path)
        return self.tree.retry_with_parents(
            path, lambda: self.tree.files.open(os_path, os.O_RDWR | os.O_CREAT)
        )


def open_for_writing(
    tree: FileTree, path: str, offset: int | None, present: str | None, absent: str | None
) -> tuple[int, int]:
    """Open and lock a file, which is made if nothing is expected in it. Blocks.

    :param present: a file beside it without which it is not opened, see ``IStorageDriver.writer``.
    :param absent: a file beside it with which it is not opened.
    :returns: its descriptor, which carries the lock, and its size.
    :raises OffsetInvalid: if it has another size than ``offset``.
    :raises WriterBusy: if another writer has the lock.
    :raises PathNotFound: if it is not to be opened.
    """
    for _ in range(MAX_ATTEMPTS):
        fd = _open(tree, path, offset, makes_folder=present is None)
        try:
            size = _lock(tree, path, fd, offset)
            if size is not None:
                _check_siblings(tree, path, size, present, absent)
        except BaseException:
            tree.files.close(fd)
            raise
        if size is not None:
            return fd, size
        tree.files.close(fd)
    raise WriterBusy(path, "is replaced again and again")


def _open(tree: FileTree, path: str, offset: int | None, *, makes_folder: bool) -> int:
    os_path = tree.os_path(path)
    flags = os.O_RDWR | (0 if offset else os.O_CREAT)
    try:
        if offset or not makes_folder:
            return tree.files.open(os_path, flags)
        return tree.retry_with_parents(path, lambda: tree.files.open(os_path, flags))
    except FileNotFoundError as error:
        if offset:
            raise OffsetInvalid(path, "is not there", size=0) from error
        raise PathNotFound(path, "has no folder") from error


def _lock(tree: FileTree, path: str, fd: int, offset: int | None) -> int | None:
    """Lock an open file and answer its size; None if the path names another file by now."""
    try:
        tree.files.lock(fd)
    except BlockingIOError as error:
        raise WriterBusy(path) from error
    mine = tree.files.fstat(fd)
    if not _path_names(tree, path, mine):
        return None
    if offset is not None and offset != mine.st_size:
        raise OffsetInvalid(path, f"ends at {mine.st_size}", size=mine.st_size)
    return mine.st_size


def _check_siblings(
    tree: FileTree, path: str, size: int, present: str | None, absent: str | None
) -> None:
    if (present is None or _exists(tree, present)) and (
        absent is None or not _exists(tree, absent)
    ):
        return
    if not size:
        # Still locked, so it is nobody else's.
        with suppress(FileNotFoundError):
            tree.files.unlink(tree.os_path(path))
    raise PathNotFound(path, "may not be written by what lies beside it")


def _exists(tree: FileTree, path: str) -> bool:
    try:
        tree.stat(path)
    except PathNotFound:
        return False
    return True


def is_same_file(tree: FileTree, path: str, fd: int) -> bool:
    """Whether the path still names the open file."""
    return _path_names(tree, path, tree.files.fstat(fd))


def _path_names(tree: FileTree, path: str, mine: os.stat_result) -> bool:
    try:
        named = tree.files.stat(tree.os_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)
