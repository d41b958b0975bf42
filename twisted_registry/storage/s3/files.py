"""What is under a path: an object, or the plan of an unfinished file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, frozen
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import OffsetInvalid, StorageError
from twisted_registry.storage.s3.errors import S3Error
from twisted_registry.storage.s3.plan import LIMIT, Piece, Plan, PlanDamaged, noted_size
from twisted_registry.storage.s3.reader import Stretch

if TYPE_CHECKING:
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.keys import Keys
    from twisted_registry.storage.s3.objects import ObjectInfo
    from twisted_registry.storage.s3.sinks import Steps


#: How often a plan is read that comes as something else.
_READINGS: Final = 3


@frozen
class Found:
    """What was found.

    :ivar info: what the store tells of the object.
    :ivar plan: what the object says, if it is a plan.
    """

    path: str
    info: ObjectInfo
    plan: Plan | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.info.size if self.plan is None else self.plan.size


@define(eq=False)
class Files:
    """Looks for files."""

    _client: IS3Client
    _keys: Keys

    @inlineCallbacks
    def read(self, path: str, limit: int) -> Steps:
        """Fire with what is there, and the content of an object of at most ``limit`` bytes.

        :raises StorageError: if a whole object is larger.
        :raises PlanDamaged: if what should be a plan is none, again and again.
        """
        key = self._keys.of(path)
        try:
            info, content = yield self._client.read_object(key, limit)
        except S3Error as error:
            if error.code != "EntityTooLarge":
                raise
            info = yield self._client.head_object(key)
            if noted_size(info.note) is None:
                raise too_large(path, info.size, limit) from error
            info, content = yield self._client.read_object(key, LIMIT)
        if noted_size(info.note) is None:
            return Found(path, info), content
        for _ in range(_READINGS - 1):
            try:
                return Found(path, info, Plan.from_bytes(content)), b""
            except PlanDamaged:
                info, content = yield self._client.read_object(key, LIMIT)
        return Found(path, info, Plan.from_bytes(content)), b""

    @inlineCallbacks
    def find(self, path: str) -> Steps:
        """Fire with what is there; the content of an object is not asked for."""
        info = yield self._client.head_object(self._keys.of(path))
        if noted_size(info.note) is None:
            return Found(path, info)
        found, _ = yield self.read(path, LIMIT)
        return found

    def stretches(self, found: Found, offset: int, length: int | None) -> list[Stretch]:
        """Where the bytes of a stretch of a file are.

        :raises OffsetInvalid: if it begins behind the end.
        """
        size = found.size
        if offset > size:
            raise OffsetInvalid(found.path, f"ends at {size}", size=size)
        end = size if length is None else min(size, offset + length)
        if found.plan is None:
            pieces: tuple[Piece, ...] = (Piece(found.info.key, size, found.info.etag),)
            prefix = ""
        else:
            pieces, prefix = found.plan.pieces, self._keys.pieces(found.path)
        stretches = []
        start = 0
        for piece in pieces:
            first, last = max(offset - start, 0), min(end - start, piece.size)
            if first < last:
                stretches.append(Stretch(prefix + piece.name, first, last - first, piece.etag))
            start += piece.size
        return stretches


def too_large(path: str, size: int, limit: int) -> StorageError:
    """What a file is that has more bytes than the caller takes."""
    return StorageError(path, f"has {size} bytes, more than {limit}")
