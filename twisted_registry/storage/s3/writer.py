"""The writer of the s3 driver: it cuts what it is given into pieces and stores them.

A piece is stored when it completes a part of the finished object, at the end of the request, or
when its writer has to return memory. At most two pieces are stored at the same time, while the next
one is collected. A piece counts when it and all pieces before it were stored and passed to the
observer, on a thread. A piece that fails discards all pieces after it, and ``size`` is reduced
accordingly.

A piece is an object beside the file. If the later name of the file is known from the start, a piece
that completes a part is a part of a multipart upload to that name instead, which needs no copy. If
such a file is a single part, it stays in memory until it is moved, and is stored by one request.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import uuid4

from attrs import define, field, frozen
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    fail,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.storage.interfaces import FileTooLarge, IWriter, PathNotFound, StorageError
from twisted_registry.storage.s3.errors import to_storage_error
from twisted_registry.storage.s3.pieces import (
    MAX_PARTS,
    MIN_PART_BYTES,
    Piece,
    PieceList,
    part_bytes,
    size_of,
)
from twisted_registry.storage.s3.upload_memory import BlockBuffer, IMemoryUser
from twisted_registry.storage.writers import PushConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
#: Bytes that a producer may write at once: one read of a socket.
READ_BYTES: Final = 1024 * 1024
#: Seconds in which a client should fill the memory that its writer asks for.
_FILL_S: Final = 1.0
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

    :ivar size: bytes of the content.
    :ivar number: number of the part of the object that it belongs to.
    :ivar completes: whether the part is complete with it.
    :ivar is_last: whether nothing follows, as far as is known.
    :ivar is_whole_part: whether it is, with the joined pieces, all of its part.
    :ivar joined: stored pieces to which the content is appended.
    :ivar memory: bytes that are returned when it is stored.
    :ivar stored: the new piece, once it is stored.
    """

    content: Sequence[bytes]
    size: int
    number: int
    completes: bool
    is_last: bool
    is_whole_part: bool = False
    joined: tuple[Piece, ...] = ()
    memory: int = 0
    stored: Piece | None = field(init=False, default=None)
    deferred: Deferred[None] = field(init=False, factory=Deferred)


@define(eq=False)
class _PendingSync:
    """A caller that waits until all bytes written so far are stored.

    :ivar size: size of the file up to which bytes must be stored.
    :ivar must_save: whether later writers must find them.
    """

    size: int
    must_save: bool
    deferred: Deferred[int] = field(factory=Deferred)


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
    _was_removed: bool = field(init=False, default=False)
    _was_moved: bool = field(init=False, default=False)
    _buffer: BlockBuffer = field(init=False, factory=BlockBuffer)
    _uploads: deque[_PieceUpload] = field(init=False, factory=deque)
    _syncs: list[_PendingSync] = field(init=False, factory=list)
    _observing: bool = field(init=False, default=False)
    _saving: bool = field(init=False, default=False)
    #: complete parts among the pieces that count, and the pieces of the part after them
    _part_count: int = field(init=False)
    _tail: tuple[Piece, ...] = field(init=False)
    _first_bytes: int = field(init=False)
    #: objects that were stored or may have been, and do not count yet
    _unaccepted: list[str] = field(init=False, factory=list)
    _create_lock: DeferredLock = field(init=False, factory=DeferredLock)
    _upload_id: str = field(init=False, default="")
    _published: bool = field(init=False, default=False)
    #: a file of one part, before it is moved
    _held: Sequence[bytes] = field(init=False, default=())
    _held_memory: int = field(init=False, default=0)
    #: memory for what is collected; when it was given, what arrived since, and how much of it the
    #: client is expected to fill in time
    _granted: int = field(init=False, default=0)
    _granted_at: float = field(init=False, default=0.0)
    _received: int = field(init=False, default=0)
    _fill_bytes: int = field(init=False, default=READ_BYTES)
    _request: Deferred[Any] | None = field(init=False, default=None)
    _sending_early: bool = field(init=False, default=False)
    #: whether to create the file even if it is empty
    _must_exist: bool = field(init=False, default=False)
    _failure_reported: bool = field(init=False, default=False)
    _removing: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)
    _closing: list[Deferred[int]] = field(init=False, factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def __attrs_post_init__(self) -> None:
        """Find where the file continues."""
        parts, self._tail = self.piece_list.parts(self._tools.chunk_bytes)
        self._part_count = len(parts)
        self._first_bytes = self.piece_list.first_bytes(self._tools.chunk_bytes)
        self._tools.memory.add_user(self)

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
    def is_gone(self) -> bool:
        """Whether the file was moved or deleted."""
        return self._was_moved or self._was_removed

    def write(self, data: bytes) -> None:
        """Accept bytes; ignored after a failure, ``close`` and ``cancel``."""
        if self._failure is not None or self._ending or not data:
            return
        self._buffer.append(data)
        self._received += len(data)
        self._count_excess()
        self._advance()
        self._pause_if_full()

    def unregisterProducer(self) -> None:
        """Forget the producer, and return the memory that it does not need."""
        super().unregisterProducer()
        self._leave_queue()
        self._return_unused()

    def flush(self) -> Deferred[int]:
        """Fire with the size when later writers find all bytes written so far."""
        if not self.destination or self._failure is not None:
            return self._sync(must_save=True)
        # Nobody can continue this file, and the rest of it will not be written.
        self._ending = True
        self._discard_unstored()
        return succeed(0)

    def commit(self) -> Deferred[int]:
        """Fire with the size when all bytes written so far are stored, or kept for ``publish``."""
        return self._sync(must_save=False)

    def finalize(self, decide: ChangesFor) -> Deferred[int]:
        """Commit, make the changes that ``decide`` returns, and close."""
        return self._tools.apply_changes(self, decide)

    def close(self) -> Deferred[int]:
        """Stop writing, keep the stored bytes, and release the path."""
        if self._ended:
            return succeed(self.piece_list.size)
        self._ending = True
        deferred_close: Deferred[int] = Deferred()
        self._closing.append(deferred_close)
        self._advance()
        return deferred_close

    def cancel(self) -> Deferred[None]:
        """Stop writing, remove the file, and release the path."""
        self._removing = self._failure_reported = True
        self._discard_unstored(StorageError(self.path, "the writer is cancelled"))
        return self.close().addCallback(lambda _: None)

    @inlineCallbacks
    def publish(self, sha256: str = "") -> DeferredGenerator[None]:
        """Create the file under its later name, atomically.

        :param sha256: hexadecimal SHA-256 of the file, if it is known.
        """
        tools = self._tools
        if self._held or not self.piece_list.pieces:
            yield tools.client.put_object(self.destination, self._held, sha256=sha256)
        else:
            yield tools.copier.join_pieces(
                self.piece_list, self.prefix, self.destination, upload_id=self._upload_id
            )
        self._published, self._upload_id = True, ""

    def mark_removed(self) -> None:
        """Record that the file was deleted, so that it is not saved again."""
        self._was_removed = True

    def mark_moved(self) -> None:
        """Record that the file was moved and its pieces were deleted."""
        self._is_saved = self._was_moved = True

    def give_up(self, before: float) -> None:
        """Return memory that a slow client does not fill; what it has sent is stored."""
        waits_for_store = self._paused and self._request is None
        if self._granted and self._granted_at <= before and not waits_for_store:
            if self._request is None:
                self._estimate_fill()
            self._store_early()
            self._pause_if_full()

    def _sync(self, *, must_save: bool) -> Deferred[int]:
        if self._failure is not None:
            self._failure_reported = True
            return fail(self._failure)
        if self._ending:
            return fail(StorageError(self.path, "the writer is closed"))
        self._must_exist = True
        sync = _PendingSync(self.size, must_save)
        self._syncs.append(sync)
        self._advance()
        return sync.deferred

    def _advance(self) -> None:
        """Start all work that is possible now."""
        while not (self._ended or self._saving):
            try:
                upload = self._cut()
            except StorageError as error:
                self._fail(error)
                return
            if upload is None:
                break
            self._start(upload)
        # This method is called recursively if a piece is stored at once.
        if self._ended or self._saving:
            return
        due = [sync for sync in self._syncs if sync.size <= self.piece_list.size]
        if due:
            self._syncs = [sync for sync in self._syncs if sync not in due]
            must_save = any(sync.must_save for sync in due) and not self._is_saved
            self._save_for(due, must_save=must_save)
        elif self._ending and self.is_settled:
            self._finish()

    def _next_part(self) -> tuple[int, int, tuple[Piece, ...]]:
        """Return number, size and stored pieces of the part that the next bytes belong to."""
        completing = sum(upload.completes for upload in self._uploads)
        number = self._part_count + completing + 1
        size = part_bytes(number, self._first_bytes, self._tools.chunk_bytes)
        return number, size, () if completing else self._tail

    def _cut(self) -> _PieceUpload | None:
        """Take a piece from the buffer if it is time to store one.

        :raises FileTooLarge: if the file has too many parts.
        """
        uploads, buffer = self._uploads, self._buffer
        if not buffer.size or len(uploads) >= _MAX_PIECE_UPLOADS:
            return None
        if uploads and not uploads[-1].completes:
            return None  # it must be stored before the piece that completes the part
        number, part_size, tail = self._next_part()
        missing = part_size - size_of(tail)
        size = min(buffer.size, missing)
        completes = size == missing
        is_last = size == buffer.size and (self._ending or bool(self._syncs))
        if not (completes or is_last or self._sending_early):
            return None
        if number > MAX_PARTS:
            raise FileTooLarge(
                self.path,
                f"is larger than {MAX_PARTS} parts of {self._tools.chunk_bytes} bytes:"
                " raise chunksize",
            )
        if number == 1 and not tail:
            self._first_bytes = max(size, MIN_PART_BYTES)
            completes = size == self._first_bytes
        if size == buffer.size:
            self._sending_early = False
        upload = _PieceUpload(buffer.take(size), size, number, completes, is_last)
        self._move_memory(upload, size)
        if tail and (completes or (is_last and self.destination)):
            self._join(upload, tail)
        upload.is_whole_part = (completes or is_last) and (not tail or bool(upload.joined))
        return upload

    def _join(self, upload: _PieceUpload, tail: tuple[Piece, ...]) -> None:
        """Store pieces again with the one that follows them, if there is memory for them.

        Otherwise they are joined when the file is moved.
        """
        size = size_of(tail)
        if self._granted - self._buffer.size < size:
            if not self._tools.memory.take(size):
                return
            self._granted += size
        self._move_memory(upload, size)
        upload.joined = tail

    def _start(self, upload: _PieceUpload) -> None:
        self._uploads.append(upload)
        upload.deferred = self._store(upload)
        upload.deferred.addCallback(lambda _: self._accept_next())
        upload.deferred.addErrback(self._failed, upload)

    @inlineCallbacks
    def _store(self, upload: _PieceUpload) -> DeferredGenerator[None]:
        tools, blocks, size = self._tools, upload.content, upload.size
        if upload.joined:
            before: Sequence[bytes] = yield tools.copier.read_pieces(upload.joined, self.prefix)
            blocks = [*before, *blocks]
            size += size_of(upload.joined)
        if self.destination and upload.is_whole_part:
            if upload.is_last and upload.number == 1:
                self._held, self._held_memory, upload.memory = blocks, upload.memory, 0
                upload.stored = Piece("", size, "")
                return
            yield self._create_lock.run(self._create_upload)
            part: Part = yield tools.client.upload_part(
                self.destination, self._upload_id, upload.number, blocks
            )
            upload.stored = Piece("", size, part.etag)
            return
        name = uuid4().hex
        self._unaccepted.append(name)
        crc: int | None = None
        if not (upload.completes and upload.is_whole_part):
            crc = yield tools.copier.crc_of(blocks)  # it will be read to be joined with others
        etag: str = yield tools.client.put_object(self.prefix + name, blocks)
        upload.stored = Piece(name, size, etag, crc)

    @inlineCallbacks
    def _create_upload(self) -> DeferredGenerator[None]:
        if not self._upload_id:
            self._upload_id = yield self._tools.client.create_multipart_upload(self.destination)

    def _accept_next(self) -> None:
        """Accept the first piece if it was stored. Pieces are accepted in order."""
        if self._observing or not self._uploads or self._uploads[0].stored is None:
            return
        upload = self._uploads[0]
        if self._observe is None:
            self._accept(None, upload)
        else:
            self._observing = True
            observing = self._tools.threads.run_blocking(self._observe_blocks, upload.content)
            observing.addCallbacks(self._accept, self._failed, (upload,), errbackArgs=(upload,))

    def _observe_blocks(self, blocks: Sequence[bytes]) -> None:
        assert self._observe is not None
        for block in blocks:
            self._observe(block)

    def _accept(self, _: None, upload: _PieceUpload) -> None:
        piece = upload.stored
        assert piece is not None
        self._observing = False
        self._uploads.popleft()
        upload.content = ()
        if piece.name:
            self._unaccepted.remove(piece.name)
        self.piece_list = self.piece_list.with_piece(piece, upload.joined)
        self._is_saved = False
        if upload.completes:
            self._part_count += 1
            self._tail = ()
        else:
            self._tail = (*(() if upload.joined else self._tail), piece)
        self._tools.memory.release(upload.memory)
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
        self._failure_reported = self._failure_reported or bool(self._syncs)
        self._discard_unstored(error)
        if self._producer is not None:
            self._producer.stopProducing()
        self._advance()

    def _discard_unstored(self, error: StorageError | None = None) -> None:
        """Discard bytes that are not stored, except the piece that is being observed."""
        uploads = list(self._uploads)
        self._uploads.clear()
        if self._observing:
            self._uploads.append(uploads.pop(0))
        for upload in uploads:
            upload.deferred.cancel()
            self._tools.memory.release(upload.memory)
        self._buffer.clear()
        self._leave_queue()
        self._return_unused()
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            sync.deferred.errback(error or StorageError(self.path, "the upload is incomplete"))

    def _save_for(self, due: Sequence[_PendingSync], *, must_save: bool) -> None:
        self._saving = True
        saving: Deferred[Any] = self._save() if must_save else succeed(None)

        def saved(_: object) -> None:
            self._saving = False
            for sync in due:
                sync.deferred.callback(sync.size)
            self._advance()

        def failed(failure: Failure) -> None:
            self._saving = False
            self._syncs = [*due, *self._syncs]
            self._fail(to_storage_error(failure, self.path))

        saving.addCallbacks(saved, failed)

    @inlineCallbacks
    def _save(self) -> DeferredGenerator[None]:
        """Store the list, so that later writers find the pieces that count."""
        if self._was_removed:
            raise PathNotFound(self.key, "was removed while it was being written")
        client, piece_list = self._tools.client, self.piece_list
        yield client.put_object(self.key, piece_list.to_bytes(), metadata=piece_list.metadata)
        self._is_saved = piece_list is self.piece_list
        if self._is_saved and len(piece_list.superseded) > MAX_SUPERSEDED_PIECES:
            # A process that still uses an older list fails now, as it would at the end.
            yield client.delete_objects([self.prefix + name for name in piece_list.superseded])
            self.piece_list = PieceList(piece_list.pieces)

    def _finish(self) -> None:
        self._saving = True  # no other work may start
        ending: Deferred[Any] = succeed(None)
        if not self.destination and self._removing and not self._was_moved:
            ending = self._delete([self.key, *self._object_keys(self.piece_list.names)])
        elif not self.destination and not self._is_saved and self._is_worth_saving:
            ending = self._save()
        ending.addBoth(self._clean_up)

    @property
    def _is_worth_saving(self) -> bool:
        if self.is_gone:
            return False
        return bool(self.piece_list.pieces) or (self._must_exist and self._failure is None)

    def _object_keys(self, names: Sequence[str]) -> list[str]:
        return [self.prefix + name for name in names]

    def _delete(self, keys: Sequence[str]) -> Deferred[Any]:
        return self._tools.client.delete_objects(keys) if keys else succeed(None)

    def _clean_up(self, result: Failure | None) -> None:
        """Delete what no later writer can use, and close."""

        def log_error(failure: Failure) -> None:
            # They use space until the folder of the upload is deleted.
            log.warn(
                "cannot delete unused pieces of an upload: path={path} error={error}",
                path=self.path, error=failure.getErrorMessage(),
            )  # fmt: skip

        names = [*self._unaccepted]
        if self.destination or (self._was_removed and not self._was_moved):
            names += self.piece_list.names
        if self.destination and not self._published:
            self.piece_list = PieceList()
        cleaning = maybeDeferred(self._delete, self._object_keys(names)).addErrback(log_error)
        if self._upload_id:
            cleaning.addCallback(
                lambda _: self._tools.client.abort_multipart_upload(
                    self.destination, self._upload_id
                )
            )
        cleaning.addErrback(log_error)
        cleaning.addCallback(lambda _: self._close(result))

    def _close(self, result: Failure | None) -> None:
        self._ended = True
        memory = self._tools.memory
        memory.remove_user(self)
        self._held = ()
        memory.release(self._held_memory)
        self._held_memory = 0
        self._leave_queue()
        self._return_unused()
        self._release()
        error: BaseException | None = None
        if isinstance(result, Failure):
            error = to_storage_error(result, self.path)
        elif not self._failure_reported:
            error = self._failure
        closing, self._closing = self._closing, []
        for deferred_close in closing:
            if error is None:
                deferred_close.callback(self.piece_list.size)
            else:
                deferred_close.errback(error)

    # Memory. What is collected always fits into what was granted.

    def _pause_if_full(self) -> None:
        """Pause or resume the producer, as there is memory for its next bytes or not."""
        if self._producer is None or self._ending or self._failure is not None:
            return
        if not self._has_room and self._request is None:
            self._request_memory()
        if self._has_room is self._paused and self._producer is not None:
            self._paused = not self._paused
            if self._paused:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    @property
    def _has_room(self) -> bool:
        return self._granted - self._buffer.size >= READ_BYTES

    def _wanted_bytes(self) -> int:
        """Return how many more bytes to ask for.

        They are enough for the rest of the part, with its pieces that are stored already and the
        overshoot of a read; or for what the client sends in :data:`_FILL_S` seconds.
        """
        _, part_size, tail = self._next_part()
        collected = self._buffer.size
        if collected >= part_size - size_of(tail):
            return 0  # two pieces are being stored, and this one waits for them
        wanted = min(part_size, collected + self._fill_bytes) + READ_BYTES
        return max(wanted - self._granted, 0)

    def _request_memory(self) -> None:
        memory = self._tools.memory
        wanted = self._wanted_bytes()
        if not wanted:
            return
        self._estimate_fill()
        wanted = self._wanted_bytes()
        if memory.take(wanted):
            self._add_granted(wanted)
            return
        if not memory.may_keep(self._buffer.size):
            self._store_early()
        self._return_unused()
        if self._request is None:
            self._request = request = memory.acquire(self._wanted_bytes)
            request.addCallbacks(self._served, lambda failure: failure.trap(CancelledError))

    def _served(self, size: int) -> None:
        self._request = None
        self._add_granted(size)
        self._pause_if_full()

    def _add_granted(self, size: int) -> None:
        self._granted += size
        self._granted_at, self._received = self._tools.memory.clock.seconds(), 0

    def _estimate_fill(self) -> None:
        """Estimate what the client sends in :data:`_FILL_S` seconds by what it has sent."""
        if self._granted:
            elapsed_s = self._tools.memory.clock.seconds() - self._granted_at
            sent = self._received * _FILL_S / max(elapsed_s, 0.001)
            self._fill_bytes = max(int(sent), READ_BYTES)

    def _store_early(self) -> None:
        self._sending_early = bool(self._buffer.size)
        self._advance()
        self._return_unused()

    def _count_excess(self) -> None:
        """Count bytes that were written although they do not fit."""
        excess = self._buffer.size - self._granted
        if excess > 0:
            self._tools.memory.take_excess(excess)
            self._granted += excess

    def _move_memory(self, upload: _PieceUpload, size: int) -> None:
        self._granted -= size
        upload.memory += size

    def _leave_queue(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.cancel()

    def _return_unused(self) -> None:
        """Return the memory that is not filled."""
        unused = self._granted - self._buffer.size
        self._granted -= unused
        self._tools.memory.release(unused)
