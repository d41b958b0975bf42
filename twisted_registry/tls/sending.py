"""The sending side of a connection over TLS on a socket: a queue, and its producer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import Connection, Error, WantWriteError

from twisted_registry.tls.losses import twisted_reason
from twisted_registry.tls.seat import SocketDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred

    from twisted_registry.tls.borrowing import BlockingTLSConnection

# A producer is paused while more than this is queued.
_HIGH_WATER_BYTES = 65536


class TLSSender(SocketDescriptor, ABC):
    """An IConsumer, which a subclass makes a transport of.

    :ivar disconnecting: whether no more shall be written.
    """

    def __init__(self, connection: Connection, below: Any) -> None:
        """Take OpenSSL's connection on the socket of ``below``."""
        super().__init__(below)
        self.disconnecting = False
        self._connection = connection
        self._handshake_done = False  # the handshake is over
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._producer: Any = None
        self._streaming = False
        self._paused = False
        self._waiting: Deferred[None] | None = None
        self._blocking_connection: BlockingTLSConnection | None = None
        self._shutdown_received = False  # the peer has said goodbye
        self._aborting = False

    def write(self, data: bytes) -> None:
        """Send, at once if nothing waits."""
        if self._lost or self._shutdown_received or (self.disconnecting and self._producer is None):
            return
        if not data:
            return
        queue = self._queue
        queue.append(data)
        self._queued += len(data)
        if not self._handshake_done or self._blocking_connection is not None:
            pass
        elif len(queue) == 1:
            lost = self._flush()
            if lost is not None:
                self._lose_later(lost)
                return
            if not queue:
                return
            self._wait_to_write()
        listens = self._producer is not None and self._streaming and not self._paused
        if listens and self._queued > _HIGH_WATER_BYTES:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several, as one."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Pause and resume ``producer`` as what it writes is sent."""
        if self._producer is not None:
            raise RuntimeError(f"there is a producer: {self._producer}")
        if self._lost:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()
            self._wait_to_write()

    def unregisterProducer(self) -> None:
        """It has written everything."""
        self._producer = None
        if self.disconnecting and not self._queue:
            self._shut_down()

    def _flush(self) -> Exception | None:
        """Send from the queue what can be sent now."""
        queue, connection = self._queue, self._connection
        try:
            while queue:
                piece = queue[0]
                sent = connection.send(piece)
                self._queued -= sent
                if sent < len(piece):
                    # Record by record, by an older pyOpenSSL.
                    queue[0] = memoryview(piece)[sent:]
                else:
                    queue.popleft()
        except WantWriteError:
            return None
        except Error as error:
            return twisted_reason(error)
        return None

    def _queue_emptied(self) -> Exception | None:
        """Nothing waits any more: who waited for that?"""
        if self._shutdown_received:
            return self._peer_closed()
        waiting, producer = self._waiting, self._producer
        if producer is not None and not self._streaming:
            producer.resumeProducing()
            return None
        self._stop_writing()
        if producer is not None and self._paused:
            self._paused = False
            producer.resumeProducing()
        if waiting is not None:
            self._waiting = None
            waiting.callback(None)
        if self.disconnecting and not self._queue:
            self._shut_down()
        return None

    def _wait_to_write(self) -> None:
        if not (self._aborting or self._lost or self._blocking_connection is not None):
            self._start_writing()

    # Of the subclass

    @abstractmethod
    def _lose_later(self, reason: Exception) -> None:
        """End, but not from within whatever called."""

    @abstractmethod
    def _peer_closed(self) -> Exception | None:
        """The peer has said goodbye; what is on its way still gets there."""

    @abstractmethod
    def _shut_down(self) -> None:
        """Tell the peer, unless something is still to be sent."""
