"""The place of one of Twisted's connections between a socket and the reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class Seat:
    """Watched by the reactor in the place of a connection, which has only its socket to keep.

    A subclass is an IReadWriteDescriptor.
    """

    def __init__(self, below: Any) -> None:
        """Take the place of ``below``, a TCP or Unix connection; nothing is watched yet."""
        self._below = below
        self._reactor = below.reactor
        self._reading = False  # the reactor tells us when something can be read
        self._writing = False
        self._left = False
        below.stopReading()

    def fileno(self) -> int:
        """The socket's."""
        return -1 if self._left else self._below.fileno()

    def logPrefix(self) -> str:
        """That of the connection below."""
        return self._below.logPrefix()  # type: ignore[no-any-return]

    def getPeer(self) -> Any:
        """The peer's address."""
        return self._below.getPeer()

    def getHost(self) -> Any:
        """Our address."""
        return self._below.getHost()

    def getTcpNoDelay(self) -> bool:
        """As promised by ITCPTransport; so are the next three."""
        return self._below.getTcpNoDelay()  # type: ignore[no-any-return]

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001, D102
        self._below.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:  # noqa: D102
        return self._below.getTcpKeepAlive()  # type: ignore[no-any-return]

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001, D102
        self._below.setTcpKeepAlive(enabled)

    def _watch(self, *, reading: bool) -> None:
        if reading is not self._reading:
            self._reading = reading
            (self._reactor.addReader if reading else self._reactor.removeReader)(self)

    def _write_later(self) -> None:
        """Be told when something can be written."""
        if not self._writing:
            self._writing = True
            self._reactor.addWriter(self)

    def _write_no_more(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)

    def _look_away(self) -> None:
        self._write_no_more()
        self._watch(reading=False)

    def _close(self, reason: Failure) -> None:
        self._below.connectionLost(reason)
