"""Files of the driver as objects of the bucket: keys, lookup, copy, move and deletion.

S3 has no rename: a move is a copy inside the store and a deletion. The bytes do not pass through
this process, except those of pieces at the end of an unfinished file that are smaller than a part.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredSemaphore,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.logger import Logger

from twisted_registry.storage.interfaces import MoveRefused, OffsetInvalid, StorageError
from twisted_registry.storage.s3.errors import (
    NoSuchUpload,
    PieceListDamaged,
    PreconditionFailed,
    S3Error,
)
from twisted_registry.storage.s3.interfaces import ObjectInfo, Part
from twisted_registry.storage.s3.pieces import (
    MAX_PIECE_LIST_BYTES,
    Piece,
    PieceList,
    crc_of,
    size_of,
    unfinished_size,
)
from twisted_registry.storage.s3.reader import ObjectRange

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.python.failure import Failure

    from twisted_registry.storage.s3.interfaces import (
        DeferredGenerator,
        DeleteError,
        IS3Client,
        MultipartUpload,
        ObjectListing,
        UploadListing,
    )
    from twisted_registry.storage.s3.upload_memory import UploadMemory
    from twisted_registry.storage.s3.writers import OpenWriters
    from twisted_registry.storage.threads import Threads

    #: Stores the part of an upload id and a number.
    _PartMaker = Callable[[str, int], Deferred[Part]]

_T = TypeVar("_T")

log = Logger()

#: How often a damaged piece or piece list is read: it may have been damaged on its way.
_MAX_READS: Final = 3
#: Pieces of a part that are read at the same time.
_MAX_CONCURRENT_READS: Final = 8
#: Bytes whose CRC-32 is computed on the reactor's thread.
_MAX_INLINE_CRC_BYTES: Final = 64 * 1024


@inlineCallbacks
def gather_limited(
    limit: int, calls: Sequence[Callable[[], Deferred[_T]]]
) -> DeferredGenerator[Sequence[_T]]:
    """Make all calls, and fire with their results in order.

    After an error no further call is made. The error is raised when the pending calls have ended.

    :param limit: maximum number of pending calls.
    """
    semaphore = DeferredSemaphore(limit)
    failed = False

    def run(call: Callable[[], Deferred[_T]]) -> Deferred[_T] | None:
        return None if failed else maybeDeferred(call).addErrback(set_failed)

    def set_failed(failure: Failure) -> Failure:
        nonlocal failed
        failed = True
        return failure

    results: list[tuple[bool, Any]] = yield DeferredList(
        [semaphore.run(run, call) for call in calls], consumeErrors=True
    )
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()
    return [result for _, result in results]


def _root_prefix(root: str) -> str:
    root = root.strip("/")
    return f"{root}/" if root else ""


@frozen
class KeyMapping:
    """Translates paths of the driver to keys of the bucket.

    :ivar root: prefix of all keys, with or without slashes around it.
    """

    root: str = field(converter=_root_prefix)

    def object_key(self, path: str) -> str:
        """Return the key of a file."""
        return self.root + path

    def folder_prefix(self, path: str) -> str:
        """Return the prefix of the keys of all files below a folder; "" is the root folder."""
        return f"{self.root}{path}/" if path else self.root

    def pieces_prefix(self, path: str) -> str:
        """Return the prefix of the keys of an unfinished file's pieces.

        It is next to the file, so that deleting the folder deletes the pieces.
        """
        parent, slash, name = path.rpartition("/")
        return f"{self.root}{parent}{slash}.{name}/"


def is_driver_internal(path: str) -> bool:
    """Return whether a path has a segment that begins with a dot, as internal names do."""
    return path.startswith(".") or "/." in path


@frozen
class StoredFile:
    """A file that exists.

    :ivar info: metadata of its object.
    :ivar piece_list: the pieces of an unfinished file; None if the file is complete.
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
    """Finds files, complete or unfinished."""

    _client: IS3Client
    _keys: KeyMapping

    @inlineCallbacks
    def read_file(self, path: str, limit: int) -> DeferredGenerator[tuple[StoredFile, bytes]]:
        """Fire with a file, and the content if it is complete and has at most ``limit`` bytes.

        :raises PieceListDamaged: if the piece list of an unfinished file is damaged.
        """
        key = self._keys.object_key(path)
        info: ObjectInfo
        content: bytes
        try:
            info, content = yield self._client.read_object(key, limit)
        except S3Error as error:
            if error.code != "EntityTooLarge":
                raise
            info = yield self._client.head_object(key)
            if unfinished_size(info.metadata) is None:
                return StoredFile(path, info), b""
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
    def find(self, path: str) -> DeferredGenerator[StoredFile]:
        """Fire with a file, without reading the content of a complete one."""
        info: ObjectInfo = yield self._client.head_object(self._keys.object_key(path))
        if unfinished_size(info.metadata) is None:
            return StoredFile(path, info)
        found: StoredFile
        found, _ = yield self.read_file(path, MAX_PIECE_LIST_BYTES)
        return found

    def ranges(self, found: StoredFile, offset: int, length: int | None) -> list[ObjectRange]:
        """Return the ranges of objects that contain a range of a file.

        :param length: maximum number of bytes; None for all that follow.
        :raises OffsetInvalid: if ``offset`` is greater than the size.
        """
        size = found.size
        if offset > size:
            raise OffsetInvalid(found.path, f"ends at {size}", size=size)
        end = size if length is None else min(size, offset + length)
        if found.piece_list is None:
            pieces: tuple[Piece, ...] = (Piece(found.info.key, size, found.info.etag),)
            prefix = ""
        else:
            pieces, prefix = found.piece_list.pieces, self._keys.pieces_prefix(found.path)
        ranges = []
        start = 0
        for piece in pieces:
            first, last = max(offset - start, 0), min(end - start, piece.size)
            if first < last:
                ranges.append(ObjectRange(prefix + piece.name, first, last - first, piece.etag))
            start += piece.size
        return ranges


@define(eq=False)
class ObjectDeleter:
    """Deletes objects, prefixes, and stale multipart uploads."""

    _client: IS3Client

    @inlineCallbacks
    def delete_keys(self, keys: Sequence[str]) -> DeferredGenerator[None]:
        """Delete objects; missing ones are ignored.

        :raises StorageError: if an object could not be deleted. All are tried before.
        """
        if not keys:
            return
        errors: Sequence[DeleteError] = yield self._client.delete_objects(keys)
        if errors:
            first = errors[0]
            more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise StorageError(first.key, f"not deleted: {first.code} {first.message}{more}")

    @inlineCallbacks
    def delete_prefix(self, prefix: str) -> DeferredGenerator[bool]:
        """Delete all objects whose key has a prefix; fire with whether there were any."""
        found = False
        token = ""
        while True:
            listing: ObjectListing = yield self._client.list_objects(prefix, token=token)
            if listing.objects:
                found = True
                yield self.delete_keys([info.key for info in listing.objects])
            token = listing.token
            if not token:
                return found

    @inlineCallbacks
    def abort_stale_uploads(
        self, prefix: str, before: float, *, dry_run: bool = False
    ) -> DeferredGenerator[int]:
        """Abort multipart uploads without activity since a time; fire with their number.

        :param prefix: of the keys.
        :param before: seconds since the epoch.
        :param dry_run: only count them.
        """
        count = 0
        marker = None
        while True:
            listing: UploadListing = yield self._client.list_multipart_uploads(
                prefix, marker=marker
            )
            for upload in listing.uploads:
                if (yield from self._last_activity(upload, before)) < before:
                    if not dry_run:
                        yield self._client.abort_multipart_upload(upload.key, upload.upload_id)
                    count += 1
            marker = listing.marker
            if marker is None:
                return count

    def _last_activity(self, upload: MultipartUpload, before: float) -> Generator[Any, Any, float]:
        """Return when a part was last stored, in seconds since the epoch.

        :param before: uploads that were started later are not examined.
        """
        if upload.initiated is None or upload.initiated / 1e9 >= before:
            return inf
        try:
            parts: Sequence[Part] = yield self._client.list_parts(upload.key, upload.upload_id)
        except NoSuchUpload:
            # It was completed or aborted after the listing.
            return inf
        return max([upload.initiated, *(part.modified or 0 for part in parts)]) / 1e9


@frozen
class CopyOptions:
    """When and how an object is copied in parts.

    :ivar threshold_bytes: larger objects are copied in parts.
    :ivar part_bytes: size of a part.
    :ivar max_concurrent_parts: parts of an object that are copied at the same time.
    """

    threshold_bytes: int = 32 * 1024 * 1024
    part_bytes: int = 32 * 1024 * 1024
    max_concurrent_parts: int = 100


@define(eq=False)
class Copier:
    """Copies objects inside the store, and makes objects of pieces.

    :ivar threads: compute checksums.
    :ivar memory: for the pieces that are read.
    :ivar chunk_bytes: size of the parts of an object that is made of pieces.
    """

    _client: IS3Client
    _options: CopyOptions
    _threads: Threads
    _memory: UploadMemory
    _chunk_bytes: int

    def copy(self, source: ObjectInfo, destination: str) -> Deferred[str]:
        """Copy an object to another key, atomically; fire with the ETag of the copy.

        A copy by one request is of one state of the source. After a copy in parts, the source is
        looked at once more.

        :raises PreconditionFailed: if the source was changed while its parts were copied.
        """
        if source.size <= self._options.threshold_bytes:
            return self._client.copy_object(source.key, destination, size=source.size)
        size, part_bytes = source.size, self._options.part_bytes

        def copy_part(start: int, upload_id: str, number: int) -> Deferred[Part]:
            length = min(part_bytes, size - start)
            return self._client.upload_part_copy(
                destination, upload_id, number, source.key, (start, length), size=length
            ).addCallback(partial(Part, number, size=length))

        return self._multipart_copy(
            destination,
            [partial(copy_part, start) for start in range(0, size, part_bytes)],
            lambda: self._check_unchanged(source),
        )

    @inlineCallbacks
    def _check_unchanged(self, source: ObjectInfo) -> DeferredGenerator[None]:
        """Check that an object has the ETag and size that it had before.

        :raises PreconditionFailed: if not.
        """
        now: ObjectInfo = yield self._client.head_object(source.key)
        if (now.etag, now.size) != (source.etag, source.size):
            raise PreconditionFailed(f"HeadObject {source.key}", "the object was changed")

    def join_pieces(
        self, piece_list: PieceList, prefix: str, destination: str, *, upload_id: str = ""
    ) -> Deferred[str]:
        """Make one object of the pieces of an unfinished file; fire with its ETag.

        A part that is one piece is copied inside the store; small pieces are read and stored as
        one part.

        :param prefix: of the keys of the pieces.
        :param upload_id: of the multipart upload to which the pieces without a name belong.
        """
        parts, rest = piece_list.parts(self._chunk_bytes)
        if rest:
            parts.append(rest)
        if len(parts) == 1 and not upload_id:
            if len(parts[0]) > 1:
                put = partial(self._client.put_object, destination)
                return self._store_joined(parts[0], prefix, put)
            (only,) = parts[0]
            return self.copy(ObjectInfo(prefix + only.name, only.size, only.etag), destination)

        def make_part(pieces: Sequence[Piece], upload_id: str, number: int) -> Deferred[Part]:
            if len(pieces) > 1:
                upload_part = partial(self._client.upload_part, destination, upload_id, number)
                return self._store_joined(pieces, prefix, upload_part)
            (piece,) = pieces
            part = partial(Part, number, size=piece.size)
            if not piece.name:
                return succeed(part(piece.etag))
            return self._client.upload_part_copy(
                destination, upload_id, number, prefix + piece.name, size=piece.size
            ).addCallback(part)

        makers = [partial(make_part, pieces) for pieces in parts]
        if upload_id:
            return self._complete(destination, upload_id, makers)
        return self._multipart_copy(destination, makers)

    def read_pieces(self, pieces: Sequence[Piece], prefix: str) -> Deferred[Sequence[bytes]]:
        """Fire with the bytes of each of some pieces, which are to be stored again as one.

        The digest of the file was computed from the bytes that the client sent, so nothing else
        would detect a damaged piece.

        :param prefix: of the keys of the pieces.
        :raises StorageError: if the bytes are not those that were stored.
        """
        return gather_limited(
            _MAX_CONCURRENT_READS, [partial(self._read_piece, prefix, piece) for piece in pieces]
        )

    def crc_of(self, blocks: Sequence[bytes]) -> Deferred[int]:
        """Fire with the CRC-32 of blocks of bytes, which is computed on a thread if it is long."""
        if sum(map(len, blocks)) <= _MAX_INLINE_CRC_BYTES:
            return succeed(crc_of(blocks))
        return self._threads.run_blocking(crc_of, blocks)

    @inlineCallbacks
    def _read_piece(self, prefix: str, piece: Piece) -> DeferredGenerator[bytes]:
        key = prefix + piece.name
        for _ in range(_MAX_READS):
            content: bytes
            _, content = yield self._client.read_object(key, piece.size)
            if len(content) == piece.size:
                crc = piece.crc if piece.crc is None else (yield self.crc_of([content]))
                if crc == piece.crc:
                    return content
        raise StorageError(key, "is damaged: its size or checksum is wrong")

    @inlineCallbacks
    def _store_joined(
        self, pieces: Sequence[Piece], prefix: str, store: Callable[[Sequence[bytes]], Deferred[_T]]
    ) -> DeferredGenerator[_T]:
        """Read pieces, and store them as one by calling ``store``; fire with its result."""
        size: int = yield self._memory.acquire(lambda: size_of(pieces))
        try:
            content: Sequence[bytes] = yield self.read_pieces(pieces, prefix)
            result: _T = yield store(content)
        finally:
            self._memory.release(size)
        return result

    @inlineCallbacks
    def _complete(
        self,
        destination: str,
        upload_id: str,
        part_makers: Sequence[_PartMaker],
        check: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> DeferredGenerator[str]:
        """Store the parts of a multipart upload, and complete it.

        :param check: called before the parts are joined.
        """
        parts: Sequence[Part] = yield gather_limited(
            self._options.max_concurrent_parts,
            [partial(make, upload_id, number) for number, make in enumerate(part_makers, 1)],
        )
        yield check()
        etag: str = yield self._client.complete_multipart_upload(destination, upload_id, parts)
        return etag

    @inlineCallbacks
    def _multipart_copy(
        self,
        destination: str,
        part_makers: Sequence[_PartMaker],
        check: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> DeferredGenerator[str]:
        """Make an object of parts, as :meth:`_complete`; an error aborts the upload."""
        upload_id: str = yield self._client.create_multipart_upload(destination)
        try:
            etag: str = yield self._complete(destination, upload_id, part_makers, check)
        except BaseException:
            aborting = self._client.abort_multipart_upload(destination, upload_id)
            aborting.addErrback(
                lambda failure: log.warn(
                    "cannot abort a failed multipart upload, purge will remove it:"
                    " key={key} error={error}",
                    key=destination,
                    error=failure.getErrorMessage(),
                )
            )
            raise
        return etag


@define(eq=False)
class FileMover:
    """Copies and moves files."""

    _client: IS3Client
    _keys: KeyMapping
    _lookup: FileLookup
    _copier: Copier
    _deleter: ObjectDeleter
    _writers: OpenWriters

    @inlineCallbacks
    def copy(self, source: str, destination: str) -> DeferredGenerator[None]:
        """Copy a file, complete or unfinished, to a complete one."""
        found = self._writers.find_unfinished(source)
        if found is None:
            found = yield self._lookup.find(source)
            assert found is not None
        yield self._copy(found, destination)

    @inlineCallbacks
    def move(
        self,
        source: str,
        destination: str,
        *,
        keep_source: bool = False,
        still: Callable[[], bool] | None = None,
        sha256: str = "",
    ) -> DeferredGenerator[None]:
        """Copy a file and delete it. A multipart upload to ``destination`` is only completed.

        :param keep_source: do not delete the source, because the caller does.
        :param still: called after the copy; False refuses the move.
        :param sha256: hexadecimal SHA-256 of the file, if it is known.
        """
        writer = self._writers.settled_writer(source)
        if writer is not None and writer.destination:
            if writer.destination != self._keys.object_key(destination):
                raise StorageError(source, f"is an upload to another file than {destination}")
            yield writer.publish(sha256)
            return
        found: StoredFile
        if writer is not None and not writer.is_gone:
            found = writer.stored_file
        else:
            found = yield self._lookup.find(source)
        if source == destination:
            return
        yield self._copy(found, destination)
        if still is not None and not still():
            yield self._client.delete_object(self._keys.object_key(destination))
            raise MoveRefused(source)
        if not keep_source:
            yield self._remove(found)
        if writer is not None:
            writer.mark_moved()

    @inlineCallbacks
    def _copy(self, found: StoredFile, destination: str) -> DeferredGenerator[None]:
        key = self._keys.object_key(destination)
        try:
            if found.piece_list is None:
                yield self._copier.copy(found.info, key)
            elif found.piece_list.pieces:
                prefix = self._keys.pieces_prefix(found.path)
                yield self._copier.join_pieces(found.piece_list, prefix, key)
            else:
                yield self._client.put_object(key, b"")
        except PreconditionFailed as error:
            raise StorageError(found.path, "was changed while it was copied") from error

    @inlineCallbacks
    def _remove(self, found: StoredFile) -> DeferredGenerator[None]:
        key = self._keys.object_key(found.path)
        if found.piece_list is None:
            yield self._client.delete_object(key)
        else:
            prefix = self._keys.pieces_prefix(found.path)
            names = found.piece_list.names
            yield self._deleter.delete_keys([key, *(prefix + name for name in names)])
