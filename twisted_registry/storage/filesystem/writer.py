"""The writer of the filesystem driver.

Written bytes collect on the reactor's thread and are stored in batches, one at a time, on a thread
that also feeds the observer, so that the reactor runs while bytes are hashed and stored. What is
written in one turn of the reactor is stored in one batch, and so is the end: a small upload (bytes,
then ``close`` or ``finalize``) needs one call of a thread.

:class:`AppendFile` is the file as the thread sees it: one call at a time, and each may block.
Failures are undone: the file is truncated to what was stored before the call, and the observer has
not seen the rest. If an fsync fails, the file is truncated to what this writer has synced, perhaps
to nothing: what it found in the file may be lost, too.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.storage.filesystem.locks import is_same_file
from twisted_registry.storage.filesystem.oscalls import translate_oserror
from twisted_registry.storage.filesystem.tree import write_all
from twisted_registry.storage.interfaces import IDirectWriter, StorageError
from twisted_registry.storage.writers import TRIM_THRESHOLD_BYTES, PushConsumer, trim_heap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.storage.filesystem.tree import FileTree
    from twisted_registry.storage.interfaces import Change
    from twisted_registry.storage.threads import Threads

log = Logger()

#: Interval at which the kernel is told to begin writing to the disk.
_WRITEBACK_BYTES = 8 * 1024 * 1024
#: Smaller pieces are joined, to be written by one call.
SMALL_WRITE_BYTES = 64 * 1024
#: Bytes stored and then hashed at once, as many as the cache of a processor holds; one ``write``
#: may exceed it.
_BATCH_BYTES = 512 * 1024
#: Bytes after which a thread that always finds more gives other writers a turn.
_MAX_TURN_BYTES = 32 * 1024 * 1024
#: Bytes read from a source, stored and hashed at a time.
_READ_BUFFER_BYTES = 128 * 1024


@define(eq=False)
class AppendFile:
    """An open, locked file. All methods block.

    :ivar path: the path.
    :ivar fd: the descriptor, which this object takes over.
    :ivar stored: bytes in the file.
    :ivar observe: called with the stored bytes, in order.
    :ivar entry_synced: whether the name is durable.
    :ivar removing: whether ``release`` deletes the file.
    :ivar is_freed: whether the descriptor is closed, or closing it has failed.
    """

    _tree: FileTree
    path: str
    fd: int
    stored: int
    observe: Callable[[bytes], object] | None = None
    entry_synced: bool = field(init=False, default=False)
    removing: bool = field(init=False, default=False)
    is_freed: bool = field(init=False, default=False)
    _synced_size: int = field(init=False, default=0)

    def append(self, batch: list[bytes]) -> None:
        """Store pieces and pass them to the observer."""
        if sum(map(len, batch)) < SMALL_WRITE_BYTES * len(batch):
            batch = [b"".join(batch)]
        for piece in batch:
            self.append_piece(piece)

    def append_piece(self, data: bytes) -> None:
        """Store one piece and pass it to the observer."""
        before = self.stored
        try:
            write_all(self._tree.files, self.fd, data, before)
            if self.observe is not None:
                self.observe(data)
        except BaseException:
            self._truncate(before)
            raise
        self.stored += len(data)
        begin = before // _WRITEBACK_BYTES * _WRITEBACK_BYTES
        end = self.stored // _WRITEBACK_BYTES * _WRITEBACK_BYTES
        if begin != end:
            # Leaves less to wait for at the end.
            self._tree.files.start_writeback(self.fd, begin, end - begin)

    def fsync_content(self) -> None:
        """Make the stored bytes durable."""
        try:
            self._tree.files.fsync(self.fd)
        except OSError:
            # The kernel reports lost pages once and then marks them clean: a second fsync would
            # succeed although bytes are missing.
            self._truncate(self._synced_size)
            raise
        self._synced_size = self.stored

    def fsync_entry(self) -> None:
        """Make the name durable."""
        self._tree.dir_syncer.fsync_entries((self.path,))
        self.entry_synced = True

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Exception | None:
        """Make the changes that ``decide`` returns; return the error if that fails."""
        try:
            self._tree.change(decide(self.stored))
        except OSError as error:
            return translate_oserror(error, self.path)
        except Exception as error:  # noqa: BLE001 - passed to the caller of finalize()
            return error
        return None

    def _truncate(self, size: int) -> None:
        with suppress(OSError):
            self._tree.files.truncate(self.fd, size)
            self.stored = size

    def release(self) -> None:
        """Close the descriptor, which unlocks the file; delete it before if ``removing``.

        :raises StorageError: if deleting or closing fails; the file is unlocked nevertheless.
        """
        try:
            try:
                if self.removing and is_same_file(self._tree, self.path, self.fd):
                    self._tree.files.unlink(self._tree.os_path(self.path))
            finally:
                self.is_freed = True
                self._tree.files.close(self.fd)
        except OSError as error:
            raise translate_oserror(error, self.path) from error


@define(eq=False)
class WriteBudget:
    """Bytes that the writers of a driver may buffer, together.

    A single upload gets enough to keep the disk busy. Many uploads share, so that memory does not
    grow with their number.

    :ivar per_writer_bytes: maximum of one writer.
    :ivar total_bytes: maximum of all writers, unless each has the minimum.
    :ivar min_bytes: minimum of one writer.
    :ivar writers: number of open writers.
    """

    per_writer_bytes: int = 4 * 1024 * 1024
    total_bytes: int = 32 * 1024 * 1024
    min_bytes: int = 256 * 1024
    writers: int = field(init=False, default=0)

    @property
    def limit(self) -> int:
        """Bytes above which the producer of a writer is paused."""
        share = self.total_bytes // max(self.writers, 1)
        return max(self.min_bytes, min(self.per_writer_bytes, share))


@define(eq=False)
class _SyncRequest:
    """A caller that waits until the file is durable.

    :ivar size: up to which byte.
    :ivar entry: whether the name must be durable, too.
    :ivar decide: the argument of ``finalize``, or None.
    """

    size: int
    entry: bool = False
    decide: Callable[[int], Sequence[Change]] | None = None
    waiting: Deferred[int] = field(init=False, factory=Deferred)


@implementer(IDirectWriter)
class FileWriter(PushConsumer):
    """The writer of a file, which is locked until the writer is closed.

    :ivar size: bytes that are stored or wait to be stored.
    """

    content_id: ClassVar[str] = ""

    def __init__(
        self,
        tree: FileTree,
        threads: Threads,
        clock: IReactorTime,
        budget: WriteBudget,
        path: str,
        fd: int,
        size: int,
        observe: Callable[[bytes], object] | None,
        on_close: Callable[[], None],
    ) -> None:
        """Continue a file.

        :param fd: a descriptor with the lock, which the writer takes over.
        :param size: bytes in the file.
        :param on_close: called once the file is unlocked.
        """
        super().__init__()
        self._file = AppendFile(tree, path, fd, size, observe)
        self._threads = threads
        self._clock = clock
        self._budget = budget
        self._path = path
        self.size = size
        self._on_close = on_close
        self._pending: deque[bytes] = deque()
        self._syncs: list[_SyncRequest] = []
        self._batch_call: IDelayedCall | None = None
        self._source: Any = None
        self._append_done: Deferred[None] | None = None
        self._busy = False
        self._failure_reported = False
        self._ended = False
        self._close_waiters: list[Deferred[int]] = []
        self._budget.writers += 1

    def write(self, data: bytes) -> None:
        """Buffer bytes; after a failure, ``close`` or ``cancel`` they are dropped."""
        if self._failure is not None or self._ending or not data:
            return
        self._pending.append(data)
        self.size += len(data)
        self._pause_if_full()
        if self._busy or self._batch_call is not None:
            return
        if len(data) < SMALL_WRITE_BYTES:
            self._batch_call = self._clock.callLater(0, self._turn_ended)
        else:
            self._start_job()

    @property
    def append_from(self) -> Callable[[Any], Deferred[None] | None] | None:
        """A function that reads from a source directly; None if this is the only writer.

        A single upload is stored faster if one thread reads and another one stores.
        """
        return self._append_from if self._budget.writers > 1 else None

    def _append_from(self, source: Any) -> Deferred[None] | None:
        if self._failure is not None or self._ending:
            return None
        done: Deferred[None] = Deferred()
        self._source, self._append_done = source, done
        self._start_job()
        return done

    def flush(self) -> Deferred[int]:
        """Fire with the size once all bytes written so far, and the name, are durable."""
        return self._sync(_SyncRequest(self.size, entry=True))

    def commit(self) -> Deferred[int]:
        """Fire with the size once all bytes written so far are durable."""
        return self._sync(_SyncRequest(self.size))

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Commit, make the changes that ``decide`` returns and close, in one call of a thread."""
        return self._sync(_SyncRequest(self.size, decide=decide))

    def close(self) -> Deferred[int]:
        """Store the buffered bytes, and unlock."""
        if self._ended:
            return succeed(self._file.stored)
        self._ending = True
        closed: Deferred[int] = Deferred()
        self._close_waiters.append(closed)
        self._start_job()
        return closed

    def cancel(self) -> Deferred[None]:
        """Drop the buffered bytes, delete the file, and unlock."""
        self._file.removing = self._failure_reported = True
        self._drop_pending(StorageError(self._path, "the writer is cancelled"))
        return self.close().addCallback(lambda _: None)

    def _sync(self, sync: _SyncRequest) -> Deferred[int]:
        if self._failure is not None:
            self._failure_reported = True
            return fail(self._failure)
        if self._ending:
            return fail(StorageError(self._path, "the writer is closed"))
        self._syncs.append(sync)
        self._start_job()
        return sync.waiting

    def _turn_ended(self) -> None:
        self._batch_call = None
        self._start_job()

    def _start_job(self) -> None:
        """Pass the next batch to a thread, unless one is busy."""
        if self._busy or self._ended:
            return
        if self._batch_call is not None:
            self._batch_call.cancel()
            self._batch_call = None
        batch = self._take_batch()
        length = sum(map(len, batch))
        due = [sync for sync in self._syncs if sync.size <= self._file.stored + length]
        if batch or due or self._source is not None:
            self._syncs = [sync for sync in self._syncs if sync not in due]
            entry = any(sync.entry for sync in due) and not self._file.entry_synced
            decide = next((sync.decide for sync in due if sync.decide is not None), None)
            last = self._ending and not self._pending
            self._busy = True
            job = self._threads.run_blocking(
                self._store_batch, batch, bool(due), entry, decide, last
            )
            job.addCallbacks(self._done, self._failed, (due,), errbackArgs=(due,))
        elif self._ending:
            self._busy = True
            self._threads.run_blocking(self._file.release).addBoth(self._released)

    def _done(self, fault: Exception | None, due: list[_SyncRequest]) -> None:
        self._busy = False
        if self._source is not None and (self._source.finished or self._ending):
            self._return_source()
        if self._file.is_freed:
            self._released(None)
        for sync in due:
            if sync.decide is not None and fault is not None:
                sync.waiting.errback(fault)
            else:
                sync.waiting.callback(sync.size)
        self._resume()
        self._start_job()

    def _return_source(self) -> None:
        done, self._source, self._append_done = self._append_done, None, None
        if done is not None:
            done.callback(None)

    def _resume(self) -> None:
        if self._paused and self._has_room():
            self._paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def _has_room(self) -> bool:
        return self.size - self._file.stored < self._budget.limit // 2

    def _failed(self, failure: Failure, due: list[_SyncRequest]) -> None:
        self._busy = False
        error = failure.value
        if not isinstance(error, StorageError):
            log.failure("the observer of {path} failed", failure, path=self._path)
            error = StorageError(self._path, repr(error))
        self._failure = error
        self._syncs = due + self._syncs
        self._failure_reported = self._failure_reported or bool(self._syncs)
        self._drop_pending(error)
        self._return_source()
        if self._producer is not None:
            self._producer.stopProducing()
        if self._file.is_freed:
            self._released(failure)
        self._start_job()

    def _drop_pending(self, why: StorageError) -> None:
        self._pending.clear()
        self.size = self._file.stored
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            sync.waiting.errback(why)

    def _released(self, result: Failure | None) -> None:
        self._ending = self._ended = True
        self._budget.writers -= 1
        self._on_close()
        if self._file.stored >= TRIM_THRESHOLD_BYTES:
            # Nothing depends on it; it fails while the driver is being closed.
            self._threads.run_blocking(trim_heap).addErrback(lambda _: None)
        self.size = self._file.stored
        error: BaseException | None = None if result is None else result.value
        if error is None and not self._failure_reported:
            error = self._failure
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            # A call that came while finalize() closed the file.
            sync.waiting.errback(StorageError(self._path, "the writer is closed"))
        waiters, self._close_waiters = self._close_waiters, []
        for waiter in waiters:
            if error is None:
                waiter.callback(self._file.stored)
            else:
                waiter.errback(error)

    def _pause_if_full(self) -> None:
        if (
            self._producer is not None
            and not self._paused
            and self.size - self._file.stored > self._budget.limit
        ):
            self._paused = True
            self._producer.pauseProducing()

    def _take_batch(self) -> list[bytes]:
        """Take a batch of buffered bytes, on either thread."""
        batch: list[bytes] = []
        length = 0
        # The reactor's thread may empty the deque at any time.
        with suppress(IndexError):
            while length < _BATCH_BYTES:
                piece = self._pending.popleft()
                batch.append(piece)
                length += len(piece)
        return batch

    # The following methods run on a thread, one call at a time.

    def _store_batch(
        self,
        batch: list[bytes],
        sync: bool,  # noqa: FBT001
        entry: bool,  # noqa: FBT001
        decide: Callable[[int], Sequence[Change]] | None,
        last: bool,  # noqa: FBT001
    ) -> Exception | None:
        """Store a batch; sync, finalize and release the file as requested.

        :param sync: whether to make the content durable.
        :param entry: whether to make the name durable.
        :param decide: the argument of ``finalize``, or None.
        :param last: whether to release the file.
        :returns: the error of ``finalize``, or None.
        """
        file = self._file
        try:
            file.append(batch)
            if not (sync or last):
                self._store_more()
            if sync:
                file.fsync_content()
            if entry:
                file.fsync_entry()
        except OSError as error:
            raise translate_oserror(error, self._path) from error
        fault = None if decide is None else file.finalize(decide)
        if last or (decide is not None and fault is None):
            file.release()
        return fault

    def _store_more(self) -> None:
        """Store what was written meanwhile, to save another call of a thread."""
        end = self._file.stored + _MAX_TURN_BYTES
        while self._file.stored < end:
            if self._paused and self._has_room():
                self._threads.call_from_thread(self._resume)
            batch = self._take_batch()
            if batch:
                self._file.append(batch)
            elif self._source is None or self._source.finished:
                return
            else:
                self._read_from(self._source, end)

    def _read_from(self, source: Any, end: int) -> None:
        """Store what a source has, up to ``end``; each piece is hashed while it is in the cache."""
        buffer = memoryview(bytearray(_READ_BUFFER_BYTES))
        while self._file.stored < end and not (source.finished or self._ending):
            length = source.read_into(buffer)
            if length:
                self.size += length
                self._file.append_piece(cast("bytes", buffer[:length]))
        source.finished = True
