"""TLS connections on sockets."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from zope.interface import directlyProvides
from zope.interface.verify import verifyClass, verifyObject

from tests.tls.socket_pair import AUTHORITY, MUCH
from twisted_registry.http.interfaces import IBlockingTLSConnection, ITLSConnection
from twisted_registry.tls.interfaces import IClientCertificateTransport
from twisted_registry.tls.socket import BlockingTLSConnection, TLSConnection


def test_interfaces(pair):
    verifyClass(IClientCertificateTransport, TLSConnection)
    verifyClass(IBlockingTLSConnection, BlockingTLSConnection)
    verifyObject(ITLSConnection, pair.ours)
    assert pair.ours.certificate is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_data_written_before_the_handshake_is_sent_after_it(version, make_pair):
    pair = make_pair(client=AUTHORITY.client(maximum_version=version))
    pair.ours.write(b"early")
    pair.turn()
    pair.shake_hands()
    assert pair.received() == b"early"
    pair.send(b"heard")
    pair.turn()
    assert pair.protocol.received == b"heard"


def test_small_data_is_sent_immediately(pair):
    pair.ours.write(b"small")
    assert not pair.reactor.writers
    pair.carry()
    assert pair.client.read(10) == b"small"


def test_large_data_is_queued(pair):
    pair.ours.write(MUCH)
    pair.ours.write(b"")
    pair.ours.writeSequence([b"and ", b"more"])
    assert pair.reactor.writers
    assert pair.received() == MUCH + b"and more"
    assert not pair.reactor.writers


def test_records_are_delivered_in_large_pieces(pair):
    pieces = []
    pair.protocol.dataReceived = pieces.append
    pair.send(bytes(100_000))
    pair.turn()
    assert len(b"".join(pieces)) == 100_000
    assert len(pieces[0]) == 65536


def test_paused_connection_reads_nothing(pair):
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


def test_push_producer_is_paused_and_resumed(pair):
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


def test_pull_producer(pair):
    pair.ours.registerProducer(Pulled(pair.ours, 7), False)
    pair.ours.loseConnection()
    assert pair.received() == b"12345" * 7
    assert pair.ended


def test_lose_connection_sends_queued_data_first(pair):
    pair.ours.write(MUCH)
    pair.ours.loseConnection()
    pair.ours.loseConnection()
    pair.ours.write(b"too late")
    assert pair.received() == MUCH
    assert pair.ended
    assert pair.protocol.reason is None
    pair.send_close_notify()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionDone)
    assert pair.transport.closed


def test_hang_up_does_not_wait_for_the_peer(pair):
    pair.ours.loseWriteConnection()
    pair.turn()
    assert not pair.transport.closed
    pair.ours.hangUp()
    pair.ours.hangUp()
    pair.turn()
    assert pair.transport.closed.check(ConnectionDone)
    assert pair.protocol.reason.check(ConnectionDone)


def test_close_notify_of_the_peer_is_answered(pair):
    pair.send_close_notify()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionDone)
    pair.carry()
    with pytest.raises(ssl.SSLZeroReturnError):
        pair.client.read(1)


def test_queued_data_is_sent_after_close_notify_of_the_peer(pair):
    pair.ours.write(MUCH)
    pair.send_close_notify()
    pair.turn()
    pair.ours.write(b"not this")
    assert pair.received() == MUCH
    assert pair.protocol.reason.check(ConnectionDone)


def test_end_without_close_notify_is_a_loss(pair):
    pair.theirs.close()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionLost)


def test_write_after_the_peer_has_gone(pair):
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


def test_lose_connection_before_the_handshake_aborts(make_pair):
    pair = make_pair()
    pair.ours.loseConnection()
    pair.turn()
    assert pair.protocol.reason.check(ConnectionAborted)
    assert pair.ours.certificate is None


def test_plain_http_is_answered_and_the_connection_closed(make_pair):
    pair = make_pair()
    pair.theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    pair.turn()
    assert pair.protocol.reason.check(SSL.Error)
    assert pair.transport.closed
    assert pair.theirs.recv(1000) == (
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    )
    assert pair.theirs.recv(1000) == b""


@pytest.mark.parametrize("error", [SSL.SysCallError(104, "ECONNRESET"), SSL.ZeroReturnError()])
def test_handshake_that_the_peer_gives_up_is_a_loss(make_pair, error):
    pair = make_pair()
    connection = pair.ours.getHandle()
    connection.do_handshake = once(error, connection.do_handshake)
    pair.theirs.sendall(b"\x16\x03")
    pair.turn()
    assert pair.protocol.reason.check(ConnectionLost, ConnectionDone)


def test_other_data_without_tls_gets_no_answer_in_plain_text(make_pair):
    pair = make_pair()
    pair.theirs.sendall(b"SSH-2.0-client /\r\n")
    pair.turn()
    assert pair.protocol.reason.check(SSL.Error)
    with contextlib.suppress(ConnectionError):
        assert b"HTTP" not in pair.theirs.recv(1000)


def once(error, call):
    """A function that raises ``error`` at its first call."""
    errors = [error]

    def calling(*arguments):
        if errors:
            raise errors.pop()
        return call(*arguments)

    return calling


def test_key_update_that_waits_for_writing(pair):
    """OpenSSL answers a key update while reading, which can block on writing."""
    connection = pair.ours.getHandle()
    connection.recv = once(SSL.WantWriteError(), connection.recv)
    pair.send(b"heard")
    assert pair.ours.doRead() is None
    assert pair.protocol.received == b""
    assert pair.reactor.writers
    pair.turn()
    assert pair.protocol.received == b"heard"
    assert not pair.reactor.writers


def test_close_notify_that_waits_for_writing(pair):
    connection = pair.ours.getHandle()
    connection.shutdown = once(SSL.WantWriteError(), connection.shutdown)
    pair.ours.loseConnection()
    assert pair.reactor.writers
    assert pair.received() == b""
    assert pair.ended
    assert not pair.reactor.writers


def test_handshake_that_waits_for_writing(make_pair):
    pair = make_pair()
    connection = pair.ours.getHandle()
    connection.do_handshake = once(SSL.WantWriteError(), connection.do_handshake)
    assert pair.ours.doRead() is None
    assert pair.reactor.writers
    pair.shake_hands()
    pair.send(b"heard")
    pair.turn()
    assert pair.protocol.received == b"heard"


def test_protocol_is_notified_of_the_handshake(make_pair):
    told = []
    pair = make_pair(protocols=["http/1.1"])
    directlyProvides(pair.protocol, IHandshakeListener)
    pair.protocol.handshakeCompleted = lambda: told.append(pair.ours.negotiatedProtocol)
    pair.shake_hands()
    assert told == [b"http/1.1"]
    assert make_pair().shake_hands().ours.negotiatedProtocol is None


def test_producer_may_be_unregistered_after_the_connection(pair):
    pair.ours.registerProducer(Pushing(), True)
    pair.ours.loseConnection()
    pair.protocol.connectionLost = lambda _reason: pair.ours.unregisterProducer()
    pair.theirs.close()
    pair.turn()
    assert pair.transport.closed
    pair.ours.unregisterProducer()
