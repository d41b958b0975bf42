"""Sending side of a connection over any transport, and sending of files piece by piece.

Bytes are sent in order, and a producer is paused while many of them are waiting. Here the
transport has the queue. :mod:`~twisted_registry.http.socket_output` sends to a socket directly,
:mod:`~twisted_registry.http.tls_output` sends files over TLS on threads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import define, field
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

    #: Takes a descriptor, a size in bytes and an offset.
    FileReadFunction: TypeAlias = Callable[[int, int, int], Deferred[bytes]]

# Large enough that the hop to a thread costs little compared with the read.
_PIECE_BYTES = 256 * 1024
# Linux: read only what needs no waiting. Where it is missing, threads read everything.
_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def read_cached(descriptor: int, buffer: bytearray | memoryview, offset: int) -> int:
    """Read the beginning of a range of a file as far as the kernel has it in memory.

    :returns: the number of bytes; 0 if the first is not in memory, if the file system cannot tell,
        or on an error, which a blocking read will raise.
    """
    if not _RWF_NOWAIT:
        return 0
    try:
        return os.preadv(descriptor, [buffer], offset, _RWF_NOWAIT)
    except OSError:
        return 0


def make_file_reader(reactor: Any) -> FileReadFunction:
    """Return a function that reads from a file without blocking the reactor.

    It reads at once what the kernel has in memory, and on a thread what has to come from the disk.
    It may return less than requested; b"" only at the end of the file. With a reactor without
    threads (a Clock) it blocks.
    """
    if not IReactorThreads.providedBy(reactor):
        return lambda descriptor, size, offset: succeed(os.pread(descriptor, size, offset))

    def read(descriptor: int, size: int, offset: int) -> Deferred[bytes]:
        buffer = bytearray(size)
        length = read_cached(descriptor, buffer, offset)
        if length:
            return succeed(bytes(memoryview(buffer)[:length]))
        # The reactor's pool is not made before it is needed: a daemon may still have to fork.
        pool = reactor.getThreadPool()
        return deferToThreadPool(reactor, pool, os.pread, descriptor, size, offset)

    return read


@define(eq=False, repr=False)
class FileRange:
    """The part of a file that still has to be sent.

    :ivar offset: of the next byte.
    :ivar left: bytes.
    :ivar done: for the caller; fires when everything has been sent, or fails.
    """

    descriptor: int
    offset: int
    left: int
    done: Deferred[None]
    _owned: bool = field(init=False, default=False)

    def dup_descriptor(self) -> None:
        """Become independent of the descriptor that the caller is going to close."""
        self.descriptor = os.dup(self.descriptor)
        self._owned = True

    def advance(self, amount: int) -> None:
        """Take so many bytes off the beginning."""
        self.offset += amount
        self.left -= amount

    def close(self) -> None:
        """Close the descriptor if it is a duplicate."""
        if self._owned:
            self._owned = False
            os.close(self.descriptor)


@implementer(IPushProducer)
class PullToPush:
    """Makes a push producer of a pull producer: resumes it in each turn of the reactor."""

    def __init__(self, producer: IPullProducer, clock: IReactorTime) -> None:
        self.producer = producer
        self.clock = clock
        self._call: IDelayedCall | None = None
        self._paused = True

    def resumeProducing(self) -> None:
        """Start, or start again after a pause."""
        self._paused = False
        if self._call is None:
            self._call = self.clock.callLater(0, self._resume_producer)

    def pauseProducing(self) -> None:
        """Resume the producer no more for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """Stop the producer: the consumer is gone."""
        self.stop()
        self.producer.stopProducing()

    def stop(self) -> None:
        """Never resume the producer again."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _resume_producer(self) -> None:
        self._call = None
        if self._paused:
            return
        self._call = self.clock.callLater(0, self._resume_producer)
        self.producer.resumeProducing()


@define(eq=False, repr=False)
class Output:
    """Base of all outputs: holds one producer, which is paused while much is waiting.

    :cvar is_plain_socket: whether bytes are sent to the socket as they are.
    :cvar supports_direct_io: whether there are ``send_file`` and ``open_direct_read``.
    :ivar transport: a connected transport.
    :ivar progressed: called when bytes begin to wait, and when a part of them was sent.
    :ivar drained: called when no bytes are waiting any more.
    :ivar pending: whether bytes that were written are waiting to be sent.
    """

    is_plain_socket = supports_direct_io = False

    _transport: Any
    _clock: IReactorTime
    _progressed: Callable[[], None]
    _drained: Callable[[], None]
    pending: bool = field(init=False, default=False)
    _producer: Any = field(init=False, default=None)
    _paused: bool = field(init=False, default=False)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    def register_producer(self, producer: Any, *, streaming: bool) -> None:
        """Pause and resume a producer as the peer accepts data."""
        self._producer = producer if streaming else PullToPush(producer, self._clock)
        self._paused = False
        if self.pending:
            self._pause()
        elif not streaming:
            self._producer.resumeProducing()

    def unregister_producer(self) -> None:
        """Detach the producer."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullToPush):
            producer.stop()

    def is_peer_gone(self) -> bool:
        """Return whether the peer certainly accepts no more data."""
        return False

    def open_direct_read(self) -> Any:
        """Return an object for a thread to read from: ``recv_into``, ``fileno`` and ``close``.

        Only with ``supports_direct_io``. Until it is closed, nothing else reads the connection.

        :returns: None if that is not possible now.
        """

    def close(self) -> None:
        """Let the transport close when it has sent everything. Nothing is written afterwards."""

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002 (used by subclasses)
        """Stop the producer, close files and fail their Deferreds."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

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
@define(eq=False, repr=False)
class TransportOutput(Output):
    """Sends over a transport that has a queue and pauses its producer, which is this output."""

    def __attrs_post_init__(self) -> None:
        self._transport.registerProducer(self, True)

    def close(self) -> None:
        """Unregister: a transport does not close while a producer is registered."""
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Pause the producer: the queue of the transport is full."""
        self.pending = True
        self._progressed()
        self._pause()

    def resumeProducing(self) -> None:
        """Resume the producer: the queue of the transport is empty."""
        self.pending = False
        self._resume()

    def stopProducing(self) -> None:
        """Do nothing: the connection handles the loss of its transport."""


@implementer(IPushProducer)
class FileProducer:
    """Reads a range of a file, and writes it to an IConsumer that pauses its producer.

    For outputs without ``supports_direct_io``.

    :ivar read: what :func:`make_file_reader` returned.
    :ivar abort: called when the rest cannot be sent: the connection of the consumer must not end as
        if everything had been.
    """

    def __init__(
        self,
        consumer: Any,
        read: FileReadFunction,
        abort: Callable[[], None],
        descriptor: int,
        offset: int,
        length: int,
    ) -> None:
        self.consumer = consumer
        self.read = read
        self.abort = abort
        self._file = FileRange(
            descriptor, offset, length, Deferred(lambda _: self._abort_consumer())
        )
        self._paused = False
        self._reading = False
        self._looping = False
        self._finished = False

    def start(self) -> Deferred[None]:
        """Start. The caller may close its descriptor afterwards.

        :returns: fires with None when the last byte has been written to the consumer. Fails with
            EOFError if the file is too short, with OSError if it cannot be read, with
            ConnectionLost if the consumer is gone. Cancelling aborts.
        """
        self._file.dup_descriptor()
        self.consumer.registerProducer(self, True)
        self._write_pieces()
        return self._file.done

    def pauseProducing(self) -> None:
        """Write nothing for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Continue to write."""
        self._paused = False
        self._write_pieces()

    def stopProducing(self) -> None:
        """Stop: the consumer is gone."""
        if not self._finished:
            self._end()
            self._file.done.errback(Failure(ConnectionLost()))

    def _write_pieces(self) -> None:
        if self._looping:
            return
        self._looping = True
        file = self._file
        # A read may end at once, so this is a loop and not a recursion.
        while file.left and not (self._paused or self._reading or self._finished):
            self._reading = True
            piece = self.read(file.descriptor, min(file.left, _PIECE_BYTES), file.offset)
            piece.addCallbacks(self._piece_read, self._read_failed)
        self._looping = False
        if not (file.left or self._finished):
            self._end()
            self.consumer.unregisterProducer()
            file.done.callback(None)

    def _piece_read(self, piece: bytes) -> None:
        self._reading = False
        if self._finished:
            self._file.close()
        elif not piece:
            self._read_failed(Failure(EOFError("the file is shorter than announced")))
        else:
            self._file.advance(len(piece))
            self.consumer.write(piece)
            self._write_pieces()

    def _read_failed(self, reason: Failure) -> None:
        self._reading = False
        if self._finished:
            self._file.close()
        else:
            self._abort_consumer()
            self._file.done.errback(reason)

    def _abort_consumer(self) -> None:
        self._end()
        self.consumer.unregisterProducer()
        self.abort()

    def _end(self) -> None:
        self._finished = True
        # The number of a descriptor that a thread reads from must not be used again: a read that is
        # under way closes it.
        if not self._reading:
            self._file.close()
