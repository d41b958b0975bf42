"""One writer at a time: the lock of a file that is being written.

The lock is flock's, on the data file itself: it goes with its holder, so that nothing is left
to clean up after a crash, and it follows the file when that is moved.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted_registry.storage.filetree import ATTEMPTS
from twisted_registry.storage.interfaces import OffsetInvalid, WriterBusy

if TYPE_CHECKING:
    from twisted_registry.storage.filetree import FileTree


def open_for_writing(tree: FileTree, path: str, offset: int | None) -> tuple[int, int]:
    """Open and lock a file, which is made if nothing is expected in it. Blocks.

    :returns: its descriptor, which carries the lock, and its size.
    :raises OffsetInvalid: if it has another size than ``offset``.
    :raises WriterBusy: if another writer has the lock.
    """
    full = tree.full(path)
    flags = os.O_RDWR | (0 if offset else os.O_CREAT)
    for _ in range(ATTEMPTS):
        try:
            if offset:
                fd = tree.files.open(full, flags)
            else:
                fd = tree.in_folder(path, lambda: tree.files.open(full, flags))
        except FileNotFoundError as error:
            raise OffsetInvalid(path, "is not there", size=0) from error
        try:
            size = _lock(tree, path, fd, offset)
        except BaseException:
            tree.files.close(fd)
            raise
        if size is not None:
            return fd, size
        tree.files.close(fd)
    raise WriterBusy(path, "is replaced again and again")


def _lock(tree: FileTree, path: str, fd: int, offset: int | None) -> int | None:
    """Lock an open file and answer its size; None if the path names another file by now."""
    try:
        tree.files.lock(fd)
    except BlockingIOError as error:
        raise WriterBusy(path) from error
    if not is_still(tree, path, fd):
        return None
    size = tree.files.fstat(fd).st_size
    if offset is not None and offset != size:
        raise OffsetInvalid(path, f"ends at {size}", size=size)
    return size


def is_still(tree: FileTree, path: str, fd: int) -> bool:
    """Whether the path still names the open file."""
    mine = tree.files.fstat(fd)
    try:
        named = tree.files.stat(tree.full(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)
