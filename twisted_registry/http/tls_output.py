"""The sending side of a connection over TLS that can be lent to a thread.

A large file is read and encrypted by a thread, in turns, as long as the peer takes it: OpenSSL
works without the interpreter's lock, and the reactor's thread has nothing to do with the bytes. A
peer that is slow occupies no thread, since the reactor waits in its place.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from twisted_registry.http.output import TransportOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import DeferredSemaphore
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.tls.interfaces import IBlockingTLSConnection

# What is read and encrypted at a time: the cache of a processor holds it.
_PIECE_BYTES = 128 * 1024
# Of one file in one turn, so that others get a thread.
_TURN_BYTES = 16 * 1024 * 1024
# How often in a turn, and for how many milliseconds, a peer is waited for.
_MAX_POLLS = 64
_POLL_TIMEOUT_MS = 4
# "Only if that needs no waiting"; where a system does not know it, threads read everything.
_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class _FileSend:
    """A range of a file on its way out, and what of it was read but not sent.

    :ivar done: fires as IStreamingRequest promises.
    """

    def __init__(self, descriptor: int, offset: int, left: int, done: Deferred[None]) -> None:
        self.done = done
        self._descriptor = os.dup(descriptor)
        self._offset = offset
        self._left = left
        self._buffer = memoryview(bytearray(min(left, _PIECE_BYTES)))
        self._unsent = self._buffer[:0]

    @property
    def left(self) -> int:
        """Bytes that have not been sent."""
        return self._left + len(self._unsent)

    def send_turn(self, borrowed: IBlockingTLSConnection) -> bool:
        """Send, on a thread, for a while; answers whether the peer takes nothing more for now.

        :raises EOFError: if the file is shorter than said.
        :raises OSError: if it can not be read, or the connection is lost.
        """
        poller = select.poll()
        poller.register(borrowed.fileno(), select.POLLOUT)
        end, waits = self.left - _TURN_BYTES, 0
        while self.left > max(end, 0):
            if not self._unsent:
                self._read_piece()
            try:
                sent = borrowed.send(self._unsent)
            except BlockingIOError:
                waits += 1
                if waits > _MAX_POLLS or not poller.poll(_POLL_TIMEOUT_MS):
                    return True
                continue
            self._unsent = self._unsent[sent:]
        return False

    def _read_piece(self) -> None:
        buffer = self._buffer[: self._left]
        length = os.preadv(self._descriptor, [buffer], self._offset)
        if not length:
            raise EOFError("the file is shorter than said")
        self._offset += length
        self._left -= length
        self._unsent = buffer[:length]

    def close(self) -> None:
        """Free the file."""
        os.close(self._descriptor)


def _head_and_cached_file(
    head: bytes, descriptor: int, offset: int, length: int
) -> bytearray | None:
    """A head and a range of a file, if the kernel has it in memory."""
    whole = bytearray(len(head) + length)
    whole[: len(head)] = head
    buffer = memoryview(whole)[len(head) :]
    try:
        got = os.preadv(descriptor, [buffer], offset, _RWF_NOWAIT) if length else 0
    except OSError:
        # It would wait, or the filesystem can not tell: a thread finds out what else it is.
        return None
    return whole if got == length else None


class TLSOutput(TransportOutput):
    """See the module.

    :ivar turns: how many threads all outputs together may have.
    """

    sends_files = supports_direct_read = True

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        progressed: Callable[[], None],
        drained: Callable[[], None],
        tls_send_slots: DeferredSemaphore,
    ) -> None:
        super().__init__(transport, clock, progressed, drained)
        self._tls_send_slots = tls_send_slots
        self._file: _FileSend | None = None
        self._file_in_thread: _FileSend | None = None  # a thread has it

    def borrow(self) -> IBlockingTLSConnection | None:
        """See Output."""
        transport = self._transport
        return transport.borrow() if transport.lendable else None

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send what was kept and a range of a file; the promise is that of IStreamingRequest."""
        return self.send_head_and_file(self.take_corked(), descriptor, offset, length) or succeed(
            None
        )

    def send_head_and_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head and a range of a file; None if both were written at once."""
        if length <= _PIECE_BYTES and not self.pending:
            whole = _head_and_cached_file(head, descriptor, offset, length)
            if whole is not None:
                self.write(whole)  # type: ignore[arg-type]
                return None
        self.write(head)
        done: Deferred[None] = Deferred(lambda _: self._abort_file())
        self._file = _FileSend(descriptor, offset, length, done)
        self.pending = True
        self._progressed()
        self._queue_turn()
        return done

    def pauseProducing(self) -> None:
        """The transport has enough; a file waits for it anyway."""
        if self._file is None:
            super().pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has handed everything on."""
        if self._file is None:
            super().resumeProducing()

    def connection_lost(self, reason: Failure) -> None:
        """The connection is gone: stop the producer, close the file, fail its Deferred."""
        super().connection_lost(reason)
        sending = self._clear_file()
        if sending is not None:
            sending.done.errback(Failure(ConnectionLost()))

    def _queue_turn(self) -> None:
        if self._file is not None:
            self._tls_send_slots.run(self._start_turn)

    def _start_turn(self) -> Deferred[None] | None:
        """Have a thread send for a while, if there is still something to send."""
        sending = self._file
        if sending is None:
            return None
        if not self._transport.lendable:
            self._continue_when_writable()
            return None
        reactor: Any = self._clock
        self._file_in_thread = sending
        borrowed, before = self._transport.borrow(), sending.left
        send_turn = deferToThreadPool(reactor, reactor.getThreadPool(), sending.send_turn, borrowed)
        return send_turn.addBoth(self._turn_ended, sending, borrowed, before)

    def _continue_when_writable(self) -> None:
        # If the connection is lost, that is heard of elsewhere.
        self._transport.whenWritable().addCallbacks(lambda _: self._queue_turn(), lambda _: None)

    def _turn_ended(
        self, blocked: Any, sending: _FileSend, borrowed: IBlockingTLSConnection, before: int
    ) -> None:
        """A turn is over, in one way or another."""
        self._file_in_thread = None
        borrowed.close()
        if self._file is not sending:
            # It was given up meanwhile.
            sending.close()
        elif isinstance(blocked, Failure) and blocked.check(ConnectionError):
            # The request is to hear of that first, or else it looks like a fault of ours.
            self._transport.abortConnection()
        elif isinstance(blocked, Failure):
            self._abort_file()
            sending.done.errback(blocked)
        elif not sending.left:
            self._clear_file()
            self.pending = False
            sending.done.callback(None)
            self._resume()
        else:
            if sending.left < before:
                self._progressed()
            if blocked:
                self._continue_when_writable()
            else:
                self._queue_turn()

    def _abort_file(self) -> None:
        """What was promised can not be kept: nothing after it may be taken for the rest."""
        self._clear_file()
        self._transport.abortConnection()

    def _clear_file(self) -> _FileSend | None:
        sending, self._file = self._file, None
        if sending is not None and sending is not self._file_in_thread:
            sending.close()
        return sending
