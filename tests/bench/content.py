"""The content that is pushed: incompressible bytes that are cheap to make."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

from attrs import frozen

from tests.bench.wire import MIB, Connection, RedirectedConnections, with_query

if TYPE_CHECKING:
    from collections.abc import Sequence

NOISE = random.Random("bench").randbytes(MIB)
OCTET_STREAM = {"Content-Type": "application/octet-stream"}


@frozen
class Blob:
    """Bytes in parts, and their digest."""

    parts: Sequence[bytes]
    digest: str

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class BlobMaker:
    """Makes blobs of one size that differ only in their last 16 bytes.

    The common part is hashed once, so that a client hashes little while it is timed.

    :param size: size of each blob in bytes, at least 16.
    """

    def __init__(self, size: int) -> None:
        whole, rest = divmod(size - 16, MIB)
        self._shared = [NOISE] * whole + ([NOISE[:rest]] if rest else [])
        self._hash = hashlib.sha256()
        for part in self._shared:
            self._hash.update(part)

    def make(self, label: str) -> Blob:
        """Return the blob for ``label``; equal labels give equal blobs."""
        last = hashlib.md5(label.encode()).digest()
        running = self._hash.copy()
        running.update(last)
        return Blob([*self._shared, last], f"sha256:{running.hexdigest()}")


def push(connection: Connection, repository: str, blob: Blob) -> str:
    """Push a blob as Docker does: POST, one PATCH, PUT; return ``""`` or an error message."""
    location = f"/v2/{repository}/blobs/uploads/"
    for method, query, parts, expected in (
        ("POST", "", (), 202),
        ("PATCH", "", blob.parts, 202),
        ("PUT", f"digest={blob.digest}", (), 201),
    ):
        headers = OCTET_STREAM if method == "PATCH" else {}
        response = connection.request(method, with_query(location, query), headers, parts)
        if response.status != expected:
            return f"a push was answered {response.status} instead of {expected}"
        location = response.header("Location")
    return ""


def check_blob(server, repository: str, blob: Blob) -> str:
    """Pull a blob, following a redirect; return ``""`` or an error message."""
    hashed = hashlib.sha256()
    target = f"/v2/{repository}/blobs/{blob.digest}"
    with Connection(server.url, server.headers) as connection, RedirectedConnections() as places:
        seen = places.fetch(connection, target, hashed.update)
    if seen.status != 200:
        return f"status {seen.status} instead of 200"
    is_right = seen.size == blob.size and f"sha256:{hashed.hexdigest()}" == blob.digest
    return "" if is_right else "a body that differs"
