"""A range of a file, read without waiting and written to any consumer that can be paused.

What ``sendfile`` does where it can not be used: over TLS, and under a stock Site. What the kernel
has in memory is read at once; what it has to fetch from the disk, on a thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer, IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from twisted.python.threadpool import ThreadPool

    #: of (descriptor, size, offset)
    FileReadFunction: TypeAlias = Callable[[int, int, int], Deferred[bytes]]

# Large enough that the hop to the thread is small beside the read.
_PIECE_BYTES = 256 * 1024
# "Only if that needs no waiting"; where a system does not know it, threads read everything.
_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def make_file_reader(reactor: Any, pool: ThreadPool | None = None) -> FileReadFunction:
    """A function of (descriptor, size, offset) that reads without blocking the reactor.

    :param pool: where to read; the reactor's own pool if None. A reactor without threads (a
        Clock) reads where it stands.
    """
    if pool is None and not IReactorThreads.providedBy(reactor):
        return lambda descriptor, size, offset: succeed(os.pread(descriptor, size, offset))

    def read(descriptor: int, size: int, offset: int) -> Deferred[bytes]:
        piece = _read_cached(descriptor, size, offset)
        if piece:
            return succeed(piece)
        # The reactor's own is not made before it is needed: a daemon may still have to fork.
        threads = reactor.getThreadPool() if pool is None else pool
        return deferToThreadPool(reactor, threads, os.pread, descriptor, size, offset)

    return read


def _read_cached(descriptor: int, size: int, offset: int) -> bytes:
    """As much of a stretch of a file as the kernel holds from its beginning on; perhaps nothing."""
    if not _RWF_NOWAIT:
        return b""
    buffer = bytearray(size)
    try:
        length = os.preadv(descriptor, [buffer], offset, _RWF_NOWAIT)
    except OSError:
        # It would wait, or the filesystem can not tell: a thread finds out what else it is.
        return b""
    return bytes(memoryview(buffer)[:length])


@implementer(IPushProducer)
class FileProducer:
    """Writes a range of a file to an IConsumer of pushed data.

    :ivar read: what :func:`make_file_reader` gave.
    :ivar abort: called when the rest can not or shall not be sent: the consumer's connection
        must not end as if all had been.
    """

    def __init__(
        self,
        consumer: Any,
        read: FileReadFunction,
        abort: Callable[[], None],
        descriptor: int,
        offset: int,
        left: int,
    ) -> None:
        self.consumer = consumer
        self.read = read
        self.abort = abort
        self.descriptor = descriptor
        self.offset = offset
        self.left = left
        self._done: Deferred[None]
        self._paused = False
        self._reading = False
        self._looping = False
        self._over = False

    def start(self) -> Deferred[None]:
        """Begin. The caller's descriptor may be closed once this returns.

        :return: fires with None when the last byte has been written to the consumer. Fails with
            EOFError if the file is shorter than said, with OSError if it can not be read, with
            ConnectionLost if the consumer left. Cancelling aborts.
        """
        self.descriptor = os.dup(self.descriptor)
        self._done = Deferred(lambda _: self._abort_file())
        self.consumer.registerProducer(self, True)
        self._write_pieces()
        return self._done

    def pauseProducing(self) -> None:
        """Write no more for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._write_pieces()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        if not self._over:
            self._end()
            self._done.errback(Failure(ConnectionLost()))

    def _write_pieces(self) -> None:
        if self._looping:
            return
        self._looping = True
        # A reader without threads answers at once: a loop, not a recursion.
        while self.left and not (self._paused or self._reading or self._over):
            self._reading = True
            piece = self.read(self.descriptor, min(self.left, _PIECE_BYTES), self.offset)
            piece.addCallbacks(self._piece_read, self._read_failed)
        self._looping = False
        if not (self.left or self._over):
            self._end()
            self.consumer.unregisterProducer()
            self._done.callback(None)

    def _piece_read(self, piece: bytes) -> None:
        self._reading = False
        if self._over:
            os.close(self.descriptor)
        elif not piece:
            self._read_failed(Failure(EOFError("the file is shorter than said")))
        else:
            self.offset += len(piece)
            self.left -= len(piece)
            self.consumer.write(piece)
            self._write_pieces()

    def _read_failed(self, reason: Failure) -> None:
        self._reading = False
        if self._over:
            os.close(self.descriptor)
        else:
            self._abort_file()
            self._done.errback(reason)

    def _abort_file(self) -> None:
        self._end()
        self.consumer.unregisterProducer()
        self.abort()

    def _end(self) -> None:
        self._over = True
        # A thread that is reading must not find another file under the number: it closes.
        if not self._reading:
            os.close(self.descriptor)
