"""What a socket is asked for to send a head and a file, and what comes of each answer."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_registry.http.socket_output import SocketOutput

CONTENT = b"content"


class Plug:
    """A socket that takes what it is told to of each send, and then all; notes the flags."""

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
def ends():
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
    transport = Transport(Plug(ours, *takes))
    return SocketOutput(transport, Clock(), lambda: None, lambda: None), transport


def test_all_at_once(ends, descriptor):
    out, transport = output(ends[0])
    assert out.send_head_and_file(b"head ", descriptor, 2, 3) is None
    assert ends[1].recv(100) == b"head nte"
    assert transport.handle.flags == [socket.MSG_MORE]
    assert not out.pending


@pytest.mark.parametrize("takes", [(BlockingIOError(),), (2,), (2, BlockingIOError()), (5, 1)])
def test_what_was_not_taken_goes_out_when_it_can(ends, descriptor, takes):
    out, transport = output(ends[0], *takes)
    sent = out.send_head_and_file(b"head ", descriptor, 0, len(CONTENT))
    if sent is not None and not sent.called:
        transport.producer.resumeProducing()
        assert sent.called
    assert ends[1].recv(100) == b"head " + CONTENT
    assert not transport.aborted


def test_behind_something_that_waits(ends, descriptor):
    out, transport = output(ends[0], BlockingIOError())
    out.write(b"first ")
    sent = out.send_head_and_file(b"head ", descriptor, 0, len(CONTENT))
    assert out.pending
    transport.producer.resumeProducing()
    assert sent.called
    assert ends[1].recv(100) == b"first head " + CONTENT


def test_a_head_without_a_body_does_not_wait_for_one(ends, descriptor):
    out, transport = output(ends[0])
    assert out.send_head_and_file(b"head", descriptor, 0, 0) is None
    out.cork()
    out.write(b"head")
    assert out.send_file(descriptor, 0, 0).called
    assert transport.handle.flags == [0, 0]
    assert ends[1].recv(100) == b"headhead"


def test_a_broken_connection_is_reset(ends, descriptor):
    out, transport = output(ends[0], OSError(), OSError())
    sent = out.send_head_and_file(b"head", descriptor, 0, 3)
    assert transport.aborted
    failed = []
    sent.addErrback(failed.append)
    out.connection_lost(Failure(ConnectionError()))
    assert failed[0].type is ConnectionError


def test_a_file_that_is_shorter_than_said_resets_the_connection(ends, descriptor):
    out, transport = output(ends[0])
    failed = []
    out.send_head_and_file(b"head", descriptor, 0, len(CONTENT) + 1).addErrback(failed.append)
    assert failed[0].type is EOFError
    assert transport.aborted
