"""The reader and the writer of the memory driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from twisted_registry.storage.changes import finalize_in_steps
from twisted_registry.storage.streams import IReader, IWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IProducer

    from twisted_registry.storage.interfaces import Change, IStorageDriver

#: Bytes that a reader writes at once.
_PIECE_BYTES = 256 * 1024


class MemoryFile:
    """The bytes of a file, which only ever grow; a replaced file is another object."""

    def __init__(self, content: bytes, modified: int) -> None:
        self._content: bytes | bytearray = content
        self.modified = modified
        self.locked = False

    @property
    def size(self) -> int:
        """Bytes that are stored."""
        return len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        """Copy a stretch out."""
        return bytes(memoryview(self._content)[offset : offset + length])

    def append(self, data: bytes, modified: int) -> None:
        """Put bytes at the end."""
        if isinstance(self._content, bytes):
            self._content = bytearray(self._content)
        self._content += data
        self.modified = modified


@implementer(IReader, IPushProducer)
@define(eq=False, repr=False)
class MemoryReader:
    """A stretch of a file, as long as it was when it was opened."""

    _file: MemoryFile
    _offset: int
    size: int
    _consumer: IConsumer | None = field(init=False, default=None)
    _done: Deferred[None] | None = field(init=False, default=None)
    _sent: int = field(init=False, default=0)
    _paused: bool = field(init=False, default=False)
    _running: bool = field(init=False, default=False)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the whole stretch to ``consumer`` as a push producer, and close."""
        done: Deferred[None] = Deferred(lambda _: self._free())
        self._consumer, self._done = consumer, done
        consumer.registerProducer(self, True)
        self._write_pieces()
        return done

    def feed(self, observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with the whole stretch, at once."""
        return execute(observe, self._file.read(self._offset, self.size)).addCallback(
            lambda _: self.close()
        )

    def fileno(self) -> int | None:
        """Return None: there is no descriptor."""
        return None

    def offset(self) -> int:
        """Return where the stretch begins."""
        return self._offset

    def close(self) -> None:
        """End a delivery under way, as if it were cancelled."""
        self._free()
        self.stopProducing()

    def pauseProducing(self) -> None:
        """Write no more until resumed."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._write_pieces()

    def stopProducing(self) -> None:
        """The consumer has gone: end as if cancelled."""
        if self._done is not None and not self._done.called:
            self._done.cancel()

    def _free(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def _write_pieces(self) -> None:
        # The consumer may pause and resume from within its write.
        if self._running:
            return
        self._running = True
        try:
            while self._consumer is not None and not self._paused and self._sent < self.size:
                piece = self._file.read(
                    self._offset + self._sent, min(_PIECE_BYTES, self.size - self._sent)
                )
                self._sent += len(piece)
                self._consumer.write(piece)
        finally:
            self._running = False
        if self._consumer is not None and self._sent >= self.size:
            self._free()
            assert self._done is not None
            self._done.callback(None)


@implementer(IWriter)
@define(eq=False, repr=False)
class MemoryWriter:
    """The one writer of a file; whatever is written is stored at once.

    :ivar driver: makes the changes that conclude it.
    :ivar now: gives the time of a change, in nanoseconds.
    :ivar discard: removes the file.
    """

    _driver: IStorageDriver
    _file: MemoryFile
    _now: Callable[[], int]
    _discard: Callable[[], None]
    _observe: Callable[[bytes], object] | None = None
    mark: ClassVar[str] = ""
    _open: bool = field(init=False, default=True)

    def __attrs_post_init__(self) -> None:
        """Keep other writers away."""
        self._file.locked = True

    @property
    def size(self) -> int:
        """Bytes under the path."""
        return self._file.size

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Take a producer, which is never paused: nothing ever waits here."""

    def unregisterProducer(self) -> None:
        """Let the producer go."""

    def write(self, data: bytes) -> None:
        """Store at once; dropped after ``close`` and ``cancel``."""
        if self._open and data:
            self._file.append(data, self._now())
            if self._observe is not None:
                self._observe(data)

    def flush(self) -> Deferred[int]:
        """Fire with the size."""
        return succeed(self.size)

    def commit(self) -> Deferred[int]:
        """Fire with the size."""
        return succeed(self.size)

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Make the changes that ``decide`` answers, and close."""
        return finalize_in_steps(self._driver, self, decide)

    def close(self) -> Deferred[int]:
        """Stop writing and unlock."""
        if self._open:
            self._open = self._file.locked = False
        return succeed(self.size)

    def cancel(self) -> Deferred[None]:
        """Stop writing, remove the file and unlock."""
        if self._open:
            self._open = self._file.locked = False
            self._discard()
        return succeed(None)
