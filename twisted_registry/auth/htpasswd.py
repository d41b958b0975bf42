"""The lines of an htpasswd file: a name and the bcrypt hash of a password on each.

Apache's ``htpasswd -B`` writes them, and so do we. The other hashes that Apache knows are weak, and
nobody's password here, as in Distribution.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

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
