"""Atomic replacement, locks and versions of single local files.

For files outside a store: secrets, certificates, lists of users. All functions block: call them on
a thread, or before the reactor runs.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def temporary_file(path: str, content: bytes, mode: int = 0o600) -> Iterator[str]:
    """Write a new hidden file beside ``path``, fsync it and yield its name.

    The block can rename or link the file. If it is still there afterwards it is deleted.

    :param mode: the permissions of the file.
    :raises OSError: if the file cannot be written.
    """
    target = Path(path)
    hidden = str(target.with_name(f".{target.name}.{token_hex(8)}"))
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield hidden
    finally:
        Path(hidden).unlink(missing_ok=True)


def replace_file(path: str, content: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically and durably: readers find the old content or the new one.

    :param mode: the permissions of the new file.
    :raises OSError: if the file cannot be replaced; the old one is unchanged then.
    """
    with temporary_file(path, content, mode) as hidden:
        Path(hidden).rename(path)
    fsync_directory(str(Path(path).parent))


def make_private_directories(path: Path) -> None:
    """Make a directory, and those above it that are missing, accessible to their owner only.

    If this process is root, each belongs to the owner of the one above it.

    :raises OSError: if one cannot be made.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(0o700, exist_ok=True)
        inherit_directory_owner(str(each))


def inherit_owner(descriptor: int, directory: str) -> None:
    """Give an open new file to the owner of its directory if this process is root.

    So a command that root runs makes nothing that the serving user cannot read. Where that is not
    possible the file stays as it is.
    """
    if os.geteuid() != 0:
        return
    with suppress(OSError):
        above = Path(directory).stat()
        if above.st_uid != 0:
            # Not by its name: the owner of the directory could put another file there.
            os.fchown(descriptor, above.st_uid, above.st_gid)


def inherit_directory_owner(path: str) -> None:
    """Do the same with a new directory."""
    if os.geteuid() != 0:
        return
    with suppress(OSError):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            inherit_owner(descriptor, str(Path(path).parent))
        finally:
            os.close(descriptor)


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(path: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the ``flock`` of a directory, or of a lock file that is created if it is missing.

    :param wait: whether to wait until the lock is free.
    :returns: yields whether the lock is held; it always is with ``wait``.
    :raises OSError: if the path cannot be opened or locked.
    """
    flags = os.O_RDONLY if Path(path).is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        acquired = False
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            acquired = True
        yield acquired
    finally:
        os.close(descriptor)


def version_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what distinguishes one version of a file from another, without reading it."""
    return (
        *(status.st_dev, status.st_ino),
        *(status.st_mtime_ns, status.st_ctime_ns, status.st_size),
    )


def file_version(path: str) -> object:
    """Return the version of a file; the errno if it cannot be found."""
    try:
        return version_of(Path(path).stat())
    except OSError as error:
        return error.errno
