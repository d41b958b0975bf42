"""The place of one of Twisted's connections between a socket and the reactor.

Why a connection over TLS is lost, and how the next one is not.

The sending side of a connection over TLS on a socket: a queue, and its producer.

A connection over TLS in the hands of a thread.

What clients show of themselves: certificates, in words that access control understands.

TLS on a socket itself.

Twisted's TLS is a protocol over any transport: OpenSSL works between two buffers in memory, and
what comes of it is copied from there, joined, queued and sent. Here OpenSSL reads and writes the
socket, and a thread may do so in the reactor's place (:class:`ITLSConnection`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from errno import ECONNABORTED
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL.SSL import (
    TLS_METHOD,
    Connection,
    Context,
    Error,
    SysCallError,
    WantReadError,
    WantWriteError,
    ZeroReturnError,
)
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    ILoggingContext,
    INegotiated,
    IPushProducer,
    IReadWriteDescriptor,
    ISSLTransport,
    ISystemHandle,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.tls.interfaces import (
    ClientCertificate,
    IBlockingTLSConnection,
    IClientCertificateTransport,
    ITLSConnection,
)

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IProtocol


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


_SCRATCH_CONTEXT = Context(TLS_METHOD)


def twisted_reason(error: Error) -> Exception:
    """What an error means; that the peer left without a goodbye is said in Twisted's way.

    To be called on the thread that got the error, and for each.
    """
    if isinstance(error, SysCallError):
        _clear_error_queue()
        return CONNECTION_LOST
    queue = error.args[0] if error.args else ()
    # OpenSSL 4 has no words for it.
    if not queue or queue[-1][-1].casefold().startswith("unexpected eof"):
        return CONNECTION_LOST
    return error


def _clear_error_queue() -> None:
    """Empty OpenSSL's list of this thread's errors.

    It says more of a failed system call than pyOpenSSL asks for, and older releases take what is
    left there for an error of the next connection. pyOpenSSL empties it when another call fails.
    """
    with suppress(Error):
        _SCRATCH_CONTEXT.set_cipher_list(b"NO-SUCH-CIPHER")


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


# The most that a record holds: no call reads more.
_MAX_RECORD_BYTES = 16384


@implementer(IBlockingTLSConnection)
class BlockingTLSConnection:
    """As the interface says. OpenSSL works without the interpreter's lock.

    :ivar revoked: whether the thread shall come back at once.
    """

    def __init__(
        self, connection: Connection, descriptor: int, on_return: Callable[[], None]
    ) -> None:
        """Take what is lent.

        :param returned: called by :meth:`close`.
        """
        self.revoked = False
        self._connection = connection
        self._descriptor = descriptor
        self._on_return = on_return

    def fileno(self) -> int:
        """The socket's."""
        return self._descriptor

    def send(self, octets: memoryview) -> int:
        """See :class:`IBlockingTLSConnection`."""
        self._check_revoked()
        try:
            return self._connection.send(octets)
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except Error as error:
            raise ConnectionError(twisted_reason(error)) from error

    def recv_into(self, room: memoryview) -> int:
        """See :class:`IBlockingTLSConnection`."""
        self._check_revoked()
        try:
            return self._connection.recv_into(room, min(len(room), _MAX_RECORD_BYTES))
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except ZeroReturnError:
            return 0
        except Error as error:
            raise ConnectionError(twisted_reason(error)) from error

    def close(self) -> None:
        """Give the connection back."""
        self._on_return()

    def _check_revoked(self) -> None:
        if self.revoked:
            raise ConnectionAbortedError(ECONNABORTED, "the connection is to be closed")


def peer_certificate(connection: Connection) -> ClientCertificate | None:
    """What the peer of a connection has shown; None before the end of the handshake, too."""
    shown = connection.get_peer_certificate(as_cryptography=True)
    return None if shown is None else read(shown)


def read(certificate: x509.Certificate) -> ClientCertificate:
    """What a certificate says of its holder."""
    subject = certificate.subject
    try:
        found: Any = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        found = x509.SubjectAlternativeName([])
    return ClientCertificate(
        subject.rfc4514_string(),
        _name_attributes(subject, NameOID.COMMON_NAME),
        _name_attributes(subject, NameOID.ORGANIZATION_NAME),
        tuple(found.get_values_for_type(x509.DNSName)),
        tuple(found.get_values_for_type(x509.RFC822Name)),
        tuple(found.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _name_attributes(subject: x509.Name, kind: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(str(each.value) for each in subject.get_attributes_for_oid(kind))


#: The most that a record of TLS holds: what one call reads at most (RFC 8446 section 5.1).


@implementer(
    ISSLTransport, IReadWriteDescriptor, IConsumer, IPushProducer, ISystemHandle, INegotiated,
    ILoggingContext, IClientCertificateTransport, ITLSConnection,
)  # fmt: skip
class TLSConnection(TLSSender):
    """See the module."""

    bufferSize = 65536

    def __init__(
        self, connection: Connection, below: Any, protocol: IProtocol, *, verifies: bool
    ) -> None:
        """Take an end of a connection that has not shaken hands yet.

        :param connection: OpenSSL's, on the socket of ``below``.
        :param below: Twisted's connection; it keeps the socket, and closes it.
        :param verifies: whether OpenSSL verifies what clients show.
        """
        super().__init__(connection, below)
        self._protocol: Any = protocol
        self._verifies = verifies
        self._certificate: ClientCertificate | None = None
        self._certificate_read = False
        self._read_wanted = True  # somebody wants what can be read
        self._reads_when_writable = False
        self._shutdown_sent = False  # we have said goodbye
        self._reason = Failure(CONNECTION_LOST)
        self._update_reading()

    # What the reactor calls

    def doRead(self) -> Any:
        """Read what has come, and deliver it."""
        if not self._handshake_done:
            return self._handshake()
        connection = self._connection
        try:
            data = connection.recv(_MAX_RECORD_BYTES)
        except WantReadError:
            return None
        except WantWriteError:
            # A change of keys, which wants to be answered.
            self._reads_when_writable = True
            self._wait_to_write()
            return None
        except ZeroReturnError:
            return self._peer_closed()
        except Error as error:
            return twisted_reason(error)
        # A whole record is seldom alone. What is shorter is: a call to find that out can be saved.
        if len(data) == _MAX_RECORD_BYTES:
            data = self._read_more_records(data)
        self._protocol.dataReceived(data)
        return None

    def doWrite(self) -> Any:
        """The socket takes bytes again."""
        if not self._handshake_done:
            return self._handshake()
        if self._reads_when_writable:
            self._reads_when_writable = False
            if (lost := self.doRead()) is not None:
                return lost
        if self._aborting or self._blocking_connection is not None:
            return None
        lost = self._flush()
        return self._queue_emptied() if lost is None and not self._queue else lost

    def connectionLost(self, reason: Failure) -> None:
        """It is over: close the socket, and tell all who have to do with it."""
        if self._lost:
            return
        self._stop_watching()
        self._lost = True
        waiting, self._waiting = self._waiting, None
        producer, self._producer = self._producer, None
        protocol, self._protocol = self._protocol, None
        self._queue.clear()
        if self._blocking_connection is None:
            self._close(reason)
        else:
            # The socket must not be closed, nor its number given to another, under a thread.
            self._blocking_connection.revoked = True
            self._reason = reason
        if producer is not None:
            producer.stopProducing()
        if waiting is not None:
            waiting.errback(reason)
        protocol.connectionLost(reason)

    # ITransport

    def loseConnection(self) -> None:
        """Send what waits, say goodbye, and close when the peer has done so."""
        if self.disconnecting or self._lost:
            return
        if not (self._handshake_done or self._queue):
            self.abortConnection()
            return
        self.disconnecting = True
        self._update_reading()
        if not self._queue:
            self._shut_down()

    def loseWriteConnection(self) -> None:
        """TLS has no half of a connection to close that clients would know of: close all of it."""
        self.loseConnection()

    def abortConnection(self) -> None:
        """Close, whatever waits: the peer sees that this is no end."""
        if self._lost or self._aborting:
            return
        self.disconnecting = True
        self._lose_later(ConnectionAborted())

    def hangUp(self) -> None:
        """See :class:`ITLSConnection`."""
        if not (self._lost or self._aborting):
            self.disconnecting = True
            self._lose_later(CONNECTION_DONE)

    def getHandle(self) -> Connection:
        """OpenSSL's connection."""
        return self._connection

    def getPeerCertificate(self) -> Any:
        """What the peer has shown, verified or not."""
        return self._connection.get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What was agreed on by ALPN."""
        return self._connection.get_alpn_proto_negotiated() or None

    @property
    def certificate(self) -> ClientCertificate | None:
        """As promised by :class:`IClientCertificateTransport`."""
        if not self._certificate_read and self._handshake_done:
            self._certificate_read = True
            if self._verifies:
                self._certificate = peer_certificate(self._connection)
        return self._certificate

    # IPushProducer, IConsumer

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self._read_wanted = False
        self._update_reading()

    def resumeProducing(self) -> None:
        """Read on."""
        self._read_wanted = True
        self._update_reading()

    def stopProducing(self) -> None:
        """Nobody wants what would be read."""
        self.loseConnection()

    # ITLSConnection

    @property
    def lendable(self) -> bool:
        """Whether the connection can be borrowed now."""
        closing = self._aborting or self._shutdown_sent or self._shutdown_received or self._lost
        return self._handshake_done and not (closing or self._queue or self._blocking_connection)

    def borrow(self) -> BlockingTLSConnection:
        """See :class:`ITLSConnection`."""
        assert self.lendable
        self._blocking_connection = BlockingTLSConnection(
            self._connection, self.fileno(), self._returned
        )
        self._stop_watching()
        return self._blocking_connection

    def whenWritable(self) -> Deferred[None]:
        """See :class:`ITLSConnection`."""
        if self._lost or self._aborting:
            return fail(Failure(CONNECTION_LOST))
        assert self._waiting is None
        self._waiting = Deferred()
        self._wait_to_write()
        return self._waiting

    def _returned(self) -> None:
        self._blocking_connection = None
        if self._lost:
            self._close(self._reason)
            return
        self._update_reading()
        if self._queue or self._waiting is not None:
            self._wait_to_write()
        elif self.disconnecting:
            self._shut_down()

    # Steps

    def _handshake(self) -> Exception | None:
        try:
            self._connection.do_handshake()
        except WantReadError:
            self._stop_writing()
            return None
        except WantWriteError:
            self._wait_to_write()
            return None
        except Error as error:
            return twisted_reason(error)
        self._handshake_done = True
        self._stop_writing()
        self._update_reading()
        if self._queue or self._producer is not None or self._waiting is not None:
            self._wait_to_write()
        if IHandshakeListener.providedBy(self._protocol):
            self._protocol.handshakeCompleted()
        return None

    def _read_more_records(self, data: bytes) -> bytes:
        """What has come together with a whole record; what fails here fails again next time."""
        pieces, size, connection = [data], len(data), self._connection
        try:
            while len(data) == _MAX_RECORD_BYTES and size < self.bufferSize:
                data = connection.recv(_MAX_RECORD_BYTES)
                pieces.append(data)
                size += len(data)
        except Error as error:
            twisted_reason(error)
        return b"".join(pieces)

    def _shut_down(self) -> None:
        if (
            self._shutdown_sent
            or self._aborting
            or self._lost
            or self._producer
            or self._blocking_connection
        ):
            return
        try:
            both = self._connection.shutdown()
        except WantWriteError:
            self._wait_to_write()
            return
        except Error as error:
            self._lose_later(twisted_reason(error))
            return
        self._shutdown_sent = True
        if both:
            self._lose_later(CONNECTION_DONE)

    def _peer_closed(self) -> Exception | None:
        """The peer has said goodbye; what is on its way still gets there."""
        if self._queue:
            self._shutdown_received = True
            self._update_reading()
            return None
        if self._waiting is None:
            # Or else the rest of something has to be sent first.
            try:
                self._connection.shutdown()
            except Error as error:
                twisted_reason(error)
        return CONNECTION_DONE

    def _lose_later(self, reason: Exception) -> None:
        """End, but not from within whatever called."""
        self._aborting = True
        if self._blocking_connection is not None:
            self._blocking_connection.revoked = True
        self._stop_watching()
        self._reactor.callLater(0, self.connectionLost, Failure(reason))

    # What the reactor watches

    def _update_reading(self) -> None:
        """Read if that is wanted: by whoever is above us, or for a handshake or a goodbye."""
        wanted = (
            (self._read_wanted or not self._handshake_done or self.disconnecting)
            and not (self._shutdown_received or self._aborting or self._lost)
            and self._blocking_connection is None
        )
        again = wanted and not self._reading
        self._set_reading(reading=wanted)
        if again and self._handshake_done and self._connection.pending():
            # A borrower has left a part of a record, of which no socket tells.
            self._reactor.callLater(0, self._read_rest)

    def _read_rest(self) -> None:
        if self._reading and (lost := self.doRead()) is not None:
            self.connectionLost(Failure(lost))
