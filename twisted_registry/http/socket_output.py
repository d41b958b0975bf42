"""Sending side of a plain TCP or Unix connection, directly to the socket.

Bytes are passed to the kernel at once if none are waiting, and files by ``sendfile``: one system
call for a small response, and no copy of a large one. What the kernel does not accept is queued
here until the transport reports that the socket is writable.
"""

from __future__ import annotations

import os
import select
from collections import deque
from socket import MSG_MORE, socket

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http.output import FileRange, Output

# A producer is paused while more than this is queued.
_HIGH_WATER_BYTES = 65536
# At most so much of a file is sent in one turn of the reactor, for the sake of other connections.
_FILE_TURN_BYTES = 1024 * 1024


@implementer(IPullProducer)
@define(eq=False, repr=False)
class SocketOutput(Output):
    """Sends to the socket of one of Twisted's connections.

    Nothing else may write to the transport. A registered pull producer, and
    ``startWriting``, are the public way to be called when its socket is writable.
    """

    is_plain_socket = supports_direct_io = True

    _socket: socket = field(init=False)
    _queue: deque[bytes | memoryview | FileRange] = field(init=False, factory=deque)
    _queued_bytes: int = field(init=False, default=0)  # without files
    _waiting_until_writable: bool = field(init=False, default=False)
    _registering: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._socket = self._transport.getHandle()

    def write(self, data: bytes) -> None:
        """Send bytes, or queue what the kernel does not accept."""
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

    def open_direct_read(self) -> socket:
        """Return a duplicate of the socket, since the connection may close its own at any time."""
        return self._socket.dup()

    def is_peer_gone(self) -> bool:
        """Return whether the peer has closed a Unix socket, and not only its sending side."""
        poller = select.poll()
        poller.register(self._socket, 0)
        return bool(poller.poll(0))

    def send_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send a head and a range of a file. Returns None if the kernel accepted both at once."""
        if not length:
            # With MSG_MORE the head would wait for bytes that never come.
            self.write(head)
            return None
        sent = 0
        if not self._queue and length <= _FILE_TURN_BYTES:
            # Most files that are small enough for one turn are sent here. An error is ignored: it
            # occurs again below, where it is handled.
            try:
                head = head[self._socket.send(head, MSG_MORE) :]
                if not head:
                    sent = os.sendfile(self._socket.fileno(), descriptor, offset, length)
            except OSError:
                pass
            if sent == length:
                return None
        file = FileRange(descriptor, offset + sent, length - sent, Deferred(self._cancel_file))
        if head:
            self._queue.append(head)
            self._queued_bytes += len(head)
        self._queue.append(file)
        if not self._waiting_until_writable:
            self._flush()
        if file in self._queue:
            file.dup_descriptor()
            self._wait_until_writable()
        return file.done

    def connection_lost(self, reason: Failure) -> None:
        """Stop the producer, close files and fail their Deferreds."""
        queue = list(self._queue)
        self._queue.clear()
        self.pending = False
        super().connection_lost(reason)
        for part in queue:
            if isinstance(part, FileRange):
                part.close()
                part.done.errback(reason)

    def resumeProducing(self) -> None:
        """Send the queue: the socket is writable."""
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
        """Do nothing: the connection handles the loss of its transport."""

    def _wait_until_writable(self) -> None:
        if self._waiting_until_writable:
            return
        self._waiting_until_writable = self.pending = True
        # registerProducer calls resumeProducing at once, before the socket is writable.
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
                if isinstance(part, FileRange):
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
            if isinstance(part, FileRange):
                self._fail_file(part, Failure())
            self._transport.abortConnection()

    def _send_file_turn(self, file: FileRange) -> bool:
        """Send one turn of a file. Returns whether it has ended and left the queue."""
        sent = os.sendfile(
            self._socket.fileno(), file.descriptor, file.offset, min(file.left, _FILE_TURN_BYTES)
        )
        if sent == 0:
            self._fail_file(file, Failure(EOFError("the file is shorter than announced")))
            return True
        file.advance(sent)
        if file.left:
            return False
        self._queue.popleft()
        file.close()
        file.done.callback(None)
        return True

    def _fail_file(self, file: FileRange, reason: Failure) -> None:
        """Reset the connection, so that the client takes nothing else for the rest of the file."""
        self._queue.remove(file)
        file.close()
        self._transport.abortConnection()
        file.done.errback(reason)

    def _cancel_file(self, done: Deferred[None]) -> None:
        for part in self._queue:
            if isinstance(part, FileRange) and part.done is done:
                self._queue.remove(part)
                part.close()
                self._transport.abortConnection()
                return
