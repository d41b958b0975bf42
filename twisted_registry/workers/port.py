"""Accept connections from one listening socket in several processes, spread evenly.

Twisted's own port accepts every waiting connection when it wakes up: of 16 connections that arrive
at once one process would get 15, while another is idle. :class:`SharedPort` accepts one connection
at a time, and leaves it to other processes for a moment if one of them has fewer connections.

:class:`ProcessTable` holds numbers of each process in memory that all of them share. Each process
writes only its own, so there is no lock.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
    from twisted.python.failure import Failure

log = Logger()

#: Seconds for which a connection is left to a process with fewer. That process may be busy or
#: stuck.
_YIELD_DELAY_S = 0.005
#: Seconds without accepting after a failure, for example when no descriptor is left.
_ACCEPT_PAUSE_S = 1
#: Size of a number in the table: a C int.
_NUMBER_BYTES = 4
#: The highest number in the table.
MAX_NUMBER = 2**31 - 1
#: The connections of a process that is not running, or accepts no more.
_ABSENT = MAX_NUMBER


class ProcessTable:
    """Numbers of each process in shared memory, as one process sees it.

    *Connections* are hints: a stale number makes the spread less even, and nothing else.
    *Removals* count changes that make what other processes remember invalid. *Answers* are signs of
    life that the first process has asked for. *Health* is what the first process has found.
    """

    def __init__(self, descriptor: int, count: int, own: int) -> None:
        """Map the table.

        :param descriptor: of the memory; :meth:`close` closes it.
        :param count: the number of processes.
        :param own: the number of this process, from 0.
        """
        self._descriptor = descriptor
        self._own = own
        self._memory = mmap.mmap(descriptor, _table_bytes(count))
        numbers = memoryview(self._memory).cast("i")
        self._connections: memoryview[int] = numbers[:count]
        self._removals: memoryview[int] = numbers[count : 2 * count]
        self._answers: memoryview[int] = numbers[2 * count : 3 * count]
        self._health: memoryview[int] = numbers[3 * count :]
        self._is_registered = False

    @classmethod
    def create(cls, count: int) -> ProcessTable:
        """Create a table for ``count`` processes, of which none is registered; for the first."""
        descriptor = os.memfd_create("processes")
        os.ftruncate(descriptor, _table_bytes(count))
        table = cls(descriptor, count, 0)
        for number in range(count):
            table.mark_gone(number)
        return table

    def fileno(self) -> int:
        """Return the descriptor of the memory, for other processes."""
        return self._descriptor

    def register(self) -> None:
        """Note that this process accepts connections, and has none yet."""
        self._is_registered = True
        self.publish(0)

    def publish(self, connections: int) -> None:
        """Set the number of connections of this process; ignored while it is not registered."""
        if self._is_registered:
            self._connections[self._own] = connections

    def unregister(self) -> None:
        """Note that this process accepts no more connections."""
        self._is_registered = False
        self.mark_gone(self._own)

    def mark_gone(self, number: int) -> None:
        """Note that a process has ended."""
        self._connections[number] = _ABSENT

    def others_have_fewer(self) -> bool:
        """Whether another process should accept the next connection."""
        return min(self._connections.tolist()) < self._connections[self._own]

    def count_removal(self) -> None:
        """Count a removal by this process."""
        self._removals[self._own] = (self._removals[self._own] + 1) % MAX_NUMBER

    def removals(self) -> int:
        """Return a number that differs after a removal by any process."""
        return sum(self._removals.tolist())

    def answer(self, number: int) -> None:
        """Answer a question of the first process by its number."""
        self._answers[self._own] = number

    def last_answer(self, process: int) -> int:
        """Return the number of the last question that a process has answered; 0 before."""
        return self._answers[process]

    def set_health(self, state: int) -> None:
        """Set the state of the registry for all processes; for the first."""
        self._health[0] = state

    def health(self) -> int:
        """Return the state that the first process has set; 0 before."""
        return self._health[0]

    def close(self) -> None:
        """Unmap and close the memory; no other method may be called afterwards."""
        for numbers in (self._connections, self._removals, self._answers, self._health):
            numbers.release()
        self._memory.close()
        os.close(self._descriptor)


def _table_bytes(count: int) -> int:
    """Return the size of the table: three numbers for each process, and one for all."""
    return (3 * count + 1) * _NUMBER_BYTES


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """A listening socket from which several processes accept, as one of them sees it.

    :ivar socket: the listening socket; ``stopListening`` closes it.
    """

    def __init__(
        self,
        reactor: Any,
        listening: socket.socket,
        factory: IProtocolFactory,
        table: ProcessTable,
        opened: Any = None,
    ) -> None:
        """Own a listening socket; ``startListening`` begins to accept.

        :param opened: in the first process, the port whose socket was duplicated, and which does
            not read. It is stopped as well: that shuts the socket down for all processes if it was
            opened here, and removes the path of a Unix socket.
        """
        self.socket = listening
        self._reactor = reactor
        self._factory = factory
        self._table = table
        self._opened = opened
        self._resume_call: IDelayedCall | None = None
        self._is_open = False

    def startListening(self) -> None:
        """Begin to accept."""
        self.socket.setblocking(False)
        self._is_open = True
        self._factory.doStart()
        self._table.register()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Stop accepting; other processes continue, unless this is the first one."""
        if not self._is_open:
            return succeed(None)
        self._is_open = False
        self._table.unregister()
        self._reactor.removeReader(self)
        if self._resume_call is not None:
            self._resume_call.cancel()
        self.socket.close()
        self._factory.doStop()
        return succeed(None) if self._opened is None else maybeDeferred(self._opened.stopListening)

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """Return the address of the socket."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        if self.socket.family == socket.AF_INET6:
            return IPv6Address("TCP", *name)
        return IPv4Address("TCP", *name)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """Return the name for log lines of the reactor."""
        return "shared port"

    def connectionLost(self, reason: Failure) -> None:
        """Stop: the reactor stops, or cannot watch the socket."""
        del reason
        self.stopListening()

    def doRead(self) -> None:
        """Accept a waiting connection, or leave it to another process."""
        if self._table.others_have_fewer():
            self._pause_accepting(_YIELD_DELAY_S)
        else:
            self._accept()

    def _pause_accepting(self, seconds: float) -> None:
        self._reactor.removeReader(self)
        self._resume_call = self._reactor.callLater(seconds, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._resume_call = None
        self._reactor.addReader(self)
        # If the connection still waits, the other processes are too busy to accept it.
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process has accepted it, or the client has disconnected
        except OSError as error:
            if error.errno == errno.EINVAL:
                # The first process has shut the socket down, for all processes.
                self.stopListening()
                return
            log.error("cannot accept a connection: {reason}", reason=error.strerror)
            self._pause_accepting(_ACCEPT_PAUSE_S)
            return
        with connection:
            connection.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, self._factory
                )
            except OSError:
                return  # the client has disconnected


@implementer(IStreamServerEndpoint)
@frozen(eq=False)
class SharingEndpoint:
    """Listens on another endpoint, and shares its socket; for the first process.

    :ivar endpoint: opens the socket: TCP, Unix, or one that systemd passes.
    """

    _reactor: Any
    _endpoint: IStreamServerEndpoint
    _table: ProcessTable

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Open the socket, and accept from it; fires with a :class:`SharedPort`."""
        return self._endpoint.listen(factory).addCallback(self._share, factory)

    def _share(self, port: Any, factory: IProtocolFactory) -> IListeningPort:
        port.stopReading()
        listening = socket.fromfd(port.fileno(), port.addressFamily, socket.SOCK_STREAM)
        shared = SharedPort(self._reactor, listening, factory, self._table, port)
        shared.startListening()
        return shared


@implementer(IStreamServerEndpoint)
@frozen(eq=False)
class AdoptedEndpoint:
    """Listens on the socket that the first process has opened; for workers.

    :ivar descriptor: of the socket, which is closed when listening stops.
    """

    _reactor: Any
    _descriptor: int
    _table: ProcessTable

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept from the socket; fires with a :class:`SharedPort`."""
        listening = socket.socket(fileno=self._descriptor)
        port = SharedPort(self._reactor, listening, factory, self._table)
        port.startListening()
        return succeed(port)
