"""The lines of an htpasswd file: a name and the bcrypt hash of a password on each.

Apache's ``htpasswd -B`` writes them, and so do we. The other hashes that Apache knows are weak, and
nobody's password here, as in Distribution.

Changing an htpasswd file beside registries that read it. All of it blocks.

One change at a time, and a reader meets the old file or the new one, whole: a change is written
beside the file, synced, and renamed over it.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Bytes of a password that bcrypt looks at.
MAX_PASSWORD_BYTES = 72
#: Version, cost, salt and hash; 2 stands for 2a, and all versions for one algorithm.
_BCRYPT = re.compile(rb"\$2[abxy]?\$(\d\d)\$[./A-Za-z0-9]{53}")


class HtpasswdInvalid(Exception):
    """The file can not be read as an htpasswd file; the text says where, without a hash."""


@frozen
class HtpasswdUsers:
    """What a file says.

    :ivar hashes: the bcrypt hash of each name.
    :ivar ignored: lines whose name or hash is of no use.
    """

    hashes: Mapping[bytes, bytes] = field(repr=False)
    ignored: int = 0

    @property
    def cost(self) -> int:
        """The highest binary logarithm of rounds among the hashes; 10, the usual one, for none."""
        return max((cost_of(each) for each in self.hashes.values()), default=10)


def parse_htpasswd(content: bytes) -> HtpasswdUsers:
    """Read a file. Blank lines and such that begin with ``#`` are skipped; the last of a name wins.

    :raises HtpasswdInvalid: if a line has no colon.
    """
    hashes: dict[bytes, bytes] = {}
    ignored = 0
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
            ignored += 1
    return HtpasswdUsers(hashes, ignored)


def is_user_name(name: bytes) -> bool:
    """Whether somebody can be called so: printable text, without a colon."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.isprintable() and text == text.strip() != "" and ":" not in text


def cost_of(hashed: bytes) -> int:
    """The binary logarithm of the rounds of a hash that :func:`parse_htpasswd` took."""
    found = _BCRYPT.fullmatch(hashed)
    assert found is not None
    return int(found[1])


# Files of secrets are made with the calls that say how.
# ruff: noqa: PTH103, PTH104, PTH108, PTH116, PTH120, PTH123


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
