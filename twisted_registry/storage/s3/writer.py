"""The writer of the s3 driver, and the memory budget that all writers of a process share.

A writer collects bytes on the reactor's thread until they make a chunk. At most two chunks are
stored at the same time, while the next one is collected. A chunk counts when it and all chunks
before it were stored and passed to the observer, on a thread. A chunk that fails discards all
chunks after it, and ``size`` is reduced accordingly.

An upload sends large chunks, which it must hold until the store has them. One upload may hold two
chunks. When the memory of all uploads is exhausted, a writer sends what it has as soon as that is
enough for a part, whatever the configured chunk size is. If no writer is sending, the one with the
most bytes that can be sent sends them. A writer whose chunks cannot be smaller than a part, because
it uploads parts, is never paused below that size; :class:`PartUploadSlots` limits their number.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from twisted_registry.storage.interfaces import IWriter, StorageError
from twisted_registry.storage.s3.errors import to_storage_error
from twisted_registry.storage.writers import PushConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from twisted_registry.storage.interfaces import Change
    from twisted_registry.storage.s3.sinks import ISink
    from twisted_registry.storage.threads import Threads

    #: Returns the changes that finish a file of a size.
    ChangesFor: TypeAlias = Callable[[int], Sequence[Change]]

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"

log = Logger()

#: Chunks of a writer that are stored at the same time.
_MAX_CHUNK_UPLOADS: Final = 2


class IMemoryUser(Interface):
    """A user of the memory budget."""

    buffered: int = Attribute("Collected bytes that are not being stored yet.")
    is_uploading: bool = Attribute("Whether chunks are being stored, which will free memory.")
    can_send_early: bool = Attribute("Whether the collected bytes can be stored now.")

    def send_early() -> None:
        """Store the collected bytes, although they are less than a chunk."""

    def resume() -> None:
        """Accept more bytes, unless there is another reason to pause."""


@define(eq=False)
class MemoryBudget:
    """The memory that all writers of a process share.

    :ivar limit: bytes above which writers are paused.
    :ivar held_bytes: bytes that all users hold.
    """

    limit: int
    held_bytes: int = field(init=False, default=0)
    _held_by_user: dict[IMemoryUser, int] = field(init=False, factory=dict)

    @property
    def is_exhausted(self) -> bool:
        """Whether the limit is reached."""
        return self.held_bytes >= self.limit

    def set_held(self, user: IMemoryUser, size: int) -> None:
        """Record how many bytes a user holds, and resume other users if memory became free."""
        before = self._held_by_user.pop(user, 0)
        if size:
            self._held_by_user[user] = size
        self.held_bytes += size - before
        if size < before and not self.is_exhausted:
            for other in tuple(self._held_by_user):
                other.resume()
        elif size < before:
            self.free_memory()

    def free_memory(self) -> None:
        """If the memory is exhausted and no chunk is being stored, make a user store one."""
        if not self.is_exhausted or any(user.is_uploading for user in self._held_by_user):
            return
        able = [user for user in self._held_by_user if user.can_send_early]
        if able:
            max(able, key=lambda user: user.buffered).send_early()


@define(eq=False)
class PartUploadSlots:
    """Limits the number of writers that upload parts and cannot free memory early.

    :ivar available: number of free slots.
    """

    available: int

    def acquire(self) -> bool:
        """Take a slot; False if none is free."""
        if self.available <= 0:
            return False
        self.available -= 1
        return True

    def release(self) -> None:
        """Return a slot."""
        self.available += 1


@define(eq=False)
class _ChunkUpload:
    """A chunk that is being stored.

    :ivar is_done: whether it was stored.
    :ivar stored: the result of the sink.
    """

    content: Sequence[bytes]
    size: int
    is_done: bool = field(init=False, default=False)
    stored: object = field(init=False, default=None)
    deferred: Deferred[object] = field(init=False, factory=Deferred)


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

    :ivar apply_changes: makes the changes that finish the file.
    :ivar chunk_bytes: size of a chunk, if memory permits.
    :ivar release: called when the path is free again.
    :ivar observe: called with all bytes, on a thread.
    """

    _apply_changes: Callable[[ObjectWriter, ChangesFor], Deferred[int]]
    path: str
    sink: ISink
    _threads: Threads
    _budget: MemoryBudget
    _chunk_bytes: int
    _release: Callable[[], object]
    _observe: Callable[[bytes], object] | None = None
    buffered: int = field(init=False, default=0)
    _content: list[bytes] = field(init=False, factory=list)
    _uploads: deque[_ChunkUpload] = field(init=False, factory=deque)
    _syncs: list[_PendingSync] = field(init=False, factory=list)
    _sending_early: bool = field(init=False, default=False)
    _observing: bool = field(init=False, default=False)
    _saving: bool = field(init=False, default=False)
    #: accepted bytes that the sink keeps in memory
    _sink_bytes: int = field(init=False, default=0)
    #: whether to create the file even if it is empty
    _must_exist: bool = field(init=False, default=False)
    _failure_reported: bool = field(init=False, default=False)
    _removing: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)
    _closing: list[Deferred[int]] = field(init=False, factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    @property
    def size(self) -> int:
        """Bytes of the file, including those that are not stored yet."""
        return self.sink.size + sum(upload.size for upload in self._uploads) + self.buffered

    @property
    def content_id(self) -> str:
        """Identifies the stored bytes."""
        return self.sink.content_id

    @property
    def is_uploading(self) -> bool:
        """Whether chunks are being stored."""
        return bool(self._uploads)

    @property
    def is_settled(self) -> bool:
        """Whether all written bytes are stored."""
        return not (self.buffered or self._uploads)

    def write(self, data: bytes) -> None:
        """Accept bytes; ignored after a failure, ``close`` and ``cancel``."""
        if self._failure is not None or self._ending or not data:
            return
        self._content.append(data)
        self.buffered += len(data)
        self._advance()
        self._update_budget()
        self._pause_if_full()

    def flush(self) -> Deferred[int]:
        """Fire with the size when later writers find all bytes written so far."""
        if self.sink.is_resumable or self._failure is not None:
            return self._sync(must_save=True)
        # Nobody can continue this file, and the rest of it will not be written.
        self._ending = True
        self._discard_unstored()
        return succeed(0)

    def commit(self) -> Deferred[int]:
        """Fire with the size when all bytes written so far are stored, or kept for ``finalize``."""
        return self._sync(must_save=False)

    def finalize(self, decide: ChangesFor) -> Deferred[int]:
        """Commit, make the changes that ``decide`` returns, and close."""
        return self._apply_changes(self, decide)

    def close(self) -> Deferred[int]:
        """Stop writing, keep the stored bytes, and release the path."""
        if self._ended:
            return succeed(self.sink.size)
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

    @property
    def can_send_early(self) -> bool:
        """Whether the collected bytes are enough for a chunk of the sink."""
        return self.buffered >= max(self.sink.min_bytes, 1)

    def send_early(self) -> None:
        """Store the collected bytes."""
        self._sending_early = True
        self._advance()

    def resume(self) -> None:
        """Resume the producer, unless this writer holds two chunks."""
        full = self.size - self.sink.size >= _MAX_CHUNK_UPLOADS * self._chunk_bytes
        if self._paused and not full and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

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
        while not (self._ended or self._saving) and self._may_start():
            self._start()
        # This method is called recursively if the sink stores a chunk at once.
        if self._ended or self._saving:
            return
        due = [sync for sync in self._syncs if sync.size <= self.sink.size]
        if due:
            self._syncs = [sync for sync in self._syncs if sync not in due]
            must_save = any(sync.must_save for sync in due) and not self.sink.is_saved
            self._save(due, must_save=must_save)
        elif self._ending and self.is_settled:
            self._finish()

    def _may_start(self) -> bool:
        uploads = self._uploads
        if not self.buffered or len(uploads) >= _MAX_CHUNK_UPLOADS:
            return False
        if uploads and (self.sink.tail_bytes or uploads[-1].size < self.sink.min_part_bytes):
            return False  # the pending chunk may have to be joined with the next one
        if self._ending or self._syncs:
            return True
        large = self.sink.min_part_bytes if self._budget.is_exhausted else self._chunk_bytes
        return self._sending_early or self.buffered + self.sink.tail_bytes >= large

    def _start(self) -> None:
        upload = _ChunkUpload(self._content, self.buffered)
        self._content, self.buffered, self._sending_early = [], 0, False
        self._uploads.append(upload)
        last = self._ending or bool(self._syncs)
        upload.deferred = self.sink.store(upload.content, upload.size, last=last)
        upload.deferred.addCallback(self._chunk_stored, upload)
        upload.deferred.addErrback(self._failed, upload)

    def _chunk_stored(self, stored: object, upload: _ChunkUpload) -> None:
        upload.is_done, upload.stored = True, stored
        self._accept_next()

    def _accept_next(self) -> None:
        """Accept the first chunk if it was stored. Chunks are accepted in order."""
        if self._observing or not self._uploads or not self._uploads[0].is_done:
            return
        upload = self._uploads[0]
        if self._observe is None:
            self._chunk_observed(None, upload)
        else:
            self._observing = True
            observing = self._threads.run_blocking(self._observe_chunk, upload.content)
            observing.addCallbacks(
                self._chunk_observed, self._failed, (upload,), errbackArgs=(upload,)
            )

    def _observe_chunk(self, content: Sequence[bytes]) -> None:
        assert self._observe is not None
        for data in content:
            self._observe(data)

    def _chunk_observed(self, _: None, upload: _ChunkUpload) -> None:
        self._observing = False
        self._uploads.popleft()
        if not self.sink.accept(upload.stored):
            self._sink_bytes += upload.size
        self._update_budget()
        self._resume_if_free()
        self._accept_next()
        self._advance()

    def _resume_if_free(self) -> None:
        """Resume the producer if there is memory, or if this writer has collected no bytes."""
        if not self._budget.is_exhausted or not self.buffered:
            self.resume()

    def _failed(self, failure: Failure, upload: _ChunkUpload) -> None:
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
        """Discard bytes that are not stored, except the chunk that is being observed."""
        uploads = list(self._uploads)
        self._uploads.clear()
        if self._observing:
            self._uploads.append(uploads.pop(0))
        for upload in uploads:
            upload.deferred.cancel()
        self._content, self.buffered = [], 0
        self._update_budget()
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            sync.deferred.errback(error or StorageError(self.path, "the upload is incomplete"))

    def _save(self, due: Sequence[_PendingSync], *, must_save: bool) -> None:
        self._saving = True
        saving: Deferred[Any] = self.sink.save() if must_save else succeed(None)

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

    def _finish(self) -> None:
        self._saving = True  # no other work may start
        if self._removing:
            ending = maybeDeferred(self.sink.remove)
        elif not self.sink.is_saved and self._is_worth_saving:
            ending = maybeDeferred(self.sink.save)
        else:
            ending = succeed(None)
        ending.addBoth(self._release_sink)

    @property
    def _is_worth_saving(self) -> bool:
        if self.sink.current.is_gone:
            return False
        return bool(self.sink.size) or (self._must_exist and self._failure is None)

    def _release_sink(self, result: Failure | None) -> None:
        def log_error(failure: Failure) -> None:
            # They use space until the folder of the upload is deleted.
            log.warn(
                "cannot delete unused pieces of an upload: path={path} error={error}",
                path=self.path, error=failure.getErrorMessage(),
            )  # fmt: skip

        cleaning = maybeDeferred(self.sink.clean_up)
        cleaning.addErrback(log_error)
        cleaning.addCallback(lambda _: self._closed(result))

    def _closed(self, result: Failure | None) -> None:
        self._ended = True
        self._sink_bytes = 0
        self._update_budget()
        self._release()
        error: BaseException | None = None
        if result is not None:
            error = to_storage_error(result, self.path)
        elif not self._failure_reported:
            error = self._failure
        closing, self._closing = self._closing, []
        for deferred_close in closing:
            if error is None:
                deferred_close.callback(self.sink.size)
            else:
                deferred_close.errback(error)

    def _update_budget(self) -> None:
        held = self.size - self.sink.size + self._sink_bytes
        if self._uploads and self._uploads[0].size < self.sink.min_part_bytes:
            held += self.sink.tail_bytes  # read, to be stored again with the chunk
        self._budget.set_held(self, held)

    def _pause_if_full(self) -> None:
        short = self._budget.is_exhausted and self.can_send_early
        full = self.size - self.sink.size >= _MAX_CHUNK_UPLOADS * self._chunk_bytes
        if (full or short) and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
            self._budget.free_memory()
