"""The place of one of Twisted's connections between a socket and the reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class SocketDescriptor:
    """Watched by the reactor in the place of a connection, which has only its socket to keep.

    A subclass is an IReadWriteDescriptor.
    """

    def __init__(self, below: Any) -> None:
        """Take the place of ``below``, a TCP or Unix connection; nothing is watched yet."""
        self._transport = below
        self._reactor = below.reactor
        self._reading = False  # the reactor tells us when something can be read
        self._writing = False
        self._lost = False
        below.stopReading()

    def fileno(self) -> int:
        """The socket's."""
        return -1 if self._lost else self._transport.fileno()

    def logPrefix(self) -> str:
        """That of the connection below."""
        return self._transport.logPrefix()  # type: ignore[no-any-return]

    def getPeer(self) -> Any:
        """The peer's address."""
        return self._transport.getPeer()

    def getHost(self) -> Any:
        """Our address."""
        return self._transport.getHost()

    def getTcpNoDelay(self) -> bool:
        """As promised by ITCPTransport; so are the next three."""
        return self._transport.getTcpNoDelay()  # type: ignore[no-any-return]

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001, D102
        self._transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:  # noqa: D102
        return self._transport.getTcpKeepAlive()  # type: ignore[no-any-return]

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001, D102
        self._transport.setTcpKeepAlive(enabled)

    def _set_reading(self, *, reading: bool) -> None:
        if reading is not self._reading:
            self._reading = reading
            (self._reactor.addReader if reading else self._reactor.removeReader)(self)

    def _start_writing(self) -> None:
        """Be told when something can be written."""
        if not self._writing:
            self._writing = True
            self._reactor.addWriter(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)

    def _stop_watching(self) -> None:
        self._stop_writing()
        self._set_reading(reading=False)

    def _close(self, reason: Failure) -> None:
        self._transport.connectionLost(reason)
