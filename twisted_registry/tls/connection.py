"""TLS on a socket itself.

Twisted's TLS is a protocol over any transport: OpenSSL works between two buffers in memory, and
what comes of it is copied from there, joined, queued and sent. Here OpenSSL reads and writes the
socket, and a thread may do so in the reactor's place (:class:`ITLSConnection`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import (
    Connection,
    Error,
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

from twisted_registry.auth.clientcertificate import IClientCertificateTransport
from twisted_registry.securesocket import ITLSConnection
from twisted_registry.tls.borrowing import BlockingTLSConnection
from twisted_registry.tls.losses import twisted_reason
from twisted_registry.tls.sending import TLSSender
from twisted_registry.tls.shown import peer_certificate

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol

    from twisted_registry.auth.clientcertificate import ClientCertificate

#: The most that a record of TLS holds: what one call reads at most (RFC 8446 section 5.1).
_MAX_RECORD_BYTES = 16384


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
        self._blocking_connection = BlockingTLSConnection(self._connection, self.fileno(), self._returned)
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
        if self._shutdown_sent or self._aborting or self._lost or self._producer or self._blocking_connection:
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
