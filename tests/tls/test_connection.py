"""TLS on a socket: the client is Python's ssl module at the other end, in the same thread."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

import pytest
from certificates import Authority
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides
from zope.interface.verify import verifyClass, verifyObject

from twisted_registry.auth.clientcertificate import ICertified
from twisted_registry.securesocket import IBorrowedSocket, ISecureSocket
from twisted_registry.tls.borrowing import BorrowedConnection
from twisted_registry.tls.connection import SecureConnection
from twisted_registry.tls.context import Terms, make_context
from twisted_registry.tls.material import Material

AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("localhost")
MUCH = bytes(range(251)) * 8_001
PARTIAL_WRITE = 0x1


class Reactor(Clock):
    """Knows who wants to read and to write, and asks them when the test says so."""

    def __init__(self):
        super().__init__()
        self.readers, self.writers = set(), set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard

    def turn(self):
        """One turn; whether anything happened."""
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


class Below:
    """A connection of Twisted's, as far as it is needed."""

    closed = None

    def __init__(self, reactor, end):
        self.reactor, self.end = reactor, end
        self.fileno = end.fileno

    def stopReading(self):
        pass

    def connectionLost(self, reason):
        self.closed = reason
        self.end.close()


class Noting(Protocol):
    def __init__(self):
        self.received = b""
        self.reason = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.reason = reason


class Pair:
    """Both ends."""

    def __init__(self, mode=0, client=None, protocols=()):
        self.reactor = Reactor()
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.setblocking(False)
        context = make_context(Material(ISSUED.certificate, ISSUED.key), Terms())
        context.set_mode(mode)
        connection = SSL.Connection(context, ours)
        connection.set_accept_state()
        self.below = Below(self.reactor, ours)
        self.protocol = Noting()
        self.ours = SecureConnection(connection, self.below, self.protocol, verifies=True)
        self.protocol.makeConnection(self.ours)
        self.coming, self.going = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client or AUTHORITY.client()
        if protocols:
            client.set_alpn_protocols(protocols)
        self.client = client.wrap_bio(self.coming, self.going, server_hostname="localhost")
        self.ended = False

    def carry(self):
        """Between the client and its socket."""
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
        """All that the client gets."""
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

    def say_goodbye(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.unwrap()
        self.carry()


@pytest.fixture(params=[0, PARTIAL_WRITE], ids=["whole", "record by record"])
def pair(request):
    made = Pair(request.param).shake_hands()
    yield made
    made.theirs.close()
    if made.below.closed is None:
        made.below.end.close()


def test_the_interfaces(pair):
    verifyClass(ICertified, SecureConnection)
    verifyClass(IBorrowedSocket, BorrowedConnection)
    verifyObject(ISecureSocket, pair.ours)
    assert pair.ours.certificate is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_written_before_the_handshake_is_sent_after_it(version):
    pair = Pair(client=AUTHORITY.client(maximum_version=version))
    pair.ours.write(b"early")
    pair.turn()
    pair.shake_hands()
    assert pair.received() == b"early"
    pair.send(b"heard")
    pair.turn()
    assert pair.protocol.received == b"heard"


def test_a_small_answer_leaves_at_once(pair):
    pair.ours.write(b"small")
    assert not pair.reactor.writers
    pair.carry()
    assert pair.client.read(10) == b"small"


def test_more_than_a_socket_holds(pair):
    pair.ours.write(MUCH)
    pair.ours.write(b"")
    pair.ours.writeSequence([b"and ", b"more"])
    assert pair.reactor.writers
    assert pair.received() == MUCH + b"and more"
    assert not pair.reactor.writers


def test_much_is_read_in_large_pieces(pair):
    pieces = []
    pair.protocol.dataReceived = pieces.append
    pair.send(bytes(100_000))
    pair.turn()
    assert len(b"".join(pieces)) == 100_000
    assert len(pieces[0]) == 65536


def test_nothing_is_read_while_nobody_wants_it(pair):
    pair.ours.pauseProducing()
    pair.send(b"later")
    pair.turn()
    assert pair.protocol.received == b""
    pair.ours.resumeProducing()
    pair.turn()
    assert pair.protocol.received == b"later"


class Pushing:
    def __init__(self):
        self.log = []

    def pauseProducing(self):
        self.log.append("pause")

    def resumeProducing(self):
        self.log.append("resume")

    def stopProducing(self):
        self.log.append("stop")


def test_a_producer_is_held_to_the_pace_of_the_peer(pair):
    producer = Pushing()
    pair.ours.registerProducer(producer, True)
    with pytest.raises(RuntimeError):
        pair.ours.registerProducer(producer, True)
    pair.ours.write(b"x")
    assert producer.log == []
    pair.ours.write(MUCH)
    pair.ours.write(MUCH)
    assert producer.log == ["pause"]
    assert pair.received() == b"x" + MUCH + MUCH
    assert producer.log == ["pause", "resume"]
    pair.ours.abortConnection()
    pair.turn()
    assert producer.log == ["pause", "resume", "stop"]
    pair.ours.registerProducer(producer, True)
    assert producer.log[3:] == ["stop"]


class Pulled:
    def __init__(self, transport, times):
        self.transport, self.times = transport, times

    def resumeProducing(self):
        self.times -= 1
        self.transport.write(b"12345")
        if not self.times:
            self.transport.unregisterProducer()


def test_a_producer_that_is_pulled(pair):
    pair.ours.registerProducer(Pulled(pair.ours, 7), False)
    pair.ours.loseConnection()
    assert pair.received() == b"12345" * 7
    assert pair.ended


def test_goodbyes_from_our_side(pair):
    pair.ours.write(MUCH)
    pair.ours.loseConnection()
    pair.ours.loseConnection()
    pair.ours.write(b"too late")
    assert pair.received() == MUCH
    assert pair.ended
    assert pair.protocol.reason is None
    pair.say_goodbye()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionDone)
    assert pair.below.closed


def test_not_to_wait_for_a_goodbye(pair):
    pair.ours.loseWriteConnection()
    pair.turn()
    assert not pair.below.closed
    pair.ours.hangUp()
    pair.ours.hangUp()
    pair.turn()
    assert pair.below.closed.check(ConnectionDone)
    assert pair.protocol.reason.check(ConnectionDone)


def test_goodbyes_from_the_peer(pair):
    pair.say_goodbye()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionDone)
    pair.carry()
    with pytest.raises(ssl.SSLZeroReturnError):
        pair.client.read(1)


def test_what_was_written_reaches_a_peer_that_says_goodbye(pair):
    pair.ours.write(MUCH)
    pair.say_goodbye()
    pair.turn()
    pair.ours.write(b"not this")
    pair.received()
    assert pair.protocol.reason.check(ConnectionDone)
    assert not pair.ours._queue


def test_an_end_without_a_goodbye_is_a_loss(pair):
    pair.theirs.close()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionLost)


def test_writing_to_a_peer_that_is_gone(pair):
    pair.theirs.close()
    pair.ours.write(b"x")
    pair.ours.write(b"x")
    assert pair.protocol.reason is None
    pair.turn()
    assert pair.protocol.reason.check(ConnectionLost)
    pair.ours.write(b"x")
    pair.ours.loseConnection()
    pair.ours.abortConnection()
    pair.turn()


def test_no_handshake_no_goodbye():
    pair = Pair()
    pair.ours.loseConnection()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionAborted)
    assert pair.ours.certificate is None


def test_what_is_no_tls():
    pair = Pair()
    pair.theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    pair.turn()
    assert pair.protocol.reason.check(SSL.Error)
    assert pair.below.closed


def test_a_borrower_has_it_for_itself(pair):
    assert pair.ours.lendable
    borrowed = pair.ours.borrow()
    assert borrowed.fileno() == pair.below.end.fileno()
    assert not pair.ours.lendable
    assert not pair.reactor.readers
    pair.ours.write(b"afterwards")
    pair.ours.loseConnection()
    assert borrowed.send(memoryview(b"first ")) == 6
    pair.send(b"heard, and more")
    pair.turn()
    room = memoryview(bytearray(5))
    assert borrowed.recv_into(room) == 5
    assert room == b"heard"
    assert pair.protocol.received == b""
    borrowed.close()
    # The rest of the record is in no socket any more.
    assert pair.received() == b"first afterwards"
    assert pair.protocol.received == b", and more"
    assert pair.ended


def fill(borrowed):
    """Send until the socket takes no more; the same bytes, as must be."""
    with contextlib.suppress(BlockingIOError):
        while borrowed.send(memoryview(MUCH)):
            pass


def test_what_a_borrower_is_told(pair):
    borrowed = pair.ours.borrow()
    with pytest.raises(BlockingIOError):
        borrowed.recv_into(memoryview(bytearray(9)))
    fill(borrowed)
    pair.say_goodbye()
    assert borrowed.recv_into(memoryview(bytearray(9))) == 0
    pair.theirs.close()
    with pytest.raises(ConnectionError):
        borrowed.send(memoryview(MUCH))
    borrowed.close()
    pair.turn()
    assert pair.protocol.reason is not None


def test_what_a_borrower_is_told_of_a_peer_without_a_goodbye(pair):
    borrowed = pair.ours.borrow()
    pair.theirs.close()
    with pytest.raises(ConnectionError):
        borrowed.recv_into(memoryview(bytearray(9)))


def test_the_socket_outlives_a_connection_that_is_lent(pair):
    borrowed = pair.ours.borrow()
    pair.ours.abortConnection()
    with pytest.raises(ConnectionAbortedError):
        borrowed.send(memoryview(b"x"))
    with pytest.raises(ConnectionAbortedError):
        borrowed.recv_into(memoryview(bytearray(1)))
    pair.turn()
    assert pair.protocol.reason.check(ConnectionAborted)
    assert not pair.below.closed
    borrowed.close()
    assert pair.below.closed.check(ConnectionAborted)


def test_to_be_told_when_there_is_room(pair):
    told = []
    pair.ours.write(MUCH)
    assert not pair.ours.lendable
    pair.ours.whenWritable().addCallback(told.append)
    pair.turn()
    assert not told
    assert pair.received() == MUCH
    assert told == [None]
    pair.ours.whenWritable().addErrback(told.append)
    pair.ours.abortConnection()
    pair.turn()
    assert told[1].check(ConnectionAborted)
    pair.ours.whenWritable().addErrback(told.append)
    assert told[2].check(ConnectionLost)


def test_a_peer_that_leaves_in_the_middle_of_what_is_lent(pair):
    told = []
    borrowed = pair.ours.borrow()
    fill(borrowed)
    borrowed.close()
    pair.ours.whenWritable().addErrback(told.append)
    pair.say_goodbye()
    pair.turn()
    assert told[0].check(ConnectionDone)
    assert pair.protocol.reason.check(ConnectionDone)


def once(error, call):
    """A call that first raises ``error``."""
    errors = [error]

    def calling(*arguments):
        if errors:
            raise errors.pop()
        return call(*arguments)

    return calling


def test_a_change_of_keys_that_has_to_wait(pair):
    """OpenSSL answers one when it reads, which may have to wait for room to write."""
    connection = pair.ours.getHandle()
    connection.recv = once(SSL.WantWriteError(), connection.recv)
    pair.send(b"heard")
    assert pair.ours.doRead() is None
    assert pair.protocol.received == b""
    assert pair.reactor.writers
    pair.turn()
    assert pair.protocol.received == b"heard"
    assert not pair.reactor.writers


def test_a_goodbye_that_has_to_wait(pair):
    connection = pair.ours.getHandle()
    connection.shutdown = once(SSL.WantWriteError(), connection.shutdown)
    pair.ours.loseConnection()
    assert pair.reactor.writers
    assert pair.received() == b""
    assert pair.ended
    assert not pair.reactor.writers


def test_a_handshake_that_has_to_wait():
    pair = Pair()
    connection = pair.ours.getHandle()
    connection.do_handshake = once(SSL.WantWriteError(), connection.do_handshake)
    assert pair.ours.doRead() is None
    assert pair.reactor.writers
    pair.shake_hands()
    pair.send(b"heard")
    pair.turn()
    assert pair.protocol.received == b"heard"


def test_what_the_protocol_is_told_of_the_handshake():
    told = []
    pair = Pair(protocols=["http/1.1"])
    directlyProvides(pair.protocol, IHandshakeListener)
    pair.protocol.handshakeCompleted = lambda: told.append(pair.ours.negotiatedProtocol)
    pair.shake_hands()
    assert told == [b"http/1.1"]
    assert Pair().shake_hands().ours.negotiatedProtocol is None


@pytest.mark.parametrize("lent", [True, False])
def test_the_loss_of_one_connection_is_not_that_of_the_next(pair, lent):
    """OpenSSL notes errors by thread."""
    lost = Pair().shake_hands()
    borrowed = lost.ours.borrow() if lent else None
    lost.theirs.close()
    if lent:
        with pytest.raises(ConnectionError):
            borrowed.send(memoryview(MUCH))
        borrowed.close()
    else:
        lost.ours.write(MUCH)
    lost.turn()
    assert lost.protocol.reason.check(ConnectionLost)
    fill(pair.ours.borrow())


def test_a_producer_may_end_after_the_connection(pair):
    pair.ours.registerProducer(Pushing(), True)
    pair.ours.loseConnection()
    pair.protocol.connectionLost = lambda _reason: pair.ours.unregisterProducer()
    pair.theirs.close()
    pair.turn()
    assert pair.below.closed
    pair.ours.unregisterProducer()
