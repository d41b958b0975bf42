"""Locks between the processes of one host, by ``flock``; a lock ends with its process.

:class:`HostLocks` are locks on a fixed number of empty files. Taking a free one is three calls that
do not access the disk, so it is done on the reactor's thread. A lock that is taken is polled, so
that waiting blocks no thread.

The lock of a file that is being written (:func:`open_for_writing`) is on the data file itself, so a
crash leaves nothing to clean up, and the lock follows the file when it is moved.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from zlib import crc32

from attrs import define
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from twisted_registry.storage.filesystem.oscalls import translate_oserror
from twisted_registry.storage.filesystem.tree import (
    MAX_ATTEMPTS,
    PRIVATE_FILE_MODE,
    PRIVATE_FOLDER,
    file_identity,
)
from twisted_registry.storage.interfaces import (
    OffsetInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.filesystem.tree import FileTree
    from twisted_registry.storage.threads import Threads

#: Paths cannot name it, because of the dot.
_LOCK_FOLDER = f"{PRIVATE_FOLDER}/.locks"
#: Several names share a file; their holders only wait longer.
_MAX_LOCK_FILES = 256
#: Time between two attempts; it is doubled after each.
_FIRST_RETRY_S = 0.001
_MAX_RETRY_S = 0.02
#: Time after which waiting fails.
_TIMEOUT_S = 30.0


@define(eq=False)
class HostLocks:
    """The locks of one root folder.

    :ivar tree: the files below it.
    :ivar clock: when to retry.
    :ivar threads: where a missing lock file is made.
    """

    tree: FileTree
    clock: IReactorTime
    threads: Threads

    @inlineCallbacks
    def acquire(self, name: str) -> Generator[Any, Any, Callable[[], object]]:
        """Wait until the lock of a name is free, and take it.

        :returns: fires with a function that releases it.
        :raises StorageError: if it is not free within 30 s.
        """
        path = f"{_LOCK_FOLDER}/{crc32(name.encode()) % _MAX_LOCK_FILES:02x}"
        os_path = self.tree.os_path(path)
        files = self.tree.files
        try:
            fd = files.open(os_path, os.O_RDWR)
        except OSError:
            # It does not exist yet. _make() raises any other error again.
            fd = yield self.threads.run_blocking(self._make, path, undo=files.close)
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
                    raise StorageError(path, "is locked by another process for too long") from error
            else:
                return
            yield deferLater(self.clock, pause)
            pause = min(2 * pause, _MAX_RETRY_S)

    def _make(self, path: str) -> int:
        os_path = self.tree.os_path(path)
        files = self.tree.files

        def attempt() -> int:
            fd = files.open(os_path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE)
            files.inherit_owner(fd, self.tree.os_path(_LOCK_FOLDER))
            return fd

        try:
            return self.tree.retry_with_parents(path, attempt)
        except OSError as error:
            raise translate_oserror(error, path) from error


def open_for_writing(
    tree: FileTree, path: str, offset: int | None, present: str | None, absent: str | None
) -> tuple[int, int]:
    """Open and lock a file, and make it if ``offset`` permits an empty one. Blocks.

    :param offset: see :meth:`.IStorageDriver.writer`, as for the other arguments.
    :returns: the descriptor, which has the lock, and the size.
    :raises OffsetInvalid: if the size is not ``offset``.
    :raises WriterBusy: if the file is locked.
    :raises PathNotFound: if ``present`` or ``absent`` is not as required.
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
    raise WriterBusy(path, "is replaced repeatedly while it is being locked")


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
    """Lock an open file and return its size; None if the path names another file now."""
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
        # It is still locked, so no other writer has it.
        with suppress(FileNotFoundError):
            tree.files.unlink(tree.os_path(path))
    raise PathNotFound(path, "must not be written because of the files beside it")


def _exists(tree: FileTree, path: str) -> bool:
    try:
        tree.stat(path)
    except PathNotFound:
        return False
    return True


def is_same_file(tree: FileTree, path: str, fd: int) -> bool:
    """Return whether the path still names the open file."""
    return _path_names(tree, path, tree.files.fstat(fd))


def _path_names(tree: FileTree, path: str, mine: os.stat_result) -> bool:
    try:
        named = tree.files.stat(tree.os_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return file_identity(mine) == file_identity(named)
