"""Heads and files that are sent to a socket, and what happens when it does not accept all."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_registry.http.socket_output import SocketOutput

CONTENT = b"content"


class PartialSocket:
    """A socket whose first sends accept given numbers of bytes, or raise; records the flags."""

    def __init__(self, real, *takes):
        self.real = real
        self.takes = list(takes)
        self.flags = []

    def send(self, data, flags=0):
        self.flags.append(flags)
        take = self.takes.pop(0) if self.takes else len(data)
        if isinstance(take, Exception):
            raise take
        return self.real.send(data[:take])

    def fileno(self):
        return self.real.fileno()


class Transport:
    def __init__(self, handle):
        self.handle = handle
        self.aborted = False
        self.producer = None

    def getHandle(self):
        return self.handle

    def abortConnection(self):
        self.aborted = True

    def registerProducer(self, producer, streaming):
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def startWriting(self):
        pass


@pytest.fixture
def socket_pair():
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield ours, theirs


@pytest.fixture
def descriptor(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def output(ours, *takes):
    transport = Transport(PartialSocket(ours, *takes))
    return SocketOutput(transport, Clock(), lambda: None, lambda: None), transport


def test_head_and_file_are_sent_at_once(socket_pair, descriptor):
    out, transport = output(socket_pair[0])
    assert out.send_file(b"head ", descriptor, 2, 3) is None
    assert socket_pair[1].recv(100) == b"head nte"
    assert transport.handle.flags == [socket.MSG_MORE]
    assert not out.pending


@pytest.mark.parametrize("takes", [(BlockingIOError(),), (2,), (2, BlockingIOError()), (5, 1)])
def test_the_rest_is_sent_when_the_socket_is_writable(socket_pair, descriptor, takes):
    out, transport = output(socket_pair[0], *takes)
    sent = out.send_file(b"head ", descriptor, 0, len(CONTENT))
    if sent is not None and not sent.called:
        transport.producer.resumeProducing()
        assert sent.called
    assert socket_pair[1].recv(100) == b"head " + CONTENT
    assert not transport.aborted


def test_a_file_is_queued_behind_waiting_bytes(socket_pair, descriptor):
    out, transport = output(socket_pair[0], BlockingIOError())
    out.write(b"first ")
    sent = out.send_file(b"head ", descriptor, 0, len(CONTENT))
    assert out.pending
    transport.producer.resumeProducing()
    assert sent.called
    assert socket_pair[1].recv(100) == b"first head " + CONTENT


def test_a_head_without_a_body_is_sent_without_msg_more(socket_pair, descriptor):
    out, transport = output(socket_pair[0])
    assert out.send_file(b"head", descriptor, 0, 0) is None
    assert transport.handle.flags == [0]
    assert socket_pair[1].recv(100) == b"head"


def test_an_error_of_the_socket_aborts_and_fails_the_file(socket_pair, descriptor):
    out, transport = output(socket_pair[0], OSError(), OSError())
    sent = out.send_file(b"head", descriptor, 0, 3)
    assert transport.aborted
    failed = []
    sent.addErrback(failed.append)
    out.connection_lost(Failure(ConnectionError()))
    assert failed[0].type is ConnectionError


def test_a_file_that_is_too_short_aborts(socket_pair, descriptor):
    out, transport = output(socket_pair[0])
    failed = []
    out.send_file(b"head", descriptor, 0, len(CONTENT) + 1).addErrback(failed.append)
    assert failed[0].type is EOFError
    assert transport.aborted
