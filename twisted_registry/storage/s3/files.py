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
from twisted_registry.storage.s3.reader import ObjectRange
from twisted_registry.storage.s3.sinks import (
    MAX_PIECE_LIST_BYTES,
    PartSink,
    Piece,
    PieceList,
    PieceSink,
    read_piece,
    unfinished_size,
)

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
    from twisted_registry.storage.s3.writers import OpenWriters

    #: Stores the part of an upload id and a number.
    _PartMaker = Callable[[str, int], Deferred[Part]]

_T = TypeVar("_T")

log = Logger()

#: How often a damaged piece list is read: it may have been damaged on its way.
_MAX_READS: Final = 3


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


def too_large_error(path: str, size: int, limit: int) -> StorageError:
    """Return the error for a file that is larger than the caller accepts."""
    return StorageError(path, f"has {size} bytes, more than {limit}")


@define(eq=False)
class FileLookup:
    """Finds files, complete or unfinished."""

    _client: IS3Client
    _keys: KeyMapping

    @inlineCallbacks
    def read_file(self, path: str, limit: int) -> DeferredGenerator[tuple[StoredFile, bytes]]:
        """Fire with a file, and the content if it is complete.

        :param limit: maximum number of bytes of a complete file.
        :raises StorageError: if a complete file is larger.
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
    """Copies objects inside the store.

    :ivar min_part_bytes: minimum size of a part except the last.
    """

    _client: IS3Client
    _options: CopyOptions
    _min_part_bytes: int

    def copy(self, source: ObjectInfo, destination: str) -> Deferred[str]:
        """Copy an object to another key, atomically; fire with the ETag of the copy."""
        if source.size <= self._options.threshold_bytes:
            return self._client.copy_object(source.key, destination, etag=source.etag)
        size, part_bytes = source.size, self._options.part_bytes

        def copy_part(start: int, upload_id: str, number: int) -> Deferred[Part]:
            length = min(part_bytes, size - start)
            return self._client.upload_part_copy(
                destination, upload_id, number, source.key, (start, length), etag=source.etag
            ).addCallback(partial(Part, number, size=length))

        return self._multipart_copy(
            destination, [partial(copy_part, start) for start in range(0, size, part_bytes)]
        )

    def join_pieces(self, piece_list: PieceList, prefix: str, destination: str) -> Deferred[str]:
        """Make one object of the pieces of an unfinished file; fire with its ETag.

        :param prefix: of the keys of the pieces.
        """
        pieces = piece_list.pieces
        if len(pieces) == 1:
            (only,) = pieces
            return self.copy(ObjectInfo(prefix + only.name, only.size, only.etag), destination)
        tail = piece_list.tail(self._min_part_bytes)
        if len(tail) == len(pieces):
            return self._rewrite(pieces, prefix, destination)
        if len(tail) == 1:
            tail = ()  # the last part may be small

        def copy_piece(piece: Piece, upload_id: str, number: int) -> Deferred[Part]:
            return self._client.upload_part_copy(
                destination, upload_id, number, prefix + piece.name, etag=piece.etag
            ).addCallback(partial(Part, number, size=piece.size))

        part_makers: list[_PartMaker]
        part_makers = [partial(copy_piece, piece) for piece in pieces[: len(pieces) - len(tail)]]
        if tail:
            part_makers.append(partial(self._upload_tail, tail, prefix, destination))
        return self._multipart_copy(destination, part_makers)

    @inlineCallbacks
    def _rewrite(
        self, pieces: Sequence[Piece], prefix: str, destination: str
    ) -> DeferredGenerator[str]:
        """Read pieces that are too small for parts, and store them as one object."""
        content: list[bytes] = yield self._read(pieces, prefix)
        etag: str = yield self._client.put_object(destination, content)
        return etag

    @inlineCallbacks
    def _upload_tail(
        self, pieces: Sequence[Piece], prefix: str, destination: str, upload_id: str, number: int
    ) -> DeferredGenerator[Part]:
        """Read pieces that are too small for parts, and store them as one part."""
        content: list[bytes] = yield self._read(pieces, prefix)
        part: Part = yield self._client.upload_part(destination, upload_id, number, content)
        return part

    @inlineCallbacks
    def _read(self, pieces: Sequence[Piece], prefix: str) -> DeferredGenerator[list[bytes]]:
        content: list[bytes] = []
        for piece in pieces:
            block: bytes = yield read_piece(self._client, prefix, piece)
            content.append(block)
        return content

    @inlineCallbacks
    def _multipart_copy(
        self, destination: str, part_makers: Sequence[_PartMaker]
    ) -> DeferredGenerator[str]:
        """Make an object of parts; an error aborts the upload."""
        upload_id: str = yield self._client.create_multipart_upload(destination)
        try:
            parts: Sequence[Part] = yield gather_limited(
                self._options.max_concurrent_parts,
                [partial(make, upload_id, number) for number, make in enumerate(part_makers, 1)],
            )
            etag: str = yield self._client.complete_multipart_upload(destination, upload_id, parts)
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
    ) -> DeferredGenerator[None]:
        """Copy a file and delete it. A multipart upload to ``destination`` is only completed.

        :param keep_source: do not delete the source, because the caller does.
        :param still: called after the copy; False refuses the move.
        """
        sink = self._writers.sink_of(source)
        if isinstance(sink, PartSink):
            if sink.destination != self._keys.object_key(destination):
                raise StorageError(source, f"is an upload to another file than {destination}")
            yield sink.publish()
            return
        found: StoredFile
        if isinstance(sink, PieceSink) and not sink.is_gone:
            found = self._writers.stored_file(source, sink)
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
        if isinstance(sink, PieceSink):
            sink.mark_moved()

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
