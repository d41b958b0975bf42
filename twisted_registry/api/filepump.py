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
    FileReader: TypeAlias = Callable[[int, int, int], Deferred[bytes]]

# Large enough that the hop to the thread is small beside the read.
_PIECE = 256 * 1024
# "Only if that needs no waiting"; where a system does not know it, threads read everything.
_AT_ONCE: int = getattr(os, "RWF_NOWAIT", 0)


def file_reader(reactor: Any, pool: ThreadPool | None = None) -> FileReader:
    """A function of (descriptor, size, offset) that reads without blocking the reactor.

    :param pool: where to read; the reactor's own pool if None. A reactor without threads (a
        Clock) reads where it stands.
    """
    if pool is None and not IReactorThreads.providedBy(reactor):
        return lambda descriptor, size, offset: succeed(os.pread(descriptor, size, offset))

    def read(descriptor: int, size: int, offset: int) -> Deferred[bytes]:
        piece = _in_memory(descriptor, size, offset)
        if piece:
            return succeed(piece)
        # The reactor's own is not made before it is needed: a daemon may still have to fork.
        threads = reactor.getThreadPool() if pool is None else pool
        return deferToThreadPool(reactor, threads, os.pread, descriptor, size, offset)

    return read


def _in_memory(descriptor: int, size: int, offset: int) -> bytes:
    """As much of a stretch of a file as the kernel holds from its beginning on; perhaps nothing."""
    if not _AT_ONCE:
        return b""
    room = bytearray(size)
    try:
        length = os.preadv(descriptor, [room], offset, _AT_ONCE)
    except OSError:
        # It would wait, or the filesystem can not tell: a thread finds out what else it is.
        return b""
    return bytes(memoryview(room)[:length])


@implementer(IPushProducer)
class FilePump:
    """Writes a range of a file to an IConsumer of pushed data.

    :ivar read: what :func:`file_reader` gave.
    :ivar abort: called when the rest can not or shall not be sent: the consumer's connection
        must not end as if all had been.
    """

    def __init__(
        self,
        consumer: Any,
        read: FileReader,
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
        self._done = Deferred(lambda _: self._give_up())
        self.consumer.registerProducer(self, True)
        self._go()
        return self._done

    def pauseProducing(self) -> None:
        """Write no more for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._go()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        if not self._over:
            self._end()
            self._done.errback(Failure(ConnectionLost()))

    def _go(self) -> None:
        if self._looping:
            return
        self._looping = True
        # A reader without threads answers at once: a loop, not a recursion.
        while self.left and not (self._paused or self._reading or self._over):
            self._reading = True
            piece = self.read(self.descriptor, min(self.left, _PIECE), self.offset)
            piece.addCallbacks(self._got, self._failed)
        self._looping = False
        if not (self.left or self._over):
            self._end()
            self.consumer.unregisterProducer()
            self._done.callback(None)

    def _got(self, piece: bytes) -> None:
        self._reading = False
        if self._over:
            os.close(self.descriptor)
        elif not piece:
            self._failed(Failure(EOFError("the file is shorter than said")))
        else:
            self.offset += len(piece)
            self.left -= len(piece)
            self.consumer.write(piece)
            self._go()

    def _failed(self, reason: Failure) -> None:
        self._reading = False
        if self._over:
            os.close(self.descriptor)
        else:
            self._give_up()
            self._done.errback(reason)

    def _give_up(self) -> None:
        self._end()
        self.consumer.unregisterProducer()
        self.abort()

    def _end(self) -> None:
        self._over = True
        # A thread that is reading must not find another file under the number: it closes.
        if not self._reading:
            os.close(self.descriptor)
