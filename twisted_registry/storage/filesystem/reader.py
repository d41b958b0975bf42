"""The reader of the filesystem driver: reads pieces on a thread and pushes them to a consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from twisted_registry.storage.filesystem.oscalls import OSCalls, translate_oserror
from twisted_registry.storage.interfaces import ILocalFileReader, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from twisted_registry.storage.threads import Threads

#: Bytes read at once: the memory of each download besides the buffer of its transport.
PIECE_BYTES = 512 * 1024


@implementer(ILocalFileReader, IPushProducer)
class FileReader:
    """A range of an open file.

    :ivar size: bytes of the range.
    """

    def __init__(
        self,
        files: OSCalls,
        threads: Threads,
        path: str,
        fd: int,
        offset: int,
        size: int,
        release: Callable[[], object],
    ) -> None:
        """Read from a descriptor.

        :param path: for errors.
        :param release: called once the descriptor is not needed any more.
        """
        self._files = files
        self._threads = threads
        self._path = path
        self._fd = fd
        self._offset = offset
        self.size = size
        self._release = release
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._sent = 0
        self._paused = False
        self._reading = False
        self._closed = False

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the range to ``consumer`` as a push producer, and close."""
        done: Deferred[None] = Deferred(lambda _: self._free())
        self._consumer, self._done = consumer, done
        consumer.registerProducer(self, True)
        self._read_next()
        return done

    def feed(self, observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with the range, on a thread, and close."""
        self._done = Deferred(lambda _: self._free())
        self._reading = True
        feeding = self._threads.run_blocking(self._feed, observe)
        feeding.addCallbacks(self._fed, self._failed)
        return self._done

    def fileno(self) -> int:
        """Return the descriptor.

        :raises ValueError: if the reader is closed: the number may belong to another file.
        """
        if self._closed:
            raise ValueError("the reader is closed")
        return self._fd

    def offset(self) -> int:
        """Return where in the file the range begins."""
        return self._offset

    def close(self) -> None:
        """Release the descriptor; a running delivery ends as if cancelled."""
        if not self._closed:
            self._free()
        if self._done is not None:
            self.stopProducing()

    def pauseProducing(self) -> None:
        """Write no more until resumed."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Continue."""
        self._paused = False
        self._read_next()

    def stopProducing(self) -> None:
        """End as if cancelled."""
        if self._done is not None and not self._done.called:
            self._done.cancel()

    def _free(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._reading:
            # While a thread reads, the number must not be reused for another file.
            self._release()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def _read_next(self) -> None:
        if self._closed or self._paused or self._reading:
            return
        left = self.size - self._sent
        if not left:
            self._finish(None)
            return
        self._reading = True
        reading = self._threads.run_blocking(
            self._files.pread, self._fd, min(PIECE_BYTES, left), self._offset + self._sent
        )
        reading.addCallbacks(self._piece_read, self._failed)

    def _feed(self, observe: Callable[[bytes], object]) -> None:
        """Read and observe on a thread, to the end or until closed."""
        while self._sent < self.size and not self._closed:
            wanted = min(PIECE_BYTES, self.size - self._sent)
            piece = self._files.pread(self._fd, wanted, self._offset + self._sent)
            if not piece:
                raise self._too_short()
            self._sent += len(piece)
            observe(piece)

    def _fed(self, _: None) -> None:
        self._reading = False
        if self._closed:
            self._release()
        else:
            self._finish(None)

    def _too_short(self) -> StorageError:
        return StorageError(self._path, f"ends after {self._sent} of {self.size} bytes")

    def _piece_read(self, piece: bytes) -> None:
        self._reading = False
        if self._closed:
            self._release()
        elif not piece:
            self._finish(self._too_short())
        else:
            self._sent += len(piece)
            assert self._consumer is not None
            # A consumer that has paused meanwhile receives this piece, but no other.
            self._consumer.write(piece)
            self._read_next()

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        if self._closed:
            self._release()
            return
        error = failure.value
        self._finish(translate_oserror(error, self._path) if isinstance(error, OSError) else error)

    def _finish(self, error: BaseException | None) -> None:
        assert self._done is not None
        self._free()
        if error is None:
            self._done.callback(None)
        else:
            self._done.errback(error)
