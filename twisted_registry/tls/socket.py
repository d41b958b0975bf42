"""TLS directly on a socket.

Twisted's TLS is a protocol over any transport: OpenSSL works between two buffers in memory, and
the encrypted data is copied, joined, queued and sent from there. :class:`TLSConnection` lets
OpenSSL read and write the socket itself, and can lend the connection to a thread
(:class:`~twisted_registry.http.interfaces.ITLSConnection`).
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from errno import ECONNABORTED
from typing import TYPE_CHECKING, Any

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

from twisted_registry.http.interfaces import IBlockingTLSConnection, ITLSConnection
from twisted_registry.tls.certificates import peer_certificate
from twisted_registry.tls.interfaces import IClientCertificateTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IProtocol

    from twisted_registry.tls.interfaces import ClientCertificate

#: The maximum size of the data in a TLS record in bytes (RFC 8446 section 5.1). One call of
#: OpenSSL reads at most one record.
_MAX_RECORD_BYTES = 16384
#: A producer is paused while more bytes than this are queued.
_HIGH_WATER_BYTES = 65536
_SCRATCH_CONTEXT = Context(TLS_METHOD)
#: The answer to plain HTTP, with the words of Go, which people search for.
PLAIN_HTTP_RESPONSE = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)
#: OpenSSL's reason for refusing what begins like an HTTP request.
_HTTP_REQUEST_REASON = "http request"


def twisted_reason(error: Error) -> Exception:
    """Return Twisted's exception for an OpenSSL error.

    Must be called for each error, in the thread in which it occurred. A connection closed without
    a close_notify alert gives ConnectionLost.
    """
    if isinstance(error, SysCallError):
        _clear_error_queue()
        return CONNECTION_LOST
    queue = error.args[0] if error.args else ()
    # OpenSSL 4 gives no text for it.
    if not queue or queue[-1][-1].casefold().startswith("unexpected eof"):
        return CONNECTION_LOST
    return error


def _is_plain_http(error: Error) -> bool:
    """Return whether a handshake failed because the peer sent an HTTP request without TLS."""
    # The error of a failed system call has a number instead of OpenSSL's queue.
    queue = error.args[0] if error.args else None
    return isinstance(queue, list) and bool(queue) and queue[-1][-1] == _HTTP_REQUEST_REASON


def _clear_error_queue() -> None:
    """Clear the error queue that OpenSSL keeps for the current thread.

    After a failed system call the queue contains more than pyOpenSSL reads, and older releases
    take the rest for an error of the next connection. pyOpenSSL empties the queue when any other
    call fails, so this makes one fail.
    """
    with suppress(Error):
        _SCRATCH_CONTEXT.set_cipher_list(b"NO-SUCH-CIPHER")


@implementer(IBlockingTLSConnection)
class BlockingTLSConnection:
    """A TLS connection borrowed by a thread. OpenSSL runs without the interpreter lock.

    :ivar revoked: whether the thread shall return the connection at once; its calls fail then.
    """

    def __init__(
        self, connection: Connection, descriptor: int, on_return: Callable[[], None]
    ) -> None:
        """Borrow a connection.

        :param connection: OpenSSL's connection.
        :param descriptor: the descriptor of the socket.
        :param on_return: called by :meth:`close`.
        """
        self.revoked = False
        self._connection = connection
        self._descriptor = descriptor
        self._on_return = on_return

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._descriptor

    def send(self, octets: memoryview) -> int:
        """Encrypt and send data; return the number of accepted bytes."""
        self._check_revoked()
        try:
            return self._connection.send(octets)
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except Error as error:
            raise ConnectionError(twisted_reason(error)) from error

    def recv_into(self, room: memoryview) -> int:
        """Receive and decrypt data into ``room``; return the number of bytes."""
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
        """Return the connection to the reactor."""
        self._on_return()

    def _check_revoked(self) -> None:
        if self.revoked:
            raise ConnectionAbortedError(ECONNABORTED, "the connection is being closed")


@implementer(
    ISSLTransport, IReadWriteDescriptor, IConsumer, IPushProducer, ISystemHandle, INegotiated,
    ILoggingContext, IClientCertificateTransport, ITLSConnection,
)  # fmt: skip
class TLSConnection:
    """The server's end of a TLS connection: transport, consumer and reactor descriptor in one.

    Twisted's connection below only keeps the socket and closes it. The reactor watches this object
    instead.

    :ivar certificate: the verified certificate of the peer; None before the handshake.
    :ivar disconnecting: whether the connection is being closed, so that nothing may be written.
    """

    bufferSize = 65536

    def __init__(
        self, connection: Connection, transport: Any, protocol: IProtocol, *, verifies: bool
    ) -> None:
        """Take over a connection before its handshake.

        :param connection: OpenSSL's connection on the socket of ``transport``.
        :param transport: Twisted's TCP or Unix connection.
        :param protocol: receives the decrypted data.
        :param verifies: whether OpenSSL verifies client certificates.
        """
        self._connection = connection
        self._transport = transport
        self._protocol: Any = protocol
        self._verifies = verifies
        self._reactor = transport.reactor
        self.certificate: ClientCertificate | None = None

        # States of the connection.
        self.disconnecting = False
        self._handshake_done = False
        self._shutdown_sent = False  # close_notify has been sent
        self._shutdown_received = False  # close_notify has been received
        self._aborting = False  # connectionLost is scheduled
        self._lost = False  # connectionLost has been called
        self._reason = Failure(CONNECTION_LOST)
        self._blocking_connection: BlockingTLSConnection | None = None

        # What the reactor watches.
        self._reading = False
        self._writing = False
        self._read_wanted = True  # the protocol accepts data
        self._reads_when_writable = False

        # Data to be sent, and who waits for that.
        self._queue: deque[bytes | memoryview] = deque()
        self._queued_bytes = 0
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._waiting: Deferred[None] | None = None

        transport.stopReading()
        self._update_reading()

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 if the connection is lost."""
        return -1 if self._lost else self._transport.fileno()

    def logPrefix(self) -> str:
        """Return the log prefix of Twisted's connection."""
        return self._transport.logPrefix()  # type: ignore[no-any-return]

    def getPeer(self) -> Any:
        """Return the address of the peer."""
        return self._transport.getPeer()

    def getHost(self) -> Any:
        """Return the local address."""
        return self._transport.getHost()

    def getTcpNoDelay(self) -> bool:
        """Return whether TCP_NODELAY is set."""
        return self._transport.getTcpNoDelay()  # type: ignore[no-any-return]

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001
        """Set or clear TCP_NODELAY."""
        self._transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Return whether SO_KEEPALIVE is set."""
        return self._transport.getTcpKeepAlive()  # type: ignore[no-any-return]

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001
        """Set or clear SO_KEEPALIVE."""
        self._transport.setTcpKeepAlive(enabled)

    def getHandle(self) -> Connection:
        """Return OpenSSL's connection."""
        return self._connection

    def getPeerCertificate(self) -> Any:
        """Return the certificate of the peer, verified or not."""
        return self._connection.get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol agreed on by ALPN (RFC 7301)."""
        return self._connection.get_alpn_proto_negotiated() or None

    def doRead(self) -> Any:
        """Read and deliver data. Called by the reactor."""
        if not self._handshake_done:
            return self._handshake()
        connection = self._connection
        try:
            data = connection.recv(_MAX_RECORD_BYTES)
        except WantReadError:
            return None
        except WantWriteError:
            # The peer has changed its keys, and OpenSSL has to answer.
            self._reads_when_writable = True
            self._wait_to_write()
            return None
        except ZeroReturnError:
            return self._peer_closed()
        except Error as error:
            return twisted_reason(error)
        # A full record is usually followed by another one; a shorter one is not, so that a call
        # of OpenSSL is saved.
        if len(data) == _MAX_RECORD_BYTES:
            data = self._read_more_records(data)
        self._protocol.dataReceived(data)
        return None

    def _read_more_records(self, data: bytes) -> bytes:
        """Read the records after a full one. An error here occurs again at the next read."""
        pieces, size, connection = [data], len(data), self._connection
        try:
            while len(data) == _MAX_RECORD_BYTES and size < self.bufferSize:
                data = connection.recv(_MAX_RECORD_BYTES)
                pieces.append(data)
                size += len(data)
        except Error as error:
            twisted_reason(error)
        return b"".join(pieces)

    def doWrite(self) -> Any:
        """Send queued data. Called by the reactor."""
        if not self._handshake_done:
            return self._handshake()
        if self._reads_when_writable:
            self._reads_when_writable = False
            if (reason := self.doRead()) is not None:
                return reason
        if self._aborting or self._blocking_connection is not None:
            return None
        reason = self._flush()
        return self._queue_emptied() if reason is None and not self._queue else reason

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and notify producer, waiter and protocol. Called by the reactor."""
        if self._lost:
            return
        self._stop_watching()
        self._lost = True
        waiting, self._waiting = self._waiting, None
        producer, self._producer = self._producer, None
        protocol, self._protocol = self._protocol, None
        self._queue.clear()
        if self._blocking_connection is None:
            self._transport.connectionLost(reason)
        else:
            # The descriptor must stay open, and must not be reused, while a thread uses it.
            self._blocking_connection.revoked = True
            self._reason = reason
        if producer is not None:
            producer.stopProducing()
        if waiting is not None:
            waiting.errback(reason)
        protocol.connectionLost(reason)

    def write(self, data: bytes) -> None:
        """Send data, immediately if nothing is queued."""
        if self._lost or self._shutdown_received or (self.disconnecting and self._producer is None):
            return
        if not data:
            return
        queue = self._queue
        queue.append(data)
        self._queued_bytes += len(data)
        if not self._handshake_done or self._blocking_connection is not None:
            pass
        elif len(queue) == 1:
            reason = self._flush()
            if reason is not None:
                self._lose_later(reason)
                return
            if not queue:
                return
            self._wait_to_write()
        may_pause = self._producer is not None and self._streaming and not self._producer_paused
        if may_pause and self._queued_bytes > _HIGH_WATER_BYTES:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces of data as one."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Register a producer, which is paused while too much data is queued."""
        if self._producer is not None:
            raise RuntimeError(f"a producer is already registered: {self._producer}")
        if self._lost:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()
            self._wait_to_write()

    def unregisterProducer(self) -> None:
        """Unregister the producer, which has written everything."""
        self._producer = None
        if self.disconnecting and not self._queue:
            self._shut_down()

    def _flush(self) -> Exception | None:
        """Send as much of the queue as the socket accepts; return why the connection is lost."""
        queue, connection = self._queue, self._connection
        try:
            while queue:
                piece = queue[0]
                sent = connection.send(piece)
                self._queued_bytes -= sent
                if sent < len(piece):
                    # Older releases of pyOpenSSL send one record per call.
                    queue[0] = memoryview(piece)[sent:]
                else:
                    queue.popleft()
        except WantWriteError:
            return None
        except Error as error:
            return twisted_reason(error)
        return None

    def _queue_emptied(self) -> Exception | None:
        """Continue after the last queued byte was sent; return why the connection is lost."""
        if self._shutdown_received:
            return self._peer_closed()
        waiting, producer = self._waiting, self._producer
        if producer is not None and not self._streaming:
            producer.resumeProducing()
            return None
        self._stop_writing()
        if producer is not None and self._producer_paused:
            self._producer_paused = False
            producer.resumeProducing()
        if waiting is not None:
            self._waiting = None
            waiting.callback(None)
        if self.disconnecting and not self._queue:
            self._shut_down()
        return None

    def pauseProducing(self) -> None:
        """Stop reading."""
        self._read_wanted = False
        self._update_reading()

    def resumeProducing(self) -> None:
        """Continue reading."""
        self._read_wanted = True
        self._update_reading()

    def stopProducing(self) -> None:
        """Close the connection: no more data is wanted."""
        self.loseConnection()

    @property
    def lendable(self) -> bool:
        """Whether the connection can be borrowed now."""
        closing = self._aborting or self._shutdown_sent or self._shutdown_received or self._lost
        return self._handshake_done and not (closing or self._queue or self._blocking_connection)

    def borrow(self) -> BlockingTLSConnection:
        """Lend the connection to a thread; the reactor stops watching it."""
        assert self.lendable
        self._blocking_connection = BlockingTLSConnection(
            self._connection, self.fileno(), self._returned
        )
        self._stop_watching()
        return self._blocking_connection

    def _returned(self) -> None:
        self._blocking_connection = None
        if self._lost:
            self._transport.connectionLost(self._reason)
            return
        self._update_reading()
        if self._queue or self._waiting is not None:
            self._wait_to_write()
        elif self.disconnecting:
            self._shut_down()

    def whenWritable(self) -> Deferred[None]:
        """Fire when the queue is empty and the socket accepts data."""
        if self._lost or self._aborting:
            return fail(Failure(CONNECTION_LOST))
        assert self._waiting is None
        self._waiting = Deferred()
        self._wait_to_write()
        return self._waiting

    def loseConnection(self) -> None:
        """Send queued data and close_notify, and close when the peer has answered."""
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
        """Close the whole connection: clients do not expect a TLS connection to be half-closed."""
        self.loseConnection()

    def abortConnection(self) -> None:
        """Close at once, discarding queued data. Without close_notify, the peer sees an error."""
        if self._lost or self._aborting:
            return
        self.disconnecting = True
        self._lose_later(ConnectionAborted())

    def hangUp(self) -> None:
        """Close at once, without waiting for the close_notify of the peer."""
        if not (self._lost or self._aborting):
            self.disconnecting = True
            self._lose_later(CONNECTION_DONE)

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
            if _is_plain_http(error):
                self._answer_plain_http()
            return twisted_reason(error)
        self._handshake_done = True
        if self._verifies:
            self.certificate = peer_certificate(self._connection)
        self._stop_writing()
        self._update_reading()
        if self._queue or self._producer is not None or self._waiting is not None:
            self._wait_to_write()
        if IHandshakeListener.providedBy(self._protocol):
            self._protocol.handshakeCompleted()
        return None

    def _answer_plain_http(self) -> None:
        """Answer a request without TLS. The socket is closed next, after the failed handshake."""
        with suppress(OSError):
            socket = self._transport.getHandle()
            socket.send(PLAIN_HTTP_RESPONSE)
            # With unread data the kernel would reset the connection, and discard the answer.
            socket.recv(_MAX_RECORD_BYTES)

    def _shut_down(self) -> None:
        """Send close_notify, unless something else has to be sent first."""
        if (
            self._shutdown_sent
            or self._aborting
            or self._lost
            or self._producer
            or self._blocking_connection
        ):
            return
        try:
            is_complete = self._connection.shutdown()
        except WantWriteError:
            self._wait_to_write()
            return
        except Error as error:
            self._lose_later(twisted_reason(error))
            return
        self._shutdown_sent = True
        if is_complete:
            self._lose_later(CONNECTION_DONE)

    def _peer_closed(self) -> Exception | None:
        """Handle close_notify of the peer: queued data is sent before the connection is closed."""
        if self._queue:
            self._shutdown_received = True
            self._update_reading()
            return None
        if self._waiting is None:
            # With a waiter, a part of a record may be unsent: OpenSSL must not start another one.
            try:
                self._connection.shutdown()
            except Error as error:
                twisted_reason(error)
        return CONNECTION_DONE

    def _lose_later(self, reason: Exception) -> None:
        """Call connectionLost in the next iteration of the reactor, not inside the caller."""
        self._aborting = True
        if self._blocking_connection is not None:
            self._blocking_connection.revoked = True
        self._stop_watching()
        self._reactor.callLater(0, self.connectionLost, Failure(reason))

    def _update_reading(self) -> None:
        """Watch for data if the protocol, the handshake or the closing needs it."""
        wanted = (
            (self._read_wanted or not self._handshake_done or self.disconnecting)
            and not (self._shutdown_received or self._aborting or self._lost)
            and self._blocking_connection is None
        )
        resumed = wanted and not self._reading
        self._set_reading(reading=wanted)
        if resumed and self._handshake_done and self._connection.pending():
            # A borrower has read a part of a record; the socket does not signal the rest.
            self._reactor.callLater(0, self._read_pending)

    def _read_pending(self) -> None:
        if self._reading and (reason := self.doRead()) is not None:
            self.connectionLost(Failure(reason))

    def _set_reading(self, *, reading: bool) -> None:
        if reading is not self._reading:
            self._reading = reading
            (self._reactor.addReader if reading else self._reactor.removeReader)(self)

    def _wait_to_write(self) -> None:
        if self._aborting or self._lost or self._blocking_connection is not None:
            return
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
