"""The sending side of a plain TCP or Unix connection: straight to the socket.

Bytes are handed to the kernel at once when nothing waits before them, and files by ``sendfile``.
What the kernel does not take is queued here, and the transport says when the socket is writable
again: one system call for a small answer, and no copy of a large one.
"""

from __future__ import annotations

import os
import select
from collections import deque
from socket import MSG_MORE, socket
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.internet.tcp import Connection

# A producer is paused while more than this is queued.
_HIGH_WATER_BYTES = 65536
# Of one file in one turn, so that the other connections get theirs.
_FILE_TURN_BYTES = 1024 * 1024


class _FileRange:
    """A range of a file on its way out; ``owned`` if the descriptor is ours to close."""

    def __init__(self, descriptor: int, offset: int, left: int, done: Deferred[None]) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.left = left
        self.done = done
        self.owned = False

    def dup_descriptor(self) -> None:
        """Be independent of the descriptor that the caller is going to close."""
        self.descriptor = os.dup(self.descriptor)
        self.owned = True

    def close(self) -> None:
        if self.owned:
            self.owned = False
            os.close(self.descriptor)


@implementer(IPullProducer)
class SocketOutput(Output):
    """See the module.

    The transport must have nothing of its own to send: all goes through here. A registered pull
    producer, and ``startWriting``, are its public way of saying "tell me when it is writable".
    """

    is_plain_socket = sends_files = supports_direct_read = True

    def __init__(
        self,
        transport: Connection,
        clock: IReactorTime,
        progressed: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        super().__init__(transport, clock, progressed, drained)
        self._socket = transport.getHandle()
        self._queue: deque[bytes | memoryview | _FileRange] = deque()
        self._queued_bytes = 0  # bytes in the queue, without files
        self._waiting_until_writable = False
        self._registering = False

    def _send(self, data: bytes) -> None:
        if not self._queue:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._transport.abortConnection()
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]  # type: ignore[assignment]
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._queued_bytes > _HIGH_WATER_BYTES:
            self._pause()
        self._wait_until_writable()

    def borrow(self) -> socket:
        """See Output: a duplicate, since that of the connection may be closed at any time."""
        return self._socket.dup()

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send what was kept and a range of a file; the promise is that of IStreamingRequest."""
        if not length:
            # A head that waits for more would wait for long.
            self.uncork()
            return succeed(None)
        part = _FileRange(descriptor, offset, length, Deferred(self._cancel_file))
        head = self.take_corked()
        if head:
            self._queue.append(head)
            self._queued_bytes += len(head)
        self._queue.append(part)
        if not self._waiting_until_writable:
            self._flush()
        if part in self._queue:
            part.dup_descriptor()
            self._wait_until_writable()
        return part.done

    def send_head_and_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head and a range of a file; None if the kernel took both at once."""
        if not length:
            self.write(head)
            return None
        sent = 0
        if not self._queue and length <= _FILE_TURN_BYTES:
            # Most files that are small enough for one turn go out here. Whatever else comes of
            # it comes again below, and is dealt with there.
            try:
                head = head[self._socket.send(head, MSG_MORE) :]
                if not head:
                    sent = os.sendfile(self._socket.fileno(), descriptor, offset, length)
            except OSError:
                pass
            if sent == length:
                return None
        self._corked = [head]
        return self.send_file(descriptor, offset + sent, length - sent)

    def is_peer_gone(self) -> bool:
        """A Unix socket tells a peer that is gone from one that has only finished sending."""
        poller = select.poll()
        poller.register(self._socket, 0)
        return bool(poller.poll(0))

    def connection_lost(self, reason: Failure) -> None:
        """The connection is gone: stop the producer, close files, fail their Deferreds."""
        queue = list(self._queue)
        self._queue.clear()
        self.pending = False
        super().connection_lost(reason)
        for part in queue:
            if isinstance(part, _FileRange):
                part.close()
                part.done.errback(reason)

    def resumeProducing(self) -> None:
        """The socket is writable."""
        if self._registering:
            return
        try:
            self._flush()
        finally:
            if not self._queue and self._waiting_until_writable:
                self._waiting_until_writable = self.pending = False
                self._transport.unregisterProducer()
        if self._queue:
            self._progressed()
            self._transport.startWriting()
        else:
            self._resume()

    def stopProducing(self) -> None:
        """The transport is gone; the channel hears of it in its own way."""

    def _wait_until_writable(self) -> None:
        if self._waiting_until_writable:
            return
        self._waiting_until_writable = self.pending = True
        # Registering asks for data at once, long before the socket is writable.
        self._registering = True
        try:
            self._transport.registerProducer(self, False)
        finally:
            self._registering = False
        self._transport.startWriting()
        self._progressed()

    def _flush(self) -> None:
        queue = self._queue
        try:
            while queue:
                part = queue[0]
                if isinstance(part, _FileRange):
                    if not self._send_file_turn(part):
                        return
                    continue
                sent = self._socket.send(part, MSG_MORE if len(queue) > 1 else 0)
                self._queued_bytes -= sent
                if sent < len(part):
                    queue[0] = memoryview(part)[sent:]
                    return
                queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            if isinstance(part, _FileRange):
                self._fail_file(part, Failure())
            self._transport.abortConnection()

    def _send_file_turn(self, part: _FileRange) -> bool:
        """Send a turn's worth; whether the part is done with."""
        sent = os.sendfile(
            self._socket.fileno(), part.descriptor, part.offset, min(part.left, _FILE_TURN_BYTES)
        )
        if sent == 0:
            self._fail_file(part, Failure(EOFError("the file is shorter than said")))
            return True
        part.offset += sent
        part.left -= sent
        if part.left:
            return False
        self._queue.popleft()
        part.close()
        part.done.callback(None)
        return True

    def _fail_file(self, part: _FileRange, reason: Failure) -> None:
        """What was promised can not be kept: nothing after it may be taken for the rest."""
        self._queue.remove(part)
        part.close()
        self._transport.abortConnection()
        part.done.errback(reason)

    def _cancel_file(self, done: Deferred[None]) -> None:
        for part in self._queue:
            if isinstance(part, _FileRange) and part.done is done:
                self._queue.remove(part)
                part.close()
                self._transport.abortConnection()
                return
