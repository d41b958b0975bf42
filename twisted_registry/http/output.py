"""The sending side of one connection, over any transport.

Bytes go out in order, and a producer is held to the pace at which they leave. Here the
transport keeps the queue; :mod:`~twisted_registry.http.socket_output` has the way around it, and
:mod:`~twisted_registry.http.tls_output` the one over TLS.

A pull producer made to look like a push producer.

A range of a file, read without waiting and written to any consumer that can be paused.

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

    from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
    from twisted.python.threadpool import ThreadPool

    FileReadFunction: TypeAlias = Callable[[int, int, int], Deferred[bytes]]


@implementer(IPushProducer)
class PullToPush:
    """Asks ``producer`` for more, once in each turn of the reactor, while it is not paused."""

    def __init__(self, producer: IPullProducer, clock: IReactorTime) -> None:
        self.producer = producer
        self.clock = clock
        self._call: IDelayedCall | None = None
        self._paused = True

    def resumeProducing(self) -> None:
        """Ask, and go on asking."""
        self._paused = False
        if self._call is None:
            self._call = self.clock.callLater(0, self._ask_for_more)

    def pauseProducing(self) -> None:
        """Ask no more for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """Tell the producer that nobody listens any more."""
        self.stop()
        self.producer.stopProducing()

    def stop(self) -> None:
        """Ask no more, ever."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _ask_for_more(self) -> None:
        self._call = None
        if self._paused:
            return
        self._call = self.clock.callLater(0, self._ask_for_more)
        self.producer.resumeProducing()


class Output:
    """What all kinds have: a producer, which is paused while much is waiting.

    :ivar pending: whether something that was written has not been handed on yet.
    :ivar direct: whether what is sent goes to the socket as it is.
    :ivar sends_files: whether files can be handed over, to ``send_file``.
    :ivar lends: whether somebody else may read the connection for a while.
    """

    is_plain_socket = sends_files = supports_direct_read = False

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        progressed: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        """
        :param moved: called when waiting begins, and when a part of what waits was taken.
        :param drained: called when nothing waits any more.
        """
        self.pending = False
        self._transport = transport
        self._clock = clock
        self._progressed = progressed
        self._drained = drained
        self._producer: Any = None
        self._paused = False
        self._corked: list[bytes] | None = None

    def write(self, data: bytes) -> None:
        """Send, or keep if :meth:`cork` said so."""
        if self._corked is None:
            self._send(data)
        else:
            self._corked.append(data)

    def cork(self) -> None:
        """Keep what is written until :meth:`uncork`, to send it in one piece."""
        self._corked = []

    def uncork(self) -> None:
        """Send what was kept."""
        corked = self.take_corked()
        if corked:
            self._send(corked)

    def take_corked(self) -> bytes:
        """What was kept, to be sent in another way or not at all."""
        corked, self._corked = self._corked, None
        return b"".join(corked) if corked else b""

    def register_producer(self, producer: Any, *, streaming: bool) -> None:
        """Let a producer send; it is paused and resumed as the peer takes what it sends."""
        self._producer = producer if streaming else PullToPush(producer, self._clock)
        self._paused = False
        if self.pending:
            self._pause()
        elif not streaming:
            self._producer.resumeProducing()

    def unregister_producer(self) -> None:
        """The producer has no more."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullToPush):
            producer.stop()

    def is_peer_gone(self) -> bool:
        """Whether it is known that the peer takes nothing any more."""
        return False

    def borrow(self) -> Any:
        """Something to read from in our place: with ``recv_into``, ``fileno`` and ``close``.

        :return: None if that can not be now. Only of an output that lends.
        """

    def close(self) -> None:
        """Nothing will be written any more: keep the transport from waiting for more."""

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002 (files have a use for it)
        """The connection is gone: stop the producer, close files."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _send(self, data: bytes) -> None:
        self._transport.write(data)

    def _pause(self) -> None:
        if self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._producer is not None and self._paused:
            self._paused = False
            self._producer.resumeProducing()
        if not self.pending:
            self._drained()


@implementer(IPushProducer)
class TransportOutput(Output):
    """Over a transport that queues, and pauses us when it has enough."""

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        progressed: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        super().__init__(transport, clock, progressed, drained)
        transport.registerProducer(self, True)

    def close(self) -> None:
        """The transport does not close as long as a producer is registered."""
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self.pending = True
        self._progressed()
        self._pause()

    def resumeProducing(self) -> None:
        """The transport has handed everything on."""
        self.pending = False
        self._resume()

    def stopProducing(self) -> None:
        """The transport is gone; the channel hears of it in its own way."""


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
