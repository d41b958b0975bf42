"""Both ends of a TLS connection on sockets, in one thread; the client is Python's ssl."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

from OpenSSL import SSL
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.support.certificates import Authority
from twisted_registry.tls.context import TLSOptions, make_context
from twisted_registry.tls.interfaces import CertificateBundle
from twisted_registry.tls.socket import TLSConnection

AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("localhost")
MUCH = bytes(range(251)) * 8_001
PARTIAL_WRITE = 0x1


class Reactor(Clock):
    """A reactor whose iterations a test runs."""

    def __init__(self):
        super().__init__()
        self.readers, self.writers = set(), set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard

    def turn(self):
        """Run one iteration; return whether anything happened."""
        before = bool(self.calls)
        self.advance(0)
        ready, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
        for one, step in [(one, "doRead") for one in ready] + [
            (one, "doWrite") for one in writable
        ]:
            if one in self.readers | self.writers and (why := getattr(one, step)()) is not None:
                self.readers.discard(one)
                self.writers.discard(one)
                one.connectionLost(Failure(why))
        return before or bool(ready)


class FakeTransport:
    """The parts of Twisted's connection that are used."""

    closed = None

    def __init__(self, reactor, end):
        self.reactor, self.end = reactor, end
        self.fileno = end.fileno

    def stopReading(self):
        pass

    def getHandle(self):
        return self.end

    def connectionLost(self, reason):
        self.closed = reason
        self.end.close()


class RecordingProtocol(Protocol):
    """Records what it receives."""

    def __init__(self):
        self.received = b""
        self.reason = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.reason = reason


class Pair:
    """Both ends of a connection."""

    def __init__(self, mode=0, client=None, protocols=()):
        self.reactor = Reactor()
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.setblocking(False)
        context = make_context(CertificateBundle(ISSUED.certificate, ISSUED.key), TLSOptions())
        context.set_mode(mode)
        connection = SSL.Connection(context, ours)
        connection.set_accept_state()
        self.transport = FakeTransport(self.reactor, ours)
        self.protocol = RecordingProtocol()
        self.ours = TLSConnection(connection, self.transport, self.protocol, verifies=True)
        self.protocol.makeConnection(self.ours)
        self.coming, self.going = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client or AUTHORITY.client()
        if protocols:
            client.set_alpn_protocols(protocols)
        self.client = client.wrap_bio(self.coming, self.going, server_hostname="localhost")
        self.ended = False

    def close(self):
        """Close both sockets."""
        self.theirs.close()
        self.transport.end.close()

    def carry(self):
        """Pass data between the client and its socket."""
        if self.going.pending:
            self.theirs.sendall(self.going.read())
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.theirs.recv(1 << 20):
                self.coming.write(data)

    def shake_hands(self):
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.carry()
            self.turn()
        return self

    def turn(self):
        for _ in range(3):
            self.reactor.turn()

    def send(self, data):
        self.client.write(data)
        self.carry()

    def received(self):
        """All that the client receives."""
        found, idle = bytearray(), 0
        while idle < 3:
            self.carry()
            size = len(found)
            try:
                while data := self.client.read(1 << 20):
                    found += data
                self.ended = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self.ended = True
            self.turn()
            idle = idle + 1 if len(found) == size else 0
        return bytes(found)

    def send_close_notify(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.unwrap()
        self.carry()
