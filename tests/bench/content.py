"""The content that is pushed: incompressible bytes that are cheap to make."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

from attrs import frozen

from tests.bench.wire import MIB, Connection, with_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOISE = random.Random("bench").randbytes(MIB)
OCTETS = {"Content-Type": "application/octet-stream"}


@frozen
class Blob:
    """Bytes in parts, and their digest."""

    parts: Sequence[bytes]
    digest: str

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class Maker:
    """Makes blobs of one size that differ only in their last 16 bytes.

    What they share is hashed once, so that a client hashes next to nothing while it is timed.

    :param size: of each blob, in bytes; 16 at least.
    """

    def __init__(self, size: int) -> None:
        whole, rest = divmod(size - 16, MIB)
        self._shared = [NOISE] * whole + ([NOISE[:rest]] if rest else [])
        self._hash = hashlib.sha256()
        for part in self._shared:
            self._hash.update(part)

    def make(self, mark: str) -> Blob:
        """Return the blob for ``mark``; equal marks give equal blobs."""
        last = hashlib.md5(mark.encode()).digest()
        running = self._hash.copy()
        running.update(last)
        return Blob([*self._shared, last], f"sha256:{running.hexdigest()}")


def steps(connection: Connection, repository: str, blob: Blob) -> Iterator[tuple[int, int]]:
    """Push a blob as Docker does: POST, one PATCH, PUT. Yield (status, expected status)."""
    answer = connection.ask("POST", f"/v2/{repository}/blobs/uploads/")
    yield answer.status, 202
    target = with_query(answer.header("Location"), "")
    answer = connection.ask("PATCH", target, OCTETS, blob.parts)
    yield answer.status, 202
    target = with_query(answer.header("Location"), f"digest={blob.digest}")
    answer = connection.ask("PUT", target)
    yield answer.status, 201


def push(connection: Connection, repository: str, blob: Blob) -> str:
    """Push a blob; return ``""`` or an error message."""
    for status, wanted in steps(connection, repository, blob):
        if status != wanted:
            return f"a push was answered {status} instead of {wanted}"
    return ""
