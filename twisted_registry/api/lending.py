"""A part of a body that its consumer reads from the socket by itself, on a thread.

A fast sender's bytes need not pass through the reactor's thread, in large pieces that no cache
holds until they are hashed. Whoever sends slowly is not worth a thread, and gets none for long.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from twisted_registry.securesocket import IBlockingTLSConnection

#: Bytes of one read that show a fast sender; of less than that nothing is lent.
DIRECT_READ_MIN_BYTES = 256 * 1024
# How often, and for how many milliseconds, more is waited for before a sender counts as slow.
_MAX_POLLS = 8
_POLL_TIMEOUT_MS = 2


class DirectRead:
    """The right to read so many bytes of a socket, which nobody else reads meanwhile.

    ``read_into`` runs on a thread, and no call of it comes after :attr:`over`. The socket is what
    an output lends: a duplicate, or a connection over TLS.

    :ivar left: bytes that may still be read.
    :ivar taken: bytes that were.
    :ivar over: whether whoever has the loan is done with it.
    """

    def __init__(self, socket: socket.socket | IBlockingTLSConnection, left: int) -> None:
        self._socket = socket
        self.left = left
        self.taken = 0
        self.over = False
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` by half at least, if the sender is quick; answers how many bytes that was.

        The loan is over after bytes that came slowly, the last, and none: why none come is for the
        owner of the connection to find out.
        """
        buffer = buffer[: self.left]
        enough = (len(buffer) + 1) // 2
        filled = waits = 0
        try:
            while filled < enough:
                try:
                    length = self._socket.recv_into(buffer[filled:])
                except BlockingIOError:
                    waits += 1
                    if waits > _MAX_POLLS or not self._poller.poll(_POLL_TIMEOUT_MS):
                        break
                    continue
                if not length:
                    break
                filled += length
        except OSError:
            pass
        self.taken += filled
        self.left -= filled
        self.over = filled < enough or not self.left
        return filled

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()
