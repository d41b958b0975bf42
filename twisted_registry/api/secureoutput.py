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

from twisted_registry.api.output import TransportOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import DeferredSemaphore
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.securesocket import IBorrowedSocket

# What is read and encrypted at a time: the cache of a processor holds it.
_PIECE = 128 * 1024
# Of one file in one turn, so that others get a thread.
_TURN = 16 * 1024 * 1024
# How often in a turn, and for how many milliseconds, a peer is waited for.
_PATIENCE = 64
_WAIT = 4
# "Only if that needs no waiting"; where a system does not know it, threads read everything.
_AT_ONCE: int = getattr(os, "RWF_NOWAIT", 0)


class _FileSending:
    """A range of a file on its way out, and what of it was read but not sent.

    :ivar done: fires as IStreamedRequest promises.
    """

    def __init__(self, descriptor: int, offset: int, left: int, done: Deferred[None]) -> None:
        self.done = done
        self._descriptor = os.dup(descriptor)
        self._offset = offset
        self._left = left
        self._room = memoryview(bytearray(min(left, _PIECE)))
        self._read = self._room[:0]

    @property
    def left(self) -> int:
        """Bytes that have not been sent."""
        return self._left + len(self._read)

    def turn(self, borrowed: IBorrowedSocket) -> bool:
        """Send, on a thread, for a while; answers whether the peer takes nothing more for now.

        :raises EOFError: if the file is shorter than said.
        :raises OSError: if it can not be read, or the connection is lost.
        """
        poller = select.poll()
        poller.register(borrowed.fileno(), select.POLLOUT)
        end, waits = self.left - _TURN, 0
        while self.left > max(end, 0):
            if not self._read:
                self._fill()
            try:
                sent = borrowed.send(self._read)
            except BlockingIOError:
                waits += 1
                if waits > _PATIENCE or not poller.poll(_WAIT):
                    return True
                continue
            self._read = self._read[sent:]
        return False

    def _fill(self) -> None:
        room = self._room[: self._left]
        length = os.preadv(self._descriptor, [room], self._offset)
        if not length:
            raise EOFError("the file is shorter than said")
        self._offset += length
        self._left -= length
        self._read = room[:length]

    def close(self) -> None:
        """Free the file."""
        os.close(self._descriptor)


def _joined(head: bytes, descriptor: int, offset: int, length: int) -> bytearray | None:
    """A head and a range of a file, if the kernel has it in memory."""
    whole = bytearray(len(head) + length)
    whole[: len(head)] = head
    room = memoryview(whole)[len(head) :]
    try:
        got = os.preadv(descriptor, [room], offset, _AT_ONCE) if length else 0
    except OSError:
        # It would wait, or the filesystem can not tell: a thread finds out what else it is.
        return None
    return whole if got == length else None


class SecureOutput(TransportOutput):
    """See the module.

    :ivar turns: how many threads all outputs together may have.
    """

    sends_files = lends = True

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        moved: Callable[[], None],
        drained: Callable[[], None],
        turns: DeferredSemaphore,
    ) -> None:
        super().__init__(transport, clock, moved, drained)
        self._turns = turns
        self._sending: _FileSending | None = None
        self._running: _FileSending | None = None  # a thread has it

    def borrow(self) -> IBorrowedSocket | None:
        """See Output."""
        transport = self._transport
        return transport.borrow() if transport.lendable else None

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send what was kept and a range of a file; the promise is that of IStreamedRequest."""
        return self.send_headed_file(self.take(), descriptor, offset, length) or succeed(None)

    def send_headed_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head and a range of a file; None if both were written at once."""
        if length <= _PIECE and not self.pending:
            whole = _joined(head, descriptor, offset, length)
            if whole is not None:
                self.write(whole)  # type: ignore[arg-type]
                return None
        self.write(head)
        done: Deferred[None] = Deferred(lambda _: self._give_up())
        self._sending = _FileSending(descriptor, offset, length, done)
        self.pending = True
        self._moved()
        self._go()
        return done

    def pauseProducing(self) -> None:
        """The transport has enough; a file waits for it anyway."""
        if self._sending is None:
            super().pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has handed everything on."""
        if self._sending is None:
            super().resumeProducing()

    def lost(self, reason: Failure) -> None:
        """The connection is gone: stop the producer, close the file, fail its Deferred."""
        super().lost(reason)
        sending = self._put_away()
        if sending is not None:
            sending.done.errback(Failure(ConnectionLost()))

    def _go(self) -> None:
        if self._sending is not None:
            self._turns.run(self._turn)

    def _turn(self) -> Deferred[None] | None:
        """Have a thread send for a while, if there is still something to send."""
        sending = self._sending
        if sending is None:
            return None
        if not self._transport.lendable:
            self._wait()
            return None
        reactor: Any = self._clock
        self._running = sending
        borrowed, before = self._transport.borrow(), sending.left
        turn = deferToThreadPool(reactor, reactor.getThreadPool(), sending.turn, borrowed)
        return turn.addBoth(self._turned, sending, borrowed, before)

    def _wait(self) -> None:
        # If the connection is lost, that is heard of elsewhere.
        self._transport.whenWritable().addCallbacks(lambda _: self._go(), lambda _: None)

    def _turned(
        self, blocked: Any, sending: _FileSending, borrowed: IBorrowedSocket, before: int
    ) -> None:
        """A turn is over, in one way or another."""
        self._running = None
        borrowed.close()
        if self._sending is not sending:
            # It was given up meanwhile.
            sending.close()
        elif isinstance(blocked, Failure) and blocked.check(ConnectionError):
            # The request is to hear of that first, or else it looks like a fault of ours.
            self._transport.abortConnection()
        elif isinstance(blocked, Failure):
            self._give_up()
            sending.done.errback(blocked)
        elif not sending.left:
            self._put_away()
            self.pending = False
            sending.done.callback(None)
            self._resume()
        else:
            if sending.left < before:
                self._moved()
            if blocked:
                self._wait()
            else:
                self._go()

    def _give_up(self) -> None:
        """What was promised can not be kept: nothing after it may be taken for the rest."""
        self._put_away()
        self._transport.abortConnection()

    def _put_away(self) -> _FileSending | None:
        sending, self._sending = self._sending, None
        if sending is not None and sending is not self._running:
            sending.close()
        return sending
