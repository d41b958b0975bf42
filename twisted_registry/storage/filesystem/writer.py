"""A file that grows, as a thread sees it: one call at a time, and each may wait for the disk.

What fails is taken back: the file is cut to what was stored before it, and the observer has not
seen it. When a sync fails the file is cut to what was synced here, be that nothing: what was found
may be lost as well.

Memory that went through the C library's heap, given back to the system after a large upload.

What comes from a socket at a time is up to 1 MiB. glibc cuts such pieces out of a heap, of which
by itself it gives back only what lies beyond the last byte in use: after some pushes of eight
clients, 10 to 15 MiB stay that nobody uses. To map each piece anew would cost a fifth more
processor time; to look through the heap once at the end costs a millisecond.

The writer of the filesystem driver.

Bytes gather on the reactor's thread and go to the file in batches, one batch at a time, on a
thread that also feeds the observer: hashing and writing both let the reactor run meanwhile.
What belongs to the same turn of the reactor travels together, and so does the end: a small
upload (bytes, then close or conclude) costs one trip to a thread and back. What a thread does to
the file is in ``growing.py``.
"""

from __future__ import annotations

import ctypes
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.storage.filesystem.locks import is_same_file
from twisted_registry.storage.filesystem.oscalls import translate_oserror
from twisted_registry.storage.filesystem.tree import write_all
from twisted_registry.storage.interfaces import IWriter, StorageError
from twisted_registry.storage.writers import PushConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.storage.filesystem.tree import FileTree
    from twisted_registry.storage.interfaces import Change
    from twisted_registry.storage.threads import Threads

#: Bytes after which the disk is told to begin.
_WRITEBACK_BYTES = 8 * 1024 * 1024
#: Pieces of less than this are copied together, to be written at once.
SMALL_WRITE_BYTES = 64 * 1024


class AppendFile:
    """An open, locked file.

    :ivar fd: its descriptor.
    :ivar stored: bytes that are in it.
    :ivar entry_lasts: whether its name was made to last.
    :ivar removing: whether it is to be removed when it is released.
    :ivar is_freed: whether it is closed, or that was tried.
    """

    def __init__(
        self,
        tree: FileTree,
        path: str,
        fd: int,
        size: int,
        observe: Callable[[bytes], object] | None,
    ) -> None:
        """Take over a descriptor.

        :param size: bytes that are in the file.
        :param observe: shown what is stored, in order.
        """
        self._tree = tree
        self._path = path
        self.fd = fd
        self._observe = observe
        self.stored = size
        #: bytes that were in it when it was synced last
        self._synced_size = 0
        self.entry_synced = False
        self.removing = False
        self.is_freed = False

    def append(self, batch: list[bytes]) -> None:
        """Store pieces, and show them to the observer."""
        if sum(map(len, batch)) < SMALL_WRITE_BYTES * len(batch):
            batch = [b"".join(batch)]
        for piece in batch:
            self.append_piece(piece)

    def append_piece(self, data: bytes) -> None:
        """Store a piece as it is, and show it to the observer."""
        before = self.stored
        try:
            write_all(self._tree.files, self.fd, data, before)
            if self._observe is not None:
                self._observe(data)
        except BaseException:
            self._truncate(before)
            raise
        self.stored += len(data)
        begun, ready = (
            before // _WRITEBACK_BYTES * _WRITEBACK_BYTES,
            self.stored // _WRITEBACK_BYTES * _WRITEBACK_BYTES,
        )
        if begun != ready:
            # So that little is left to be waited for at the end.
            self._tree.files.start_writeback(self.fd, begun, ready - begun)

    def fsync_content(self) -> None:
        """Let what is stored survive a power cut."""
        try:
            self._tree.files.fsync(self.fd)
        except OSError:
            # The kernel reports lost pages once and then calls them clean: a second fsync would
            # succeed with a hole in the file.
            self._truncate(self._synced_size)
            raise
        self._synced_size = self.stored

    def fsync_entry(self) -> None:
        """Let its name survive a power cut."""
        self._tree.dir_syncer.fsync_entries((self._path,))
        self.entry_synced = True

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Exception | None:
        """Make the changes that are decided on; answer what kept them from being made."""
        try:
            self._tree.change(decide(self.stored))
        except OSError as error:
            return translate_oserror(error, self._path)
        except Exception as error:  # noqa: BLE001 (whatever it is, whoever decides is to hear of it)
            return error
        return None

    def _truncate(self, size: int) -> None:
        with suppress(OSError):
            self._tree.files.truncate(self.fd, size)
            self.stored = size

    def release(self) -> None:
        """Unlock it, and remove it if that is wanted.

        :raises StorageError: if that fails; it is unlocked all the same.
        """
        try:
            try:
                if self.removing and is_same_file(self._tree, self._path, self.fd):
                    self._tree.files.unlink(self._tree.os_path(self._path))
            finally:
                self.is_freed = True
                self._tree.files.close(self.fd)
        except OSError as error:
            raise translate_oserror(error, self._path) from error


#: Bytes of an upload after which it is worth it.
TRIM_THRESHOLD_BYTES: Final = 8 * 1024 * 1024

# Other C libraries than glibc have none, nor need it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim_heap() -> None:
    """Give back what is free; on a thread, since it takes a while."""
    if _malloc_trim is not None:
        _malloc_trim(0)


log = Logger()

#: Bytes stored and then hashed at once, give or take one ``write``: as many as a processor's cache
#: holds.
_BATCH_BYTES = 512 * 1024
#: Bytes after which a thread that always finds more takes its place behind the others.
_MAX_TURN_BYTES = 32 * 1024 * 1024
#: Bytes that are drawn, stored and hashed at a time.
_READ_BUFFER_BYTES = 128 * 1024


class WriteBudget:
    """How many bytes the writers of a driver may keep waiting, all together.

    One upload alone gets enough to keep the disk busy; many at once share, so that memory does
    not grow with their number.
    """

    def __init__(
        self, each: int = 4 * 1024 * 1024, together: int = 32 * 1024 * 1024, least: int = 256 * 1024
    ) -> None:
        self.each = each
        self.together = together
        self.least = least
        self.writers = 0

    @property
    def limit(self) -> int:
        """Bytes beyond which one writer's producer is paused."""
        return max(self.least, min(self.each, self.together // max(self.writers, 1)))


class _SyncRequest:
    """A caller who waits until the file is on the disk.

    :ivar size: up to which byte.
    :ivar entry: whether its name must last too.
    :ivar decide: what answers the changes that conclude the file, if it is to be concluded.
    """

    def __init__(
        self,
        size: int,
        *,
        entry: bool = False,
        decide: Callable[[int], Sequence[Change]] | None = None,
    ) -> None:
        self.size = size
        self.entry = entry
        self.decide = decide
        self.waiting: Deferred[int] = Deferred()


@implementer(IWriter)
class FileWriter(PushConsumer):
    """The one writer of a file, which holds its lock until it ends; ``over`` is called then."""

    content_id: ClassVar[str] = ""

    def __init__(
        self,
        tree: FileTree,
        threads: Threads,
        clock: IReactorTime,
        share: WriteBudget,
        path: str,
        fd: int,
        size: int,
        observe: Callable[[bytes], object] | None,
        over: Callable[[], None],
    ) -> None:
        super().__init__()
        self._file = AppendFile(tree, path, fd, size, observe)
        self._threads = threads
        self._clock = clock
        self._budget = share
        self._path = path
        self.size = size
        self._over = over
        self._pending: deque[bytes] = deque()
        self._syncs: list[_SyncRequest] = []
        self._batch_call: IDelayedCall | None = None
        self._source: Any = None
        self._drawn: Deferred[None] | None = None
        self._busy = False
        self._failure_reported = False
        self._ended = False
        self._close_waiters: list[Deferred[int]] = []
        self._budget.writers += 1

    def write(self, data: bytes) -> None:
        """Take bytes; dropped after a failure, ``close`` and ``cancel``."""
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
        """What appends from a source, if that is quicker: see :meth:`_draw`.

        The bytes of one upload alone are stored sooner if one thread reads and another one stores.
        """
        return self._draw if self._budget.writers > 1 else None

    def _draw(self, source: Any) -> Deferred[None] | None:
        """Append what a source has, after what was written; nothing is written until that is over.

        :param source: has ``read_into(memoryview)``, called on a thread, which answers how many
            bytes it put there; and ``over``, which says that it has no more for now, and which we
            set when we want no more.
        :returns: fires when it is over, whatever came of it; None if none is wanted.
        """
        if self._failure is not None or self._ending:
            return None
        drawn: Deferred[None] = Deferred()
        self._source, self._drawn = source, drawn
        self._start_job()
        return drawn

    def flush(self) -> Deferred[int]:
        """Fire with the size once all written so far, and the file's name, last."""
        return self._sync(_SyncRequest(self.size, entry=True))

    def commit(self) -> Deferred[int]:
        """Fire with the size once all written so far lasts; its name does once it is moved."""
        return self._sync(_SyncRequest(self.size))

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Commit, make the changes that ``decide`` answers, close; all in one job."""
        return self._sync(_SyncRequest(self.size, decide=decide))

    def close(self) -> Deferred[int]:
        """Stop writing, keep what is stored, and unlock."""
        if self._ended:
            return succeed(self._file.stored)
        self._ending = True
        ender: Deferred[int] = Deferred()
        self._close_waiters.append(ender)
        self._start_job()
        return ender

    def cancel(self) -> Deferred[None]:
        """Stop writing, remove the file, and unlock."""
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
        """Hand the next batch to a thread, unless one is at work."""
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
        drawn, self._source, self._drawn = self._drawn, None, None
        if drawn is not None:
            drawn.callback(None)

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
        self._over()
        if self._file.stored >= TRIM_THRESHOLD_BYTES:
            # Nobody waits for it, and a driver that is being closed need not do it.
            self._threads.run_blocking(trim_heap).addErrback(lambda _: None)
        self.size = self._file.stored
        error: BaseException | None = None if result is None else result.value
        if error is None and not self._failure_reported:
            error = self._failure
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            # Asked for while the file was being concluded.
            sync.waiting.errback(StorageError(self._path, "the writer is closed"))
        enders, self._close_waiters = self._close_waiters, []
        for ender in enders:
            if error is None:
                ender.callback(self._file.stored)
            else:
                ender.errback(error)

    def _pause_if_full(self) -> None:
        if (
            self._producer is not None
            and not self._paused
            and self.size - self._file.stored > self._budget.limit
        ):
            self._paused = True
            self._producer.pauseProducing()

    def _take_batch(self) -> list[bytes]:
        """Take a batch of what waits, on either thread."""
        batch: list[bytes] = []
        length = 0
        # The reactor's thread may empty it at any time.
        with suppress(IndexError):
            while length < _BATCH_BYTES:
                piece = self._pending.popleft()
                batch.append(piece)
                length += len(piece)
        return batch

    # What follows runs on a thread, one call at a time.

    def _store_batch(
        self,
        batch: list[bytes],
        sync: bool,  # noqa: FBT001
        entry: bool,  # noqa: FBT001
        decide: Callable[[int], Sequence[Change]] | None,
        last: bool,  # noqa: FBT001
    ) -> Exception | None:
        """Append a batch and show it to the observer; make the file last, and end it, if asked to.

        :returns: what kept the file from being concluded, if that was to be done.
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
        """Store what has come meanwhile, rather than wait to be called again."""
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
                self._draw_from(self._source, end)

    def _draw_from(self, source: Any, end: int) -> None:
        """Store what comes, as far as ``end``: each piece is hashed while the cache holds it."""
        room = memoryview(bytearray(_READ_BUFFER_BYTES))
        while self._file.stored < end and not (source.finished or self._ending):
            length = source.read_into(room)
            if length:
                self.size += length
                self._file.append_piece(cast("bytes", room[:length]))
        source.finished = True
