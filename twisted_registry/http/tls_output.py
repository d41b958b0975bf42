"""Sending side of a connection over TLS that a thread can use in the reactor's place.

A thread reads and encrypts a large file, in turns, as long as the peer accepts it: OpenSSL works
without the interpreter's lock, and the bytes do not pass through the reactor's thread. For a slow
peer the reactor waits, not a thread.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from twisted_registry.http.output import FileRange, TransportOutput, read_cached

if TYPE_CHECKING:
    from twisted.internet.defer import DeferredSemaphore

    from twisted_registry.http.interfaces import IBlockingTLSConnection

# Read and encrypted at a time: fits into the cache of a processor.
_PIECE_BYTES = 128 * 1024
# At most so much of a file is sent in one turn, so that other connections get a thread.
_TURN_BYTES = 16 * 1024 * 1024
# How often in a turn, and for how many milliseconds, a thread waits for the peer.
_MAX_POLLS = 64
_POLL_TIMEOUT_MS = 4


class _FileSend:
    """A file that is being sent in turns, and the bytes that were read but not sent.

    :ivar file: what has not been read.
    """

    def __init__(self, file: FileRange) -> None:
        self.file = file
        self._buffer = memoryview(bytearray(min(file.left, _PIECE_BYTES)))
        self._unsent = self._buffer[:0]

    @property
    def left(self) -> int:
        """Bytes that have not been sent."""
        return self.file.left + len(self._unsent)

    def send_turn(self, connection: IBlockingTLSConnection) -> bool:
        """Send one turn. Called on a thread.

        :returns: whether the peer accepts nothing more for now.
        :raises EOFError: if the file is too short.
        :raises OSError: if it cannot be read, or the connection is lost.
        """
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLOUT)
        end, polls = self.left - _TURN_BYTES, 0
        while self.left > max(end, 0):
            if not self._unsent:
                self._read_piece()
            try:
                sent = connection.send(self._unsent)
            except BlockingIOError:
                polls += 1
                if polls > _MAX_POLLS or not poller.poll(_POLL_TIMEOUT_MS):
                    return True
                continue
            self._unsent = self._unsent[sent:]
        return False

    def _read_piece(self) -> None:
        file = self.file
        buffer = self._buffer[: file.left]
        length = os.preadv(file.descriptor, [buffer], file.offset)
        if not length:
            raise EOFError("the file is shorter than announced")
        file.advance(length)
        self._unsent = buffer[:length]


def _head_and_cached_file(
    head: bytes, descriptor: int, offset: int, length: int
) -> bytearray | None:
    """Return a head and a range of a file in one piece; None if the range is not in memory."""
    whole = bytearray(len(head) + length)
    whole[: len(head)] = head
    if length and read_cached(descriptor, memoryview(whole)[len(head) :], offset) != length:
        return None
    return whole


@define(eq=False, repr=False)
class TLSOutput(TransportOutput):
    """Sends over an ITLSConnection, and files on threads. The clock is a reactor with threads.

    :ivar tls_send_slots: limits how many threads all outputs use together.
    """

    supports_direct_io = True

    _tls_send_slots: DeferredSemaphore
    _sending: _FileSend | None = field(init=False, default=None)
    _sending_on_thread: _FileSend | None = field(init=False, default=None)

    def open_direct_read(self) -> IBlockingTLSConnection | None:
        """Return the TLS connection, if it can be used by a thread now."""
        transport = self._transport
        return transport.borrow() if transport.lendable else None

    def send_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head and a range of a file. Returns None if both were written at once."""
        if length <= _PIECE_BYTES and not self.pending:
            whole = _head_and_cached_file(head, descriptor, offset, length)
            if whole is not None:
                self.write(whole)  # type: ignore[arg-type]
                return None
        self.write(head)
        file = FileRange(descriptor, offset, length, Deferred(lambda _: self._abort_file()))
        file.dup_descriptor()
        self._sending = _FileSend(file)
        self.pending = True
        self._progressed()
        self._queue_turn()
        return file.done

    def pauseProducing(self) -> None:
        """Pause the producer, unless a file is being sent: that waits for the transport itself."""
        if self._sending is None:
            super().pauseProducing()

    def resumeProducing(self) -> None:
        """Resume the producer, unless a file is being sent."""
        if self._sending is None:
            super().resumeProducing()

    def connection_lost(self, reason: Failure) -> None:
        """Stop the producer, close the file and fail its Deferred."""
        super().connection_lost(reason)
        sending = self._clear_file()
        if sending is not None:
            sending.file.done.errback(Failure(ConnectionLost()))

    def _queue_turn(self) -> None:
        if self._sending is not None:
            self._tls_send_slots.run(self._start_turn)

    def _start_turn(self) -> Deferred[None] | None:
        """Send one turn on a thread, if there is still a file to send."""
        sending = self._sending
        if sending is None:
            return None
        if not self._transport.lendable:
            self._continue_when_writable()
            return None
        reactor: Any = self._clock
        self._sending_on_thread = sending
        connection, before = self._transport.borrow(), sending.left
        turn = deferToThreadPool(reactor, reactor.getThreadPool(), sending.send_turn, connection)
        return turn.addBoth(self._turn_ended, sending, connection, before)

    def _continue_when_writable(self) -> None:
        # The loss of the connection is reported to ``connection_lost`` as well.
        self._transport.whenWritable().addCallbacks(lambda _: self._queue_turn(), lambda _: None)

    def _turn_ended(
        self, blocked: Any, sending: _FileSend, connection: IBlockingTLSConnection, before: int
    ) -> None:
        """Continue, finish or fail after a turn.

        :param blocked: result of ``send_turn``.
        :param before: bytes that were left before the turn.
        """
        self._sending_on_thread = None
        connection.close()
        if self._sending is not sending:
            # It was aborted during the turn.
            sending.file.close()
        elif isinstance(blocked, Failure) and blocked.check(ConnectionError):
            # ``connection_lost`` fails the file, after the request has been failed: otherwise the
            # error would be logged as one of the server.
            self._transport.abortConnection()
        elif isinstance(blocked, Failure):
            self._abort_file()
            sending.file.done.errback(blocked)
        elif not sending.left:
            self._clear_file()
            self.pending = False
            sending.file.done.callback(None)
            self._resume()
        else:
            if sending.left < before:
                self._progressed()
            if blocked:
                self._continue_when_writable()
            else:
                self._queue_turn()

    def _abort_file(self) -> None:
        """Reset the connection, so that the client takes nothing else for the rest of the file."""
        self._clear_file()
        self._transport.abortConnection()

    def _clear_file(self) -> _FileSend | None:
        sending, self._sending = self._sending, None
        if sending is not None and sending is not self._sending_on_thread:
            sending.file.close()
        return sending
