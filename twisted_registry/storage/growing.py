"""A file that grows, as a thread sees it: one call at a time, and each may wait for the disk.

What fails is taken back: the file is cut to what was stored before it, and the observer has not
seen it. When a sync fails the file is cut to what was synced here, be that nothing: what was found
may be lost as well.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from twisted_registry.storage.filelock import is_same_file
from twisted_registry.storage.fileops import translate_oserror
from twisted_registry.storage.newfile import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.storage.filetree import FileTree
    from twisted_registry.storage.interfaces import Change

#: Bytes after which the disk is told to begin.
_WRITEBACK_BYTES = 8 * 1024 * 1024
#: Pieces of less than this are copied together, to be written at once.
SMALL_WRITE_BYTES = 64 * 1024


class AppendFile:
    """An open, locked file.

    :ivar fd: its descriptor.
    :ivar stored: bytes that are in it.
    :ivar entry_lasts: whether its name was made to last.
    :ivar removing: whether it is to be removed when it is released.
    :ivar is_freed: whether it is closed, or that was tried.
    """

    def __init__(
        self,
        tree: FileTree,
        path: str,
        fd: int,
        size: int,
        observe: Callable[[bytes], object] | None,
    ) -> None:
        """Take over a descriptor.

        :param size: bytes that are in the file.
        :param observe: shown what is stored, in order.
        """
        self._tree = tree
        self._path = path
        self.fd = fd
        self._observe = observe
        self.stored = size
        #: bytes that were in it when it was synced last
        self._synced_size = 0
        self.entry_synced = False
        self.removing = False
        self.is_freed = False

    def append(self, batch: list[bytes]) -> None:
        """Store pieces, and show them to the observer."""
        if sum(map(len, batch)) < SMALL_WRITE_BYTES * len(batch):
            batch = [b"".join(batch)]
        for piece in batch:
            self.append_piece(piece)

    def append_piece(self, data: bytes) -> None:
        """Store a piece as it is, and show it to the observer."""
        before = self.stored
        try:
            write_all(self._tree.files, self.fd, data, before)
            if self._observe is not None:
                self._observe(data)
        except BaseException:
            self._truncate(before)
            raise
        self.stored += len(data)
        begun, ready = before // _WRITEBACK_BYTES * _WRITEBACK_BYTES, self.stored // _WRITEBACK_BYTES * _WRITEBACK_BYTES
        if begun != ready:
            # So that little is left to be waited for at the end.
            self._tree.files.start_writeback(self.fd, begun, ready - begun)

    def fsync_content(self) -> None:
        """Let what is stored survive a power cut."""
        try:
            self._tree.files.fsync(self.fd)
        except OSError:
            # The kernel reports lost pages once and then calls them clean: a second fsync would
            # succeed with a hole in the file.
            self._truncate(self._synced_size)
            raise
        self._synced_size = self.stored

    def fsync_entry(self) -> None:
        """Let its name survive a power cut."""
        self._tree.dir_syncer.fsync_entries((self._path,))
        self.entry_synced = True

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Exception | None:
        """Make the changes that are decided on; answer what kept them from being made."""
        try:
            self._tree.change(decide(self.stored))
        except OSError as error:
            return translate_oserror(error, self._path)
        except Exception as error:  # noqa: BLE001 (whatever it is, whoever decides is to hear of it)
            return error
        return None

    def _truncate(self, size: int) -> None:
        with suppress(OSError):
            self._tree.files.truncate(self.fd, size)
            self.stored = size

    def release(self) -> None:
        """Unlock it, and remove it if that is wanted.

        :raises StorageError: if that fails; it is unlocked all the same.
        """
        try:
            try:
                if self.removing and is_same_file(self._tree, self._path, self.fd):
                    self._tree.files.unlink(self._tree.os_path(self._path))
            finally:
                self.is_freed = True
                self._tree.files.close(self.fd)
        except OSError as error:
            raise translate_oserror(error, self._path) from error
