"""htpasswd files: a user name and the bcrypt hash of a password on each line.

Apache's ``htpasswd -B`` and the command ``registry user`` write them. As in Distribution, lines
with one of Apache's other, weak hashes are ignored.

:func:`edit_file` changes a file while registries read it. It locks the directory, so that two
editors exclude each other, and replaces the file atomically. It blocks.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from twisted_registry.storage.files import exclusive_lock, fsync_directory, temporary_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Bytes of a password that bcrypt uses.
MAX_PASSWORD_BYTES = 72
#: Lines that a warning names.
_MAX_NAMED_LINES = 5
#: The permissions of a new file in a directory with the set-group-ID bit.
_SHARED_MODE = 0o640
#: Version, cost, salt and hash. The versions 2, 2a, 2b, 2x and 2y name the same algorithm.
_BCRYPT = re.compile(rb"\$2[abxy]?\$(\d\d)\$[./A-Za-z0-9]{53}")


class HtpasswdInvalid(Exception):
    """The file is not an htpasswd file; the text names the line and contains no hash."""


@frozen
class HtpasswdUsers:
    """The parsed content of a file.

    :ivar hashes: the bcrypt hash of each user, by name.
    :ivar ignored: the numbers of the lines with an invalid name or hash, from 1.
    """

    hashes: Mapping[bytes, bytes] = field(repr=False)
    ignored: tuple[int, ...] = ()

    def describe_ignored(self) -> str:
        """Return which lines are ignored, the first of many: ``line 2``, ``lines 2, 5``."""
        more = ", ..." if len(self.ignored) > _MAX_NAMED_LINES else ""
        numbers = ", ".join(map(str, self.ignored[:_MAX_NAMED_LINES]))
        return f"{'line' if len(self.ignored) == 1 else 'lines'} {numbers}{more}"

    @property
    def cost(self) -> int:
        """The highest cost among the hashes (the binary logarithm of the rounds); 10 if empty."""
        return max((cost_of(each) for each in self.hashes.values()), default=10)


def parse_htpasswd(content: bytes) -> HtpasswdUsers:
    """Parse a file. Of several lines for a name the last counts.

    Empty lines and comments are skipped.

    :raises HtpasswdInvalid: if a line has no colon.
    """
    hashes: dict[bytes, bytes] = {}
    ignored = []
    for number, line in enumerate(content.split(b"\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        name, colon, hashed = stripped.partition(b":")
        if not colon:
            raise HtpasswdInvalid(f"line {number}: expected NAME:HASH")
        hashes.pop(name, None)
        if is_user_name(name) and _BCRYPT.fullmatch(hashed):
            hashes[name] = hashed
        else:
            ignored.append(number)
    return HtpasswdUsers(hashes, tuple(ignored))


def is_user_name(name: bytes) -> bool:
    """Return whether a name is valid: printable UTF-8 without a colon and surrounding spaces."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.isprintable() and text == text.strip() != "" and ":" not in text


def cost_of(hashed: bytes) -> int:
    """Return the cost of a valid hash (the binary logarithm of the rounds)."""
    match = _BCRYPT.fullmatch(hashed)
    assert match is not None
    return int(match[1])


def edit_file(path: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file. A missing one is created, readable only by its owner.

    In a directory with the set-group-ID bit the group may read it too: that is how an
    administrator shares such files with a service.

    A symbolic link is followed. Owner and permissions of an existing file are kept.

    :param change: returns the new content for the old one. If it raises, the file is unchanged.
    :raises OSError: if the file cannot be read or written.
    """
    target = Path(path).resolve()
    directory = target.parent
    directory.mkdir(0o700, parents=True, exist_ok=True)
    with exclusive_lock(str(directory)):
        content, status = b"", None
        with suppress(FileNotFoundError), target.open("rb") as file:
            content, status = file.read(), os.fstat(file.fileno())
        changed = change(content)
        if status is None or changed != content:
            with temporary_file(str(target), changed) as hidden:
                if status is not None:
                    _copy_owner_and_mode(Path(hidden), status)
                elif directory.stat().st_mode & stat.S_ISGID:
                    Path(hidden).chmod(_SHARED_MODE)
                Path(hidden).rename(target)
        fsync_directory(str(directory))


def remove_entry(path: str, name: bytes, check: Callable[[bytes], object]) -> None:
    """Remove the lines of a name from a file.

    If there is no space for a new file, the lines are overwritten and become comments.

    :param check: called with the content; if it raises, the file is unchanged.
    :raises OSError: if the file cannot be read or written.
    """

    def change(content: bytes) -> bytes:
        check(content)
        return without_entry(content, name)

    try:
        edit_file(path, change)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        target = Path(path).resolve()
        with exclusive_lock(str(target.parent)), target.open("r+b", buffering=0) as file:
            _blank_entry(file.fileno(), name)


def _blank_entry(descriptor: int, name: bytes) -> None:
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    offset = 0
    for line in _split_lines(content):
        if _entry_name(line) == name:
            # The first byte makes it a comment at once, whatever becomes of the rest.
            os.pwrite(descriptor, b"#", offset)
            os.pwrite(descriptor, b"#" * len(line.rstrip(b"\n")), offset)
        offset += len(line)
    os.fsync(descriptor)


def _copy_owner_and_mode(path: Path, status: os.stat_result) -> None:
    own = path.stat()
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.chown(path, status.st_uid, status.st_gid)
    path.chmod(status.st_mode & 0o777)


def with_entry(content: bytes, name: bytes, hashed: bytes) -> bytes:
    """Return the content with the hash of a name replaced, or with a new line at the end."""
    entry = b"%s:%s\n" % (name, hashed)
    lines = _split_lines(content)
    places = [place for place, line in enumerate(lines) if _entry_name(line) == name]
    if not places:
        return b"".join([*lines, entry])
    # The last line for a name counts, so the earlier ones are dropped.
    lines[places[-1]] = entry
    return b"".join(line for place, line in enumerate(lines) if place not in places[:-1])


def without_entry(content: bytes, name: bytes) -> bytes:
    """Return the content without the lines of a name."""
    return b"".join(line for line in _split_lines(content) if _entry_name(line) != name)


def has_entry(content: bytes, name: bytes) -> bool:
    """Return whether a line has this name."""
    return any(_entry_name(line) == name for line in _split_lines(content))


def _split_lines(content: bytes) -> list[bytes]:
    # Distribution writes the last line without a line feed.
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [line + b"\n" for line in lines]


def _entry_name(line: bytes) -> bytes | None:
    """Return the name of an entry; None for comments and other lines."""
    name, colon, _ = line.strip().partition(b":")
    return name if colon and not name.startswith(b"#") else None
