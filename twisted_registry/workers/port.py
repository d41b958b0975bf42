"""Listening on a socket from which other processes accept as well.

Twisted's own port accepts whatever waits when it wakes up: of 16 connections that come at once,
one process would get 15, while another is idle. This one takes a connection at a time, and leaves
it to the others for a moment if one of them has fewer.

How many connections each of the processes has, in memory that all of them share.

Only hints: a number that is read a moment late makes the spread a little less even, and nothing
else. So there is no lock.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
    from twisted.python.failure import Failure
    # @@EMPTY

log = Logger()

#: Seconds for which a connection is left to a process that has fewer. It may be busy, or stuck.
_YIELD_DELAY_S = 0.005
#: Seconds without accepting when there is no descriptor or memory left.
_ACCEPT_PAUSE_S = 1


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """Accepts connections, as one of several processes.

    :ivar socket: a listening socket, closed by ``stopListening``.
    """

    def __init__(
        self, reactor: Any, listening: socket.socket, factory: IProtocolFactory, loads: LoadTable
    ) -> None:
        """Take a listening socket over; nothing is accepted before ``startListening``."""
        self.socket = listening
        self._reactor = reactor
        self._factory = factory
        self._loads = loads
        self._later: IDelayedCall | None = None
        self._open = False

    def startListening(self) -> None:
        """Begin to accept."""
        self.socket.setblocking(False)
        self._open = True
        self._factory.doStart()
        self._loads.enter()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept nothing more, and leave the socket to the others."""
        if self._open:
            self._open = False
            self._loads.leave()
            self._reactor.removeReader(self)
            if self._later is not None:
                self._later.cancel()
            self.socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """Where it listens."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        if self.socket.family == socket.AF_INET6:
            return IPv6Address("TCP", *name)
        return IPv4Address("TCP", *name)

    # What the reactor calls

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """A name for the reactor's own messages."""
        return "shared port"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or could not watch the socket."""
        del reason
        self.stopListening()

    def doRead(self) -> None:
        """A connection waits."""
        if self._loads.others_have_fewer():
            self._pause_accepting(_YIELD_DELAY_S)
        else:
            self._accept()

    def _pause_accepting(self, seconds: float) -> None:
        self._reactor.removeReader(self)
        self._later = self._reactor.callLater(seconds, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._later = None
        self._reactor.addReader(self)
        # If it waits still, those that it was left to do not come for it.
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process was quicker, or the client has left
        except OSError as error:
            if error.errno == errno.EINVAL:
                # The first process has shut it for all of us.
                self.stopListening()
                return
            log.error("a connection can not be accepted: {reason}", reason=error.strerror)
            self._pause_accepting(_ACCEPT_PAUSE_S)
            return
        with connection:
            connection.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, self._factory
                )
            except OSError:
                return  # the client has left


@implementer(IStreamServerEndpoint)
class SharingEndpoint:
    """Listens on another endpoint, and shares its socket: what the first process does."""

    def __init__(self, reactor: Any, endpoint: IStreamServerEndpoint, loads: LoadTable) -> None:
        """Take the endpoint that opens the socket: TCP, Unix, or one that was handed over."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._loads = loads

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Open the socket, and accept from it; the result is an :class:`PrimaryPort`."""
        return self._endpoint.listen(factory).addCallback(self._share, factory)

    def _share(self, port: Any, factory: IProtocolFactory) -> IListeningPort:
        port.stopReading()
        listening = socket.fromfd(port.fileno(), port.addressFamily, socket.SOCK_STREAM)
        shared = PrimaryPort(self._reactor, listening, factory, self._loads, port)
        shared.startListening()
        return shared


class PrimaryPort(SharedPort):
    """As the process has it that opened the socket, and removes a Unix socket's path."""

    def __init__(
        self,
        reactor: Any,
        listening: socket.socket,
        factory: IProtocolFactory,
        loads: LoadTable,
        port: IListeningPort,
    ) -> None:
        """Take a duplicate of the socket of ``port``, which does not read."""
        super().__init__(reactor, listening, factory, loads)
        self._port = port

    def stopListening(self) -> Deferred[None]:
        """Accept nothing more; a socket that was opened here is shut for the others too."""
        stopped = super().stopListening()
        return maybeDeferred(self._port.stopListening).addCallback(lambda _: stopped)


@implementer(IStreamServerEndpoint)
class AdoptedEndpoint:
    """Listens on a socket that the first process has opened."""

    def __init__(self, reactor: Any, descriptor: int, loads: LoadTable) -> None:
        """Take the descriptor of the socket, which is closed when listening ends."""
        self._reactor = reactor
        self._descriptor = descriptor
        self._loads = loads

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept from the socket."""
        port = SharedPort(
            self._reactor, socket.socket(fileno=self._descriptor), factory, self._loads
        )
        port.startListening()
        return succeed(port)


_ITEM_BYTES = 4
#: The load of a process that is not there, or takes no more connections.
_ABSENT = 2**31 - 1


class LoadTable:
    """The table, as one of the processes sees it."""

    def __init__(self, descriptor: int, count: int, own: int) -> None:
        """Map the table.

        :param descriptor: the memory, which :meth:`close` closes.
        :param count: how many processes there are.
        :param own: which of them this one is, from 0.
        """
        self._descriptor = descriptor
        self._own = own
        self._memory = mmap.mmap(descriptor, count * _ITEM_BYTES)
        self._numbers: memoryview[int] = memoryview(self._memory).cast("i")
        self._there = False

    @classmethod
    def make(cls, count: int) -> LoadTable:
        """A new table for ``count`` processes, none of which is there; this is the first."""
        descriptor = os.memfd_create("loads")
        os.ftruncate(descriptor, count * _ITEM_BYTES)
        made = cls(descriptor, count, 0)
        for number in range(count):
            made.gone(number)
        return made

    def fileno(self) -> int:
        """The descriptor of the memory, to be handed on."""
        return self._descriptor

    def enter(self) -> None:
        """This process takes connections, and has none yet."""
        self._there = True
        self.publish(0)

    def publish(self, connections: int) -> None:
        """Tell the others how many connections this process has."""
        if self._there:
            self._numbers[self._own] = connections

    def leave(self) -> None:
        """This process takes no more connections."""
        self._there = False
        self.gone(self._own)

    def gone(self, number: int) -> None:
        """A process has ended."""
        self._numbers[number] = _ABSENT

    def others_have_fewer(self) -> bool:
        """Whether the next connection should go to another process."""
        return min(self._numbers.tolist()) < self._numbers[self._own]

    def close(self) -> None:
        """Let go of the memory; nothing may be asked any more."""
        self._numbers.release()
        self._memory.close()
        os.close(self._descriptor)
