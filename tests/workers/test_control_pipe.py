from __future__ import annotations

import os

import pytest
from twisted.internet.interfaces import IReadDescriptor
from zope.interface.verify import verifyObject

from twisted_registry.workers.handover import STOP_MESSAGE, ControlPipe, encode_message


class Reactor:
    def __init__(self):
        self.readers = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def watched(reading):
    reactor, calls = Reactor(), []
    control = ControlPipe(
        reactor, reading, lambda: calls.append("stop"), lambda: calls.append("abort"), calls.append
    )
    verifyObject(IReadDescriptor, control)
    assert control.fileno() == reading
    assert control.logPrefix()
    assert reactor.readers == {control}
    return control, reactor, calls


def test_a_stop_message_stops_and_end_of_file_aborts(pipe):
    reading, writing = pipe
    control, reactor, calls = watched(reading)
    stop = encode_message(STOP_MESSAGE)
    os.write(writing, stop[:9])
    control.doRead()
    assert calls == []
    os.write(writing, stop[9:])
    control.doRead()
    assert calls == ["stop"]
    assert reactor.readers
    os.close(writing)
    control.doRead()
    assert calls == ["stop", "abort"]
    assert not reactor.readers


def test_other_messages_are_passed_on_in_any_pieces(pipe):
    reading, writing = pipe
    control, _, calls = watched(reading)
    large = b"x" * 100_000
    for part in (
        encode_message("one") + encode_message(large)[:40_000],
        encode_message(large)[40_000:] + encode_message(STOP_MESSAGE),
    ):
        for start in range(0, len(part), 50_000):
            os.write(writing, part[start : start + 50_000])
            control.doRead()
    assert calls == ["one", large, "stop"]
    os.close(writing)


def test_a_lost_connection_aborts(pipe):
    reading, writing = pipe
    control, reactor, calls = watched(reading)
    os.close(writing)
    control.connectionLost(None)
    assert calls == ["abort"]
    assert not reactor.readers
