"""The writer of the s3 driver: it cuts what it is given into pieces and stores them.

A piece is stored when it completes a part of the finished object, at the end of the request, or
when its writer has to return memory. At most two pieces are stored at the same time, while the next
one is collected. A piece counts when it and all pieces before it were stored and passed to the
observer, on a thread. A piece that fails discards all pieces after it, and ``size`` is reduced
accordingly.

A piece is an object beside the file. If the later name of the file is known from the start, a piece
that is a whole part becomes a part of a multipart upload to that name instead, which needs no copy.
If such a file is a single part, it stays in memory until it is moved, and is stored by one request.

The way of the bytes::

    write()    the buffer collects them, in memory that it was given before
    _cut()     takes a piece if its part is complete, all has to be stored, or memory is short
    _store()   as an object, as a part of the multipart upload, or not yet
    _accept()  in order, after the observer: the piece counts, and its memory is returned
    _save()    stores the list of pieces, so that any process can continue
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import uuid4

from attrs import define, evolve, field, frozen
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredLock,
    inlineCallbacks,
    succeed,
)
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.storage.interfaces import FileTooLarge, IWriter, PathNotFound, StorageError
from twisted_registry.storage.s3.errors import to_storage_error
from twisted_registry.storage.s3.files import StoredFile
from twisted_registry.storage.s3.interfaces import ObjectInfo
from twisted_registry.storage.s3.pieces import MAX_PARTS, NextPart, Piece, PieceList, size_of
from twisted_registry.storage.s3.upload_memory import IMemoryUser, UploadBuffer
from twisted_registry.storage.writers import PushConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from twisted_registry.storage.interfaces import Change
    from twisted_registry.storage.s3.files import Copier
    from twisted_registry.storage.s3.interfaces import DeferredGenerator, IS3Client, Part
    from twisted_registry.storage.s3.upload_memory import UploadMemory
    from twisted_registry.storage.threads import Threads

    #: Returns the changes that finish a file of a size.
    ChangesFor: TypeAlias = Callable[[int], Sequence[Change]]

log = Logger()

#: Pieces of a writer that are stored at the same time.
_MAX_PIECE_UPLOADS: Final = 2
#: Superseded pieces to keep until the end of the upload, in case an older list is still in use.
MAX_SUPERSEDED_PIECES: Final = 1000


@frozen
class UploadTools:
    """What all writers of a process share.

    :ivar chunk_bytes: size of the parts of an object.
    :ivar apply_changes: makes the changes that finish a file.
    """

    client: IS3Client
    copier: Copier
    threads: Threads
    memory: UploadMemory
    chunk_bytes: int
    apply_changes: Callable[[ObjectWriter, ChangesFor], Deferred[int]]


@define(eq=False)
class _PieceUpload:
    """A piece that is being stored.

    :ivar content: bytes that the client has sent.
    :ivar size: of the content.
    :ivar part: the part of the object that it belongs to.
    :ivar completes: whether the part has its full size with it.
    :ivar is_last: whether it ends the file, as far as is known.
    :ivar joined: stored pieces before it that are stored again together with it.
    :ivar is_held: whether it is the whole file, and stays in memory until the file is moved.
    :ivar piece: the new piece, once it is stored.
    """

    content: Sequence[bytes]
    size: int
    part: NextPart
    completes: bool
    is_last: bool
    joined: tuple[Piece, ...] = ()
    is_held: bool = False
    piece: Piece | None = None
    deferred: Deferred[None] = field(init=False, factory=Deferred)

    @property
    def full_size(self) -> int:
        """Bytes of the new piece, and of the memory that is used for it."""
        return self.size + size_of(self.joined)

    @property
    def is_joined(self) -> bool:
        """Whether the new piece begins where its part begins."""
        return self.joined == self.part.tail


@implementer(IWriter, IMemoryUser)
@define(eq=False)
class ObjectWriter(PushConsumer):
    """The one writer of a path in this process.

    :ivar key: of the file.
    :ivar prefix: of the keys of its pieces.
    :ivar destination: key of the later name; empty if it is not known.
    :ivar piece_list: the pieces that count.
    :ivar is_saved: whether the list in the store is equal to it.
    :ivar release: called when the path is free again.
    :ivar observe: called with all bytes, on a thread.
    """

    _tools: UploadTools
    path: str
    key: str
    prefix: str
    destination: str
    piece_list: PieceList
    _is_saved: bool
    _release: Callable[[], object]
    _observe: Callable[[bytes], object] | None = None
    #: the part that the next piece belongs to, if those that are being stored succeed
    _next_part: NextPart = field(init=False)
    _buffer: UploadBuffer = field(init=False)
    _uploads: deque[_PieceUpload] = field(init=False, factory=deque)
    _observing: bool = field(init=False, default=False)
    #: fire when all bytes are stored or discarded
    _settling: list[Deferred[None]] = field(init=False, factory=list)
    #: whether to store what is collected, because others need the memory
    _sending_early: bool = field(init=False, default=False)
    #: objects that were stored or may have been, and do not count yet
    _unaccepted: list[str] = field(init=False, factory=list)
    _create_lock: DeferredLock = field(init=False, factory=DeferredLock)
    _upload_id: str = field(init=False, default="")
    #: the content of a file of one part, before it is moved
    _held: _PieceUpload | None = field(init=False, default=None)
    _save_lock: DeferredLock = field(init=False, factory=DeferredLock)
    #: whether to create the file even if it is empty
    _must_exist: bool = field(init=False, default=False)
    _was_removed: bool = field(init=False, default=False)
    _was_moved: bool = field(init=False, default=False)
    _was_cancelled: bool = field(init=False, default=False)
    _failure_reported: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def __attrs_post_init__(self) -> None:
        """Find where the file continues."""
        memory = self._tools.memory
        self._next_part = self.piece_list.next_part(self._tools.chunk_bytes)
        self._buffer = UploadBuffer(memory, self._collectable_bytes, self._pause_if_full)
        memory.add_user(self)

    @property
    def size(self) -> int:
        """Bytes of the file, including those that are not stored yet."""
        pending = sum(upload.size for upload in self._uploads)
        return self.piece_list.size + pending + self._buffer.size

    @property
    def content_id(self) -> str:
        """Identifies the stored bytes."""
        return "" if self.destination else self.piece_list.content_id

    @property
    def is_settled(self) -> bool:
        """Whether all written bytes are stored."""
        return not (self._buffer.size or self._uploads)

    @property
    def stored_file(self) -> StoredFile:
        """The unfinished file. Its list of pieces may be newer than that in the store."""
        return StoredFile(self.path, ObjectInfo(self.key, 0, ""), self.piece_list)

    @property
    def is_gone(self) -> bool:
        """Whether the file was moved or deleted."""
        return self._was_moved or self._was_removed

    def write(self, data: bytes) -> None:
        """Accept bytes; ignored after a failure, ``close`` and ``cancel``."""
        if self._failure is not None or self._ending or not data:
            return
        self._buffer.append(data)
        self._advance()
        self._pause_if_full()

    def unregisterProducer(self) -> None:
        """Forget the producer, and return the memory that it does not need."""
        super().unregisterProducer()
        self._buffer.stop_asking()

    @inlineCallbacks
    def flush(self) -> DeferredGenerator[int]:
        """Fire with the size when later writers find all bytes written so far."""
        if self.destination and self._failure is None:
            # Nobody can continue this file, and the rest of it will not be written.
            self._abandon(StorageError(self.path, "the upload is incomplete"))
            return 0
        size: int = yield self.commit()
        saving = self._save_lock.run(self._save).addErrback(to_storage_error, self.path)
        error: StorageError | None = yield saving
        if error is not None:
            self._failure_reported = True
            self._fail(error)
            raise error
        return size

    @inlineCallbacks
    def commit(self) -> DeferredGenerator[int]:
        """Fire with the size when all bytes written so far are stored, or kept for ``publish``."""
        if self._ending and self._failure is None:
            raise StorageError(self.path, "the writer is closed")
        self._must_exist = True
        yield self._settle()
        if self._failure is not None:
            self._failure_reported = True
            raise self._failure
        return self.piece_list.size

    def finalize(self, decide: ChangesFor) -> Deferred[int]:
        """Commit, make the changes that ``decide`` returns, and close."""
        return self._tools.apply_changes(self, decide)

    def close(self) -> Deferred[int]:
        """Stop writing, keep the stored bytes, and release the path, even if that is cancelled."""
        self._ending = True
        closed: Deferred[int] = Deferred()
        self._close().chainDeferred(closed)
        return closed

    def cancel(self) -> Deferred[None]:
        """Stop writing, remove the file, and release the path."""
        self._was_cancelled = True
        self._abandon(StorageError(self.path, "the writer is cancelled"))
        return self.close().addCallback(lambda _: None)

    @inlineCallbacks
    def publish(self, sha256: str = "") -> DeferredGenerator[None]:
        """Create the file under its later name, atomically.

        :param sha256: hexadecimal SHA-256 of the file, if it is known.
        """
        tools, held = self._tools, self._held
        if held is not None or not self.piece_list.pieces:
            content = () if held is None else held.content
            yield tools.client.put_object(self.destination, content, sha256=sha256)
        else:
            yield tools.copier.join_pieces(
                self.piece_list, self.prefix, self.destination, upload_id=self._upload_id
            )
        self._was_moved, self._upload_id = True, ""

    def mark_removed(self) -> None:
        """Record that the file was deleted, so that it is not saved again."""
        self._was_removed = True

    def mark_moved(self) -> None:
        """Record that the file was moved and its pieces were deleted."""
        self._is_saved = self._was_moved = True

    def give_up(self, before: float) -> None:
        """Return memory that a slow client does not fill; what it has sent is stored."""
        if self._buffer.is_slow(before):
            self._store_early()
            self._pause_if_full()

    @inlineCallbacks
    def _close(self) -> DeferredGenerator[int]:
        yield self._settle()
        yield self._save_lock.run(self._finish)
        return self.piece_list.size

    def _settle(self) -> Deferred[None]:
        """Store all bytes written so far; fire when they are stored or discarded."""
        settling: Deferred[None] = Deferred()
        self._settling.append(settling)
        self._advance()
        return settling

    def _advance(self) -> None:
        """Start all work that is possible now."""
        try:
            while (upload := self._cut()) is not None:
                self._start(upload)
        except StorageError as error:
            self._fail(error)
        if self.is_settled:
            # This method is called again while it runs: pieces may be stored at once.
            settling, self._settling = self._settling, []
            for deferred in settling:
                deferred.callback(None)

    def _cut(self) -> _PieceUpload | None:
        """Take a piece from the buffer if it is time to store one.

        :raises FileTooLarge: if the file has too many parts.
        """
        uploads, buffer, part = self._uploads, self._buffer, self._next_part
        if not buffer.size or len(uploads) >= _MAX_PIECE_UPLOADS:
            return None
        if uploads and not uploads[-1].completes:
            return None  # it must be stored before the piece that completes the part
        size = min(buffer.size, part.missing)
        is_last = size == buffer.size and bool(self._settling)
        if not (size == part.missing or is_last or self._sending_early):
            return None
        if part.number > MAX_PARTS:
            raise FileTooLarge(
                self.path,
                f"is larger than {MAX_PARTS} parts of {self._tools.chunk_bytes} bytes:"
                " raise chunksize",
            )
        if size == buffer.size:
            self._sending_early = False
        part = part.beginning_with(size)
        completes = size == part.missing
        self._next_part = part.following() if completes else part
        upload = _PieceUpload(buffer.take(size), size, part, completes, is_last)
        # Otherwise, or without memory for them, pieces are joined when the file is moved.
        is_time_to_join = completes or (is_last and self.destination)
        if is_time_to_join and buffer.take_room(size_of(part.tail)):
            upload.joined = part.tail
        return upload

    def _start(self, upload: _PieceUpload) -> None:
        self._uploads.append(upload)
        upload.deferred = self._store(upload)
        upload.deferred.addCallback(lambda _: self._accept_next())
        upload.deferred.addErrback(self._failed, upload)

    @inlineCallbacks
    def _store(self, upload: _PieceUpload) -> DeferredGenerator[None]:
        tools, size = self._tools, upload.full_size
        if self.destination and upload.is_last and upload.part.is_first:
            upload.is_held, upload.piece = True, Piece("", size, "")
            return
        blocks = upload.content
        if upload.joined:
            before: Sequence[bytes] = yield tools.copier.read_pieces(upload.joined, self.prefix)
            blocks = (*before, *blocks)
        if self.destination and upload.is_joined and (upload.completes or upload.is_last):
            yield self._create_lock.run(self._create_upload)
            part: Part = yield tools.client.upload_part(
                self.destination, self._upload_id, upload.part.number, blocks
            )
            upload.piece = Piece("", size, part.etag)
            return
        name = uuid4().hex
        self._unaccepted.append(name)
        crc: int | None = None
        if not (upload.is_joined and upload.completes):
            crc = yield tools.copier.crc_of(blocks)  # it will be read to be joined with others
        etag: str = yield tools.client.put_object(self.prefix + name, blocks)
        upload.piece = Piece(name, size, etag, crc)

    @inlineCallbacks
    def _create_upload(self) -> DeferredGenerator[None]:
        if not self._upload_id:
            self._upload_id = yield self._tools.client.create_multipart_upload(self.destination)

    def _accept_next(self) -> None:
        """Accept the first piece if it was stored. Pieces are accepted in order."""
        if self._observing or not self._uploads or self._uploads[0].piece is None:
            return
        upload, observe = self._uploads[0], self._observe
        if observe is None:
            self._accept(None, upload)
            return
        self._observing = True
        observing = self._tools.threads.run_blocking(_observe_blocks, observe, upload.content)
        observing.addCallbacks(self._accept, self._failed, (upload,), errbackArgs=(upload,))

    def _accept(self, _: None, upload: _PieceUpload) -> None:
        piece = upload.piece
        assert piece is not None
        self._observing = False
        self._uploads.popleft()
        if piece.name:
            self._unaccepted.remove(piece.name)
        self.piece_list = self.piece_list.with_piece(piece, upload.joined)
        self._is_saved = False
        if not upload.completes:
            kept = () if upload.joined else upload.part.tail
            self._next_part = evolve(upload.part, tail=(*kept, piece))
        if upload.is_held:
            self._held = upload
        else:
            upload.content = ()
            self._tools.memory.release(upload.full_size)
        self._accept_next()
        self._advance()
        self._pause_if_full()

    def _failed(self, failure: Failure, upload: _PieceUpload) -> None:
        if upload not in self._uploads:
            return  # discarded by an earlier failure or by the caller
        if upload is self._uploads[0]:
            self._observing = False
        self._fail(to_storage_error(failure, self.path))

    def _fail(self, error: StorageError) -> None:
        self._failure = error
        self._discard_unstored()
        if self._producer is not None:
            self._producer.stopProducing()

    def _abandon(self, error: StorageError) -> None:
        """Discard what is not stored on the caller's behalf; later calls raise ``error``."""
        self._failure, self._failure_reported = error, True
        self._discard_unstored()

    def _discard_unstored(self) -> None:
        """Discard bytes that are not stored, except the piece that is being observed."""
        uploads = list(self._uploads)
        self._uploads.clear()
        if self._observing:
            self._uploads.append(uploads.pop(0))
        for upload in uploads:
            upload.deferred.cancel()
            self._tools.memory.release(upload.full_size)
        self._buffer.clear()
        self._buffer.stop_asking()
        self._advance()

    @inlineCallbacks
    def _save(self) -> DeferredGenerator[None]:
        """Store the list, so that later writers find the pieces that count."""
        if self._is_saved:
            return
        if self._was_removed:
            raise PathNotFound(self.key, "was removed while it was being written")
        client, piece_list = self._tools.client, self.piece_list
        yield client.put_object(self.key, piece_list.to_bytes(), metadata=piece_list.metadata)
        self._is_saved = piece_list is self.piece_list
        superseded = piece_list.superseded
        if self._is_saved and len(superseded) > MAX_SUPERSEDED_PIECES:
            # A process that still uses an older list fails now, as it would at the end.
            yield client.delete_objects(self._object_keys(superseded))
            now = self.piece_list
            self.piece_list = PieceList(now.pieces, now.superseded[len(superseded) :])

    @inlineCallbacks
    def _finish(self) -> DeferredGenerator[None]:
        """Save or remove the file, delete what no later writer can use, and free everything."""
        if self._ended:
            return
        error = None if self._failure_reported else self._failure
        result: object = yield self._keep_or_remove().addErrback(to_storage_error, self.path)
        if isinstance(result, StorageError):
            error = result
        yield self._delete_unused()
        if self.destination and not self._was_moved:
            self.piece_list = PieceList()
        self._ended = True
        if self._held is not None:
            self._tools.memory.release(self._held.full_size)
            self._held = None
        self._buffer.stop_asking()
        self._tools.memory.remove_user(self)
        self._release()
        if error is not None:
            raise error

    def _keep_or_remove(self) -> Deferred[Any]:
        """Save the file, or delete it if the writer was cancelled."""
        if self.destination or self._was_moved:
            return succeed(None)
        if self._was_cancelled:
            keys = [self.key, *self._object_keys(self.piece_list.names)]
            return self._tools.client.delete_objects(keys)
        has_content = self.piece_list.pieces or (self._must_exist and self._failure is None)
        return self._save() if has_content and not self._was_removed else succeed(None)

    def _delete_unused(self) -> Deferred[Any]:
        """Delete what no later writer can use. What remains is deleted with the upload's folder."""
        client, names = self._tools.client, list(self._unaccepted)
        if self.destination or (self._was_removed and not self._was_moved):
            names += self.piece_list.names
        deletions: list[Deferred[Any]] = []
        if names:
            deletions.append(client.delete_objects(self._object_keys(names)))
        if self._upload_id:
            deletions.append(client.abort_multipart_upload(self.destination, self._upload_id))
        for deletion in deletions:
            deletion.addErrback(self._log_deletion_error)
        return DeferredList(deletions)

    def _log_deletion_error(self, failure: Failure) -> None:
        log.warn(
            "cannot delete unused pieces of an upload: path={path} error={error}",
            path=self.path, error=failure.getErrorMessage(),
        )  # fmt: skip

    def _object_keys(self, names: Sequence[str]) -> list[str]:
        return [self.prefix + name for name in names]

    # Memory. What is collected always fits into what was granted.

    def _pause_if_full(self) -> None:
        """Pause or resume the producer, as there is memory for its next bytes or not."""
        if self._producer is None or self._ending or self._failure is not None:
            return
        if not self._buffer.has_room and self._buffer.ask():
            self._store_early()
        has_room = self._buffer.has_room
        if has_room is self._paused and self._producer is not None:
            self._paused = not has_room
            if self._paused:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    def _collectable_bytes(self) -> int:
        """Return how many bytes the next piece may have, with those that it may be joined to.

        :returns: 0 if it is complete, and waits until others are stored.
        """
        part = self._next_part
        return part.size if self._buffer.size < part.missing else 0

    def _store_early(self) -> None:
        self._sending_early = bool(self._buffer.size)
        self._advance()
        self._buffer.return_unused()


def _observe_blocks(observe: Callable[[bytes], object], blocks: Sequence[bytes]) -> None:
    for block in blocks:
        observe(block)
