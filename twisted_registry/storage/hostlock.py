"""Locks between the processes of one host: flock on one of a bounded number of empty files.

A lock goes with its holder, however that ends. Taking a free one is three calls that touch no
disk, so it is done on the reactor's thread; one that is taken is asked for again and again, so that
waiting costs no thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from zlib import crc32

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.filetree import FileTree

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
    def acquire(self, name: str) -> Generator[Any, Any, Callable[[], object] | None]:
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
        return self.tree.retry_with_parents(path, lambda: self.tree.files.open(os_path, os.O_RDWR | os.O_CREAT))
