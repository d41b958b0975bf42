"""What is under a path: an object, or the plan of an unfinished file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, frozen
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import OffsetInvalid, StorageError
from twisted_registry.storage.s3.errors import S3Error
from twisted_registry.storage.s3.plan import MAX_PIECE_LIST_BYTES, Piece, PieceList, PieceListDamaged, unfinished_size
from twisted_registry.storage.s3.reader import ObjectRange

if TYPE_CHECKING:
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.keys import KeyMapping
    from twisted_registry.storage.s3.objects import ObjectInfo
    from twisted_registry.storage.s3.sinks import DeferredGenerator


#: How often a plan is read that comes as something else.
_MAX_READS: Final = 3


@frozen
class StoredFile:
    """What was found.

    :ivar info: what the store tells of the object.
    :ivar plan: what the object says, if it is a plan.
    """

    path: str
    info: ObjectInfo
    piece_list: PieceList | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.info.size if self.piece_list is None else self.piece_list.size


@define(eq=False)
class FileLookup:
    """Looks for files."""

    _client: IS3Client
    _keys: KeyMapping

    @inlineCallbacks
    def read(self, path: str, limit: int) -> DeferredGenerator:
        """Fire with what is there, and the content of an object of at most ``limit`` bytes.

        :raises StorageError: if a whole object is larger.
        :raises PieceListDamaged: if what should be a plan is none, again and again.
        """
        key = self._keys.object_key(path)
        try:
            info, content = yield self._client.read_object(key, limit)
        except S3Error as error:
            if error.code != "EntityTooLarge":
                raise
            info = yield self._client.head_object(key)
            if unfinished_size(info.metadata) is None:
                raise too_large_error(path, info.size, limit) from error
            info, content = yield self._client.read_object(key, MAX_PIECE_LIST_BYTES)
        if unfinished_size(info.metadata) is None:
            return StoredFile(path, info), content
        for _ in range(_MAX_READS - 1):
            try:
                return StoredFile(path, info, PieceList.from_bytes(content)), b""
            except PieceListDamaged:
                info, content = yield self._client.read_object(key, MAX_PIECE_LIST_BYTES)
        return StoredFile(path, info, PieceList.from_bytes(content)), b""

    @inlineCallbacks
    def find(self, path: str) -> DeferredGenerator:
        """Fire with what is there; the content of an object is not asked for."""
        info = yield self._client.head_object(self._keys.object_key(path))
        if unfinished_size(info.metadata) is None:
            return StoredFile(path, info)
        found, _ = yield self.read(path, MAX_PIECE_LIST_BYTES)
        return found

    def ranges(self, found: StoredFile, offset: int, length: int | None) -> list[ObjectRange]:
        """Where the bytes of a stretch of a file are.

        :raises OffsetInvalid: if it begins behind the end.
        """
        size = found.size
        if offset > size:
            raise OffsetInvalid(found.path, f"ends at {size}", size=size)
        end = size if length is None else min(size, offset + length)
        if found.piece_list is None:
            pieces: tuple[Piece, ...] = (Piece(found.info.key, size, found.info.etag),)
            prefix = ""
        else:
            pieces, prefix = found.piece_list.pieces, self._keys.pieces(found.path)
        ranges = []
        start = 0
        for piece in pieces:
            first, last = max(offset - start, 0), min(end - start, piece.size)
            if first < last:
                ranges.append(ObjectRange(prefix + piece.name, first, last - first, piece.etag))
            start += piece.size
        return ranges


def too_large_error(path: str, size: int, limit: int) -> StorageError:
    """What a file is that has more bytes than the caller takes."""
    return StorageError(path, f"has {size} bytes, more than {limit}")
