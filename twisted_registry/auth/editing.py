"""Changing an htpasswd file beside registries that read it. All of it blocks.

One change at a time, and a reader meets the old file or the new one, whole: a change is written
beside the file, synced, and renamed over it.
"""

# Files of secrets are made with the calls that say how.
# ruff: noqa: PTH103, PTH104, PTH108, PTH116, PTH120, PTH123

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOCK_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def edit_file(path: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file, which is made if it is missing; readable by its owner alone then.

    :param change: the new content, from the old one; what it raises leaves the file as it is.
    :raises OSError: if it can not be read or written.
    """
    full = os.path.realpath(path)
    with _locked_directory(_folder(full)):
        content, found = b"", None
        with suppress(FileNotFoundError), open(full, "rb") as file:
            content, found = file.read(), os.fstat(file.fileno())
        changed = change(content)
        if found is None or changed != content:
            with temporary_file(full, changed) as hidden:
                if found is not None:
                    _copy_owner_and_mode(hidden, found)
                os.rename(hidden, full)


@contextmanager
def temporary_file(path: str, content: bytes) -> Iterator[str]:
    """A new, synced file with some content, of a hidden name, readable by its owner alone.

    The block may rename it; else it is removed.
    """
    hidden = os.path.join(_folder(path), f".{os.path.basename(path)}.{token_hex(8)}")  # noqa: PTH118, PTH119
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        yield hidden
    finally:
        with suppress(FileNotFoundError):
            os.unlink(hidden)


def with_entry(content: bytes, name: bytes, hashed: bytes) -> bytes:
    """The content with another hash for a name: in its place, or as a new line at the end."""
    entry = b"%s:%s\n" % (name, hashed)
    lines = _lines(content)
    places = [place for place, line in enumerate(lines) if _name(line) == name]
    if not places:
        return b"".join([*lines, entry])
    # The last of a name counts; that there is one is enough.
    lines[places[-1]] = entry
    return b"".join(line for place, line in enumerate(lines) if place not in places[:-1])


def without_entry(content: bytes, name: bytes) -> bytes:
    """The content without the lines of a name."""
    return b"".join(line for line in _lines(content) if _name(line) != name)


def has_entry(content: bytes, name: bytes) -> bool:
    """Whether there is a line of a name."""
    return any(_name(line) == name for line in _lines(content))


def _lines(content: bytes) -> list[bytes]:
    # The last line may lack its end: what Distribution makes does.
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [line + b"\n" for line in lines]


def _name(line: bytes) -> bytes | None:
    """The name of an entry; None for a comment, and for what is no entry."""
    name, colon, _ = line.strip().partition(b":")
    return name if colon and not name.startswith(b"#") else None


def _folder(path: str) -> str:
    return os.path.dirname(path) or "."


def _copy_owner_and_mode(path: str, found: os.stat_result) -> None:
    """Give a file the owner and permissions of another."""
    made = os.stat(path)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        os.chown(path, found.st_uid, found.st_gid)
    os.chmod(path, found.st_mode & 0o777)  # noqa: PTH101


@contextmanager
def _locked_directory(folder: str) -> Iterator[None]:
    """Alone in a folder, among those who ask; what was renamed in it lasts at the end."""
    os.makedirs(folder, 0o700, exist_ok=True)
    fd = os.open(folder, _LOCK_FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        os.fsync(fd)
    finally:
        os.close(fd)
