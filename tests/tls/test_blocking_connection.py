"""TLS connections borrowed by a thread."""

from __future__ import annotations

import contextlib

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from tests.tls.socket_pair import MUCH


def test_reactor_does_not_use_a_borrowed_connection(pair):
    assert pair.ours.lendable
    borrowed = pair.ours.borrow()
    assert borrowed.fileno() == pair.transport.end.fileno()
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
    # OpenSSL has already read the rest of the record from the socket.
    assert pair.received() == b"first afterwards"
    assert pair.protocol.received == b", and more"
    assert pair.ended


def fill(borrowed):
    """Send the same bytes until the socket accepts no more."""
    with contextlib.suppress(BlockingIOError):
        while borrowed.send(memoryview(MUCH)):
            pass


def test_errors_of_a_borrowed_connection(pair):
    borrowed = pair.ours.borrow()
    with pytest.raises(BlockingIOError):
        borrowed.recv_into(memoryview(bytearray(9)))
    fill(borrowed)
    pair.send_close_notify()
    assert borrowed.recv_into(memoryview(bytearray(9))) == 0
    pair.theirs.close()
    with pytest.raises(ConnectionError):
        borrowed.send(memoryview(MUCH))
    borrowed.close()
    pair.turn()
    assert pair.protocol.reason is not None


def test_end_without_close_notify_is_an_error(pair):
    borrowed = pair.ours.borrow()
    pair.theirs.close()
    with pytest.raises(ConnectionError):
        borrowed.recv_into(memoryview(bytearray(9)))


def test_socket_stays_open_until_the_return(pair):
    borrowed = pair.ours.borrow()
    pair.ours.abortConnection()
    with pytest.raises(ConnectionAbortedError):
        borrowed.send(memoryview(b"x"))
    with pytest.raises(ConnectionAbortedError):
        borrowed.recv_into(memoryview(bytearray(1)))
    pair.turn()
    assert pair.protocol.reason.check(ConnectionAborted)
    assert not pair.transport.closed
    borrowed.close()
    assert pair.transport.closed.check(ConnectionAborted)


def test_when_writable(pair):
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


def test_peer_closes_while_a_record_is_unsent(pair):
    told = []
    borrowed = pair.ours.borrow()
    fill(borrowed)
    borrowed.close()
    pair.ours.whenWritable().addErrback(told.append)
    pair.send_close_notify()
    pair.turn()
    assert told[0].check(ConnectionDone)
    assert pair.protocol.reason.check(ConnectionDone)


@pytest.mark.parametrize("lent", [True, False])
def test_error_of_one_connection_does_not_affect_the_next(pair, lent, make_pair):
    """OpenSSL has one error queue for each thread."""
    lost = make_pair().shake_hands()
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
