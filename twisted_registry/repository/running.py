"""Digests of uploads that are still growing.

hashlib can not save its state. So the process that takes an upload keeps the running hash in
memory, and a checkpoint beside the upload (the digest of everything so far) lets any other
process, or this one after a restart, close the upload without a second read as long as no
bytes were added without it. Whoever has neither reads the bytes once, at the end.
"""

from __future__ import annotations

import json
from collections import OrderedDict

from attrs import frozen

from twisted_registry.digest import Digest, hasher

#: Uploads whose running hash a process keeps; the one longest untouched is dropped.
_MAX_HASHES = 4096


class RunningHash:
    """A hash of the first ``size`` bytes of an upload.

    ``update`` runs on the thread that stores, one call at a time.

    :ivar mark: what the writer of these bytes called them: another history of the upload may be
        as long.
    """

    def __init__(self, algorithm: str, size: int = 0, mark: str = "") -> None:
        self.algorithm = algorithm
        self.size = size
        self.mark = mark
        self._hasher = hasher(algorithm)

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        self._hasher.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """The digest of everything so far."""
        return Digest.from_hasher(self._hasher)


@frozen
class Checkpoint:
    """The digest of an upload's first ``size`` bytes, as kept beside it.

    :ivar mark: what the writer of these bytes called them.
    """

    size: int
    digest: Digest
    mark: str = ""

    def to_bytes(self) -> bytes:
        """The content of the file."""
        document = {"size": self.size, "digest": str(self.digest)}
        if self.mark:
            document["mark"] = self.mark
        return json.dumps(document).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint | None:
        """Read the file; None if it is torn."""
        try:
            document = json.loads(content)
            digest = Digest.parse(document["digest"])
            return cls(int(document["size"]), digest, str(document.get("mark", "")))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None


class RunningHashes:
    """The tallies of one process, by upload id."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[str, RunningHash] = OrderedDict()

    def pop(self, upload_id: str, size: int, algorithm: str) -> RunningHash | None:
        """A tally of exactly the upload's ``size`` bytes, or None if there is none.

        It is the caller's until :meth:`put`: two writers never share one.
        """
        running_hash = self._hashes.pop(upload_id, None)
        if size == 0:
            return RunningHash(algorithm)
        return running_hash if running_hash is not None and running_hash.size == size else None

    def put(self, upload_id: str, running_hash: RunningHash) -> None:
        """Keep a tally for the next request to the same upload."""
        self._hashes[upload_id] = running_hash
        if len(self._hashes) > _MAX_HASHES:
            self._hashes.popitem(last=False)
