"""What is under a path: an object, or the plan of an unfinished file.

How files get other names, in a store that can not rename.

Deletes: of keys, of all that begins alike, and of uploads that nobody will complete.

Copies inside the store: of an object, and of the pieces of an unfinished file into one.

No byte passes through us, but for pieces at the end that are too small to be parts: less than a
part of them, all together.

Paths of the driver and keys of the bucket.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

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
    # @@EMPTY
    from collections.abc import Callable, Generator, Sequence

    from twisted_registry.storage.s3.interfaces import IS3Client, MultipartUpload
    from twisted_registry.storage.s3.sinks import DeferredGenerator
    from twisted_registry.storage.s3.writers import OpenWriters

    _PartMaker = Callable[[str, int], Deferred[Part]]

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
    def copy(self, source: str, destination: str) -> DeferredGenerator:
        """Copy a file, whole or not, to a whole one."""
        found = self._writers.find_unfinished(source)
        if found is None:
            found = yield self._lookup.find(source)
        yield self._copy(found, destination)

    @inlineCallbacks
    def move(
        self,
        source: str,
        destination: str,
        *,
        keep_source: bool = False,
        still: Callable[[], bool] | None = None,
    ) -> DeferredGenerator:
        """Copy a file and delete it; one that was begun under its later name is only published.

        :param leave: whether the source is deleted afterwards in any case.
        :param still: whether it may be deleted, once the copy is there.
        """
        sink = self._writers.sink(source)
        if isinstance(sink, PartSink):
            if sink.destination != self._keys.object_key(destination):
                raise StorageError(source, f"was begun as another file than {destination}")
            yield sink.publish()
            return
        if isinstance(sink, PieceSink) and not sink.is_gone:
            found = self._writers.found(source, sink)
        else:
            found = yield self._lookup.find(source)
        if source != destination:
            yield self._copy(found, destination)
            if still is not None and not still():
                yield self._client.delete_object(self._keys.object_key(destination))
                raise MoveRefused(source)
            if not keep_source:
                yield self._remove(found)
            if isinstance(sink, PieceSink):
                sink.mark_moved()

    @inlineCallbacks
    def _copy(self, found: StoredFile, destination: str) -> DeferredGenerator:
        key = self._keys.object_key(destination)
        try:
            if found.piece_list is None:
                yield self._copier.copy(found.info, key)
            elif found.piece_list.pieces:
                yield self._copier.join_pieces(found.piece_list, self._keys.pieces(found.path), key)
            else:
                yield self._client.put_object(key, b"")
        except PreconditionFailed as error:
            raise StorageError(found.path, "was changed while it was copied") from error

    @inlineCallbacks
    def _remove(self, found: StoredFile) -> DeferredGenerator:
        key = self._keys.object_key(found.path)
        if found.piece_list is None:
            yield self._client.delete_object(key)
        else:
            prefix = self._keys.pieces(found.path)
            yield self._deleter.keys([key, *(prefix + name for name in found.piece_list.names)])


@define(eq=False)
class ObjectDeleter:
    """Deletes in one bucket."""

    _client: IS3Client

    @inlineCallbacks
    def keys(self, keys: Sequence[str]) -> DeferredGenerator:
        """Delete objects; those that are not there are passed over.

        :raises StorageError: if the store could not delete one; every one was tried.
        """
        if not keys:
            return
        errors = yield self._client.delete_objects(keys)
        if errors:
            first = errors[0]
            more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise StorageError(first.key, f"not deleted: {first.code} {first.message}{more}")

    @inlineCallbacks
    def below(self, prefix: str) -> DeferredGenerator:
        """Delete every object whose key begins with a prefix; fire with whether there was one."""
        anything = False
        token = ""
        while True:
            listing = yield self._client.list_objects(prefix, token=token)
            if listing.objects:
                anything = True
                yield self.keys([info.key for info in listing.objects])
            token = listing.token
            if not token:
                return anything

    @inlineCallbacks
    def uploads(self, prefix: str, before: float, *, dry_run: bool = False) -> DeferredGenerator:
        """Abort multipart uploads that nobody wrote to since a time; fire with how many they were.

        :param before: seconds since the epoch.
        :param dry_run: abort none.
        """
        count = 0
        marker = None
        while True:
            listing = yield self._client.list_multipart_uploads(prefix, marker=marker)
            for upload in listing.uploads:
                if (yield from self._last_activity(upload, before)) < before:
                    if not dry_run:
                        yield self._client.abort_multipart_upload(upload.key, upload.upload_id)
                    count += 1
            marker = listing.marker
            if marker is None:
                return count

    def _last_activity(self, upload: MultipartUpload, before: float) -> Generator[Any, Any, float]:
        """When somebody wrote to an upload last, in seconds since the epoch.

        :param before: what was begun later is not looked at.
        """
        if upload.initiated is None or upload.initiated / 1e9 >= before:
            return inf
        try:
            parts = yield self._client.list_parts(upload.key, upload.upload_id)
        except NoSuchUpload:
            # It was completed or aborted meanwhile.
            return inf
        return max([upload.initiated, *(part.modified or 0 for part in parts)]) / 1e9


log = Logger()


@frozen
class CopyOptions:
    """When and how an object is copied in parts.

    :ivar threshold: bytes; larger objects are.
    :ivar part: bytes of a part.
    :ivar at_once: parts that are copied at the same time.
    """

    threshold: int = 32 * 1024 * 1024
    part: int = 32 * 1024 * 1024
    at_once: int = 100


@define(eq=False)
class Copier:
    """Copies objects of one bucket.

    :ivar least: bytes that the store takes as a part of a multipart upload.
    """

    _client: IS3Client
    _options: CopyOptions
    _min_part_bytes: int

    def copy(self, source: ObjectInfo, destination: str) -> Deferred[Any]:
        """Copy an object to another key, in one step for whoever looks there."""
        if source.size <= self._options.threshold:
            return self._client.copy_object(source.key, destination, etag=source.etag)
        size = source.size
        starts = range(0, size, self._options.part)

        def one(start: int, upload_id: str, number: int) -> Deferred[Part]:
            length = min(self._options.part, size - start)
            return self._client.upload_part_copy(
                destination, upload_id, number, source.key, (start, length), etag=source.etag
            ).addCallback(partial(Part, number, size=length))

        return self._multipart_copy(destination, [partial(one, start) for start in starts])

    def join_pieces(self, piece_list: PieceList, prefix: str, destination: str) -> Deferred[Any]:
        """Make one object of the pieces of an unfinished file.

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

        def copied(piece: Piece, upload_id: str, number: int) -> Deferred[Part]:
            return self._client.upload_part_copy(
                destination, upload_id, number, prefix + piece.name, etag=piece.etag
            ).addCallback(partial(Part, number, size=piece.size))

        part_makers: list[_PartMaker]
        part_makers = [partial(copied, piece) for piece in pieces[: len(pieces) - len(tail)]]
        if tail:
            part_makers.append(partial(self._upload_tail, tail, prefix, destination))
        return self._multipart_copy(destination, part_makers)

    @inlineCallbacks
    def _rewrite(self, pieces: Sequence[Piece], prefix: str, destination: str) -> DeferredGenerator:
        content = yield self._read(pieces, prefix)
        yield self._client.put_object(destination, content)

    @inlineCallbacks
    def _upload_tail(
        self, pieces: Sequence[Piece], prefix: str, destination: str, upload_id: str, number: int
    ) -> DeferredGenerator:
        content = yield self._read(pieces, prefix)
        part = yield self._client.upload_part(destination, upload_id, number, content)
        return part

    @inlineCallbacks
    def _read(self, pieces: Sequence[Piece], prefix: str) -> DeferredGenerator:
        content = []
        for piece in pieces:
            found = yield read_piece(self._client, prefix, piece)
            content.append(found)
        return content

    @inlineCallbacks
    def _multipart_copy(
        self, destination: str, part_makers: Sequence[_PartMaker]
    ) -> DeferredGenerator:
        upload_id = yield self._client.create_multipart_upload(destination)
        try:
            parts = yield at_once(
                self._options.at_once,
                [partial(make, upload_id, number) for number, make in enumerate(part_makers, 1)],
            )
            yield self._client.complete_multipart_upload(destination, upload_id, parts)
        except BaseException:
            aborting = self._client.abort_multipart_upload(destination, upload_id)
            aborting.addErrback(
                lambda failure: log.warn(
                    "an upload to {key} that failed could not be aborted: {error}",
                    key=destination,
                    error=failure.getErrorMessage(),
                )
            )
            raise


@inlineCallbacks
def at_once(limit: int, calls: Sequence[Callable[[], Deferred[Any]]]) -> DeferredGenerator:
    """Fire with the answers to all calls, at most ``limit`` of which are under way.

    After an error no further call is made, and the error comes out when those under way ended.
    """
    semaphore = DeferredSemaphore(limit)
    failed = False

    def run(call: Callable[[], Deferred[Any]]) -> Deferred[Any] | None:
        return None if failed else maybeDeferred(call).addErrback(note)

    def note(failure: Any) -> Any:
        nonlocal failed
        failed = True
        return failure

    answers = yield DeferredList([semaphore.run(run, call) for call in calls], consumeErrors=True)
    for succeeded, answer in answers:
        if not succeeded:
            answer.raiseException()
    return [answer for _, answer in answers]


def _with_slash(root: str) -> str:
    root = root.strip("/")
    return f"{root}/" if root else ""


@frozen
class KeyMapping:
    """Translates between the two.

    :ivar root: the prefix of all keys, with or without slashes around it.
    """

    root: str = field(converter=_with_slash)

    def object_key(self, path: str) -> str:
        """The key of a file."""
        return self.root + path

    def below(self, path: str) -> str:
        """What the keys of all files in a folder begin with; the root is a folder too."""
        return f"{self.root}{path}/" if path else self.root

    def path(self, key: str) -> str:
        """The path of a key below the root."""
        return key[len(self.root) :]

    def pieces(self, path: str) -> str:
        """What the keys of an unfinished file's pieces begin with: a name of the driver's own.

        It lies beside the file, so that whoever removes the folder removes the pieces.
        """
        above, slash, name = path.rpartition("/")
        return f"{self.root}{above}{slash}.{name}/"


def is_driver_internal(path: str) -> bool:
    """Whether a path holds a name of the drivers' own, which begins with a dot."""
    return path.startswith(".") or "/." in path
