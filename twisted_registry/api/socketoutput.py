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

from twisted_registry.api.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.internet.tcp import Connection

# A producer is paused while more than this is queued.
_HIGH_WATER = 65536
# Of one file in one turn, so that the other connections get theirs.
_FILE_TURN = 1024 * 1024


class _FilePart:
    """A range of a file on its way out; ``owned`` if the descriptor is ours to close."""

    def __init__(self, descriptor: int, offset: int, left: int, done: Deferred[None]) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.left = left
        self.done = done
        self.owned = False

    def keep(self) -> None:
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

    direct = sends_files = lends = True

    def __init__(
        self,
        transport: Connection,
        clock: IReactorTime,
        moved: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        super().__init__(transport, clock, moved, drained)
        self._socket = transport.getHandle()
        self._queue: deque[bytes | memoryview | _FilePart] = deque()
        self._queued = 0  # bytes in the queue, without files
        self._watching = False
        self._arming = False

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
        self._queued += len(data)
        if self._queued > _HIGH_WATER:
            self._pause()
        self._watch()

    def borrow(self) -> socket:
        """See Output: a duplicate, since that of the connection may be closed at any time."""
        return self._socket.dup()

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send what was kept and a range of a file; the promise is that of IStreamedRequest."""
        if not length:
            # A head that waits for more would wait for long.
            self.release()
            return succeed(None)
        part = _FilePart(descriptor, offset, length, Deferred(self._cancelled))
        head = self.take()
        if head:
            self._queue.append(head)
            self._queued += len(head)
        self._queue.append(part)
        if not self._watching:
            self._flush()
        if part in self._queue:
            part.keep()
            self._watch()
        return part.done

    def send_headed_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head and a range of a file; None if the kernel took both at once."""
        if not length:
            self.write(head)
            return None
        sent = 0
        if not self._queue and length <= _FILE_TURN:
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
        self._held = [head]
        return self.send_file(descriptor, offset + sent, length - sent)

    def deaf(self) -> bool:
        """A Unix socket tells a peer that is gone from one that has only finished sending."""
        poller = select.poll()
        poller.register(self._socket, 0)
        return bool(poller.poll(0))

    def lost(self, reason: Failure) -> None:
        """The connection is gone: stop the producer, close files, fail their Deferreds."""
        queue = list(self._queue)
        self._queue.clear()
        self.pending = False
        super().lost(reason)
        for part in queue:
            if isinstance(part, _FilePart):
                part.close()
                part.done.errback(reason)

    def resumeProducing(self) -> None:
        """The socket is writable."""
        if self._arming:
            return
        try:
            self._flush()
        finally:
            if not self._queue and self._watching:
                self._watching = self.pending = False
                self._transport.unregisterProducer()
        if self._queue:
            self._moved()
            self._transport.startWriting()
        else:
            self._resume()

    def stopProducing(self) -> None:
        """The transport is gone; the channel hears of it in its own way."""

    def _watch(self) -> None:
        if self._watching:
            return
        self._watching = self.pending = True
        # Registering asks for data at once, long before the socket is writable.
        self._arming = True
        try:
            self._transport.registerProducer(self, False)
        finally:
            self._arming = False
        self._transport.startWriting()
        self._moved()

    def _flush(self) -> None:
        queue = self._queue
        try:
            while queue:
                part = queue[0]
                if isinstance(part, _FilePart):
                    if not self._send_part(part):
                        return
                    continue
                sent = self._socket.send(part, MSG_MORE if len(queue) > 1 else 0)
                self._queued -= sent
                if sent < len(part):
                    queue[0] = memoryview(part)[sent:]
                    return
                queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            if isinstance(part, _FilePart):
                self._drop(part, Failure())
            self._transport.abortConnection()

    def _send_part(self, part: _FilePart) -> bool:
        """Send a turn's worth; whether the part is done with."""
        sent = os.sendfile(
            self._socket.fileno(), part.descriptor, part.offset, min(part.left, _FILE_TURN)
        )
        if sent == 0:
            self._drop(part, Failure(EOFError("the file is shorter than said")))
            return True
        part.offset += sent
        part.left -= sent
        if part.left:
            return False
        self._queue.popleft()
        part.close()
        part.done.callback(None)
        return True

    def _drop(self, part: _FilePart, reason: Failure) -> None:
        """What was promised can not be kept: nothing after it may be taken for the rest."""
        self._queue.remove(part)
        part.close()
        self._transport.abortConnection()
        part.done.errback(reason)

    def _cancelled(self, done: Deferred[None]) -> None:
        for part in self._queue:
            if isinstance(part, _FilePart) and part.done is done:
                self._queue.remove(part)
                part.close()
                self._transport.abortConnection()
                return
