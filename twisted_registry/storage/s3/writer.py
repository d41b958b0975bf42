"""The writer of the s3 driver.

Bytes gather on the reactor's thread until there are enough for a chunk, which is then on its way
to the store while the next one gathers: at most two are. A chunk counts when it and all before
it are stored, and were shown to the observer, on a thread. One that fails takes all behind it
with it, and ``size`` tells the truth.

How much memory the uploads of one process may hold, all together.

An upload sends large parts, which it must hold until the store has them. One alone may hold two
parts; a hundred at once must not hold a hundred times that. When memory is short, whoever holds
enough for a part sends it, however large the configured parts are; and if nobody does, the one
that holds most of what can be sent sends it. Who can send no less than a part, because parts were
sent before, is never kept waiting below that: there are few of those (:class:`PartUploadSlots`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

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

    # @@EMPTY
    from twisted_registry.storage.s3.sinks import ISink
    from twisted_registry.storage.threads import Threads

    ChangesFor: TypeAlias = Callable[[int], Sequence[Change]]

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"


class IMemoryUser(Interface):
    """Somebody who holds bytes until the store has them."""

    buffered: int = Attribute("Bytes that are not on their way yet.")
    is_uploading: bool = Attribute(
        "Whether bytes are on their way, so that some will be free soon."
    )

    can_send_early: bool = Attribute("Whether what is collected could be sent now.")

    def send_early() -> None:
        """Send what is collected, even if it is little."""

    def resume() -> None:
        """Take more bytes, unless there is another reason not to."""


@define(eq=False)
class MemoryBudget:
    """The bytes of all holders.

    :ivar limit: bytes beyond which nobody takes more, as a rule.
    """

    limit: int
    _held_bytes: dict[IMemoryUser, int] = field(init=False, factory=dict)
    _total: int = field(init=False, default=0)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no memory left to take."""
        return self._total >= self.limit

    def set_held(self, user: IMemoryUser, size: int) -> None:
        """Take note that a holder holds ``size`` bytes now."""
        before = self._held_bytes.pop(user, 0)
        if size:
            self._held_bytes[user] = size
        self._total += size - before
        if size < before and not self.is_exhausted:
            for other in tuple(self._held_bytes):
                other.resume()
        elif size < before:
            self.free_memory()

    def free_memory(self) -> None:
        """If no memory is left, see to it that some will be."""
        if not self.is_exhausted or any(user.is_uploading for user in self._held_bytes):
            return
        able = [user for user in self._held_bytes if user.can_send_early]
        if able:
            max(able, key=lambda user: user.buffered).send_early()


@define(eq=False)
class PartUploadSlots:
    """How many may do at once what holds memory that can not be freed early.

    :ivar free: how many more.
    """

    available: int

    def acquire(self) -> bool:
        """Take one, if there is one."""
        if self.available <= 0:
            return False
        self.available -= 1
        return True

    def release(self) -> None:
        """Give one back."""
        self.available += 1


log = Logger()

#: Chunks on their way to the store at once.
_MAX_CHUNK_UPLOADS = 2


@define(eq=False)
class _ChunkUpload:
    """A chunk on its way.

    :ivar stored: what the sink told when it was stored.
    """

    content: Sequence[bytes]
    size: int
    is_done: bool = field(init=False, default=False)
    stored: object = field(init=False, default=None)
    deferred: Deferred[object] = field(init=False, factory=Deferred)


@define(eq=False)
class _PendingSync:
    """A caller who waits until what was written is stored.

    :ivar size: up to which byte.
    :ivar saved: whether a later writer must find it.
    """

    size: int
    saved: bool
    deferred: Deferred[int] = field(factory=Deferred)


@implementer(IWriter, IMemoryUser)
@define(eq=False)
class ObjectWriter(PushConsumer):
    """The one writer of a path in this process.

    :ivar conclude: makes the changes that end the file.
    :ivar chunk: bytes of a chunk, if memory allows.
    :ivar release: called when the path is free again.
    """

    _apply_changes: Callable[[ObjectWriter, ChangesFor], Deferred[int]]
    path: str
    sink: ISink
    _threads: Threads
    _budget: MemoryBudget
    _chunk: int
    _release: Callable[[], object]
    _observe: Callable[[bytes], object] | None = None
    buffered: int = field(init=False, default=0)
    _content: list[bytes] = field(init=False, factory=list)
    _uploads: deque[_ChunkUpload] = field(init=False, factory=deque)
    _syncs: list[_PendingSync] = field(init=False, factory=list)
    _sending_early: bool = field(init=False, default=False)
    _observing: bool = field(init=False, default=False)
    _saving: bool = field(init=False, default=False)
    #: bytes that the sink keeps in memory
    _sink_bytes: int = field(init=False, default=0)
    #: whether somebody asked for the file to be there, even if it is empty
    _must_exist: bool = field(init=False, default=False)
    _failure_reported: bool = field(init=False, default=False)
    _removing: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)
    _closing: list[Deferred[int]] = field(init=False, factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    @property
    def size(self) -> int:
        """Bytes under the path, those still in flight included."""
        return self.sink.size + sum(upload.size for upload in self._uploads) + self.buffered

    @property
    def content_id(self) -> str:
        """Names the bytes that are stored."""
        return self.sink.mark

    @property
    def is_uploading(self) -> bool:
        """Whether bytes are on their way."""
        return bool(self._uploads)

    @property
    def is_settled(self) -> bool:
        """Whether all that was written is stored, and more can not come from here."""
        return not (self.buffered or self._uploads)

    def write(self, data: bytes) -> None:
        """Take bytes; dropped after a failure, ``close`` and ``cancel``."""
        if self._failure is not None or self._ending or not data:
            return
        self._content.append(data)
        self.buffered += len(data)
        self._advance()
        self._update_budget()
        self._pause_if_full()

    def flush(self) -> Deferred[int]:
        """Fire with the size once a later writer finds all written so far."""
        if self.sink.is_resumable or self._failure is not None:
            return self._sync(saved=True)
        # Part of a file is of no use to anybody; the rest will not come.
        self._ending = True
        self._discard_unstored()
        return succeed(0)

    def commit(self) -> Deferred[int]:
        """Fire with the size once all written so far is stored, or ready to be."""
        return self._sync(saved=False)

    def finalize(self, decide: ChangesFor) -> Deferred[int]:
        """Commit, make the changes that ``decide`` answers, and close."""
        return self._apply_changes(self, decide)

    def close(self) -> Deferred[int]:
        """Stop writing, keep what is stored, and let another writer come."""
        if self._ended:
            return succeed(self.sink.size)
        self._ending = True
        deferred_close: Deferred[int] = Deferred()
        self._closing.append(deferred_close)
        self._advance()
        return deferred_close

    def cancel(self) -> Deferred[None]:
        """Stop writing, remove the file, and let another writer come."""
        self._removing = self._failure_reported = True
        self._discard_unstored(StorageError(self.path, "the writer is cancelled"))
        return self.close().addCallback(lambda _: None)

    @property
    def can_send_early(self) -> bool:
        """Whether the sink takes what is collected, however little."""
        return self.buffered >= max(self.sink.min_bytes, 1)

    def send_early(self) -> None:
        """Send what is collected."""
        self._sending_early = True
        self._advance()

    def resume(self) -> None:
        """Take more bytes, unless two chunks of our own are held already."""
        full = self.size - self.sink.size >= _MAX_CHUNK_UPLOADS * self._chunk
        if self._paused and not full and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def _sync(self, *, saved: bool) -> Deferred[int]:
        if self._failure is not None:
            self._failure_reported = True
            return fail(self._failure)
        if self._ending:
            return fail(StorageError(self.path, "the writer is closed"))
        self._must_exist = True
        sync = _PendingSync(self.size, saved)
        self._syncs.append(sync)
        self._advance()
        return sync.deferred

    def _advance(self) -> None:
        """Do what can be done now."""
        while not (self._ended or self._saving) and self._may_start():
            self._start()
        # A store that answers at once may have brought us here before.
        if self._ended or self._saving:
            return
        due = [sync for sync in self._syncs if sync.size <= self.sink.size]
        if due:
            self._syncs = [sync for sync in self._syncs if sync not in due]
            wanted = any(sync.saved for sync in due) and not self.sink.saved
            self._save(due, wanted=wanted)
        elif self._ending and self.is_settled:
            self._finish()

    def _may_start(self) -> bool:
        uploads = self._uploads
        if not self.buffered or len(uploads) >= _MAX_CHUNK_UPLOADS:
            return False
        if uploads and (self.sink.tail or uploads[-1].size < self.sink.min_part_bytes):
            return False  # what flies may have to be joined with what would follow
        if self._ending or self._syncs:
            return True
        large = self.sink.min_part_bytes if self._budget.is_exhausted else self._chunk
        return self._sending_early or self.buffered + self.sink.tail >= large

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
        """Count the first chunk if it has landed: they count in order."""
        if self._observing or not self._uploads or not self._uploads[0].is_done:
            return
        upload = self._uploads[0]
        if self._observe is None:
            self._chunk_observed(None, upload)
        else:
            self._observing = True
            showing = self._threads.run_blocking(self._observe_chunk, upload.content)
            showing.addCallbacks(
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
        """Take more bytes if there is memory, or if we hold none of it."""
        if not self._budget.is_exhausted or not self.buffered:
            self.resume()

    def _failed(self, failure: Failure, upload: _ChunkUpload) -> None:
        if upload not in self._uploads:
            return  # dropped by an earlier failure, or by the caller
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

    def _discard_unstored(self, why: StorageError | None = None) -> None:
        """Forget what is not stored yet, but for what the observer is looking at."""
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
            sync.deferred.errback(why or StorageError(self.path, "the rest did not come"))

    def _save(self, due: Sequence[_PendingSync], *, wanted: bool) -> None:
        self._saving = True
        saving: Deferred[Any] = self.sink.save() if wanted else succeed(None)

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
        self._saving = True  # nothing else can begin any more
        if self._removing:
            ending = maybeDeferred(self.sink.remove)
        elif not self.sink.saved and self._is_worth_saving:
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
        def told(failure: Failure) -> None:
            # Strays cost room, and go with the folder of the upload.
            log.warn(
                "pieces of {path} that nobody needs could not be removed: {error}",
                path=self.path, error=failure.getErrorMessage(),
            )  # fmt: skip

        leaving = maybeDeferred(self.sink.clean_up)
        leaving.addErrback(told)
        leaving.addCallback(lambda _: self._closed(result))

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
            held += self.sink.tail  # which is read, to be stored again
        self._budget.set_held(self, held)

    def _pause_if_full(self) -> None:
        short = self._budget.is_exhausted and self.can_send_early
        full = self.size - self.sink.size >= _MAX_CHUNK_UPLOADS * self._chunk
        if (full or short) and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
            self._budget.free_memory()
