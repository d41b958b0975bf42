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
    reactor, told = Reactor(), []
    control = ControlPipe(
        reactor, reading, lambda: told.append("stop"), lambda: told.append("abandon"), told.append
    )
    verifyObject(IReadDescriptor, control)
    assert control.fileno() == reading
    assert control.logPrefix()
    assert reactor.readers == {control}
    return control, reactor, told


def test_a_stop_and_the_end(pipe):
    reading, writing = pipe
    control, reactor, told = watched(reading)
    stop = encode_message(STOP_MESSAGE)
    os.write(writing, stop[:9])
    control.doRead()
    assert told == []
    os.write(writing, stop[9:])
    control.doRead()
    assert told == ["stop"]
    assert reactor.readers
    os.close(writing)
    control.doRead()
    assert told == ["stop", "abandon"]
    assert not reactor.readers


def test_what_else_there_is_to_say(pipe):
    reading, writing = pipe
    control, _, told = watched(reading)
    large = b"x" * 100_000
    for part in (
        encode_message("one") + encode_message(large)[:40_000],
        encode_message(large)[40_000:] + encode_message(STOP_MESSAGE),
    ):
        for start in range(0, len(part), 50_000):
            os.write(writing, part[start : start + 50_000])
            control.doRead()
    assert told == ["one", large, "stop"]
    os.close(writing)


def test_the_reactor_may_see_the_end_first(pipe):
    reading, writing = pipe
    control, reactor, told = watched(reading)
    os.close(writing)
    control.connectionLost(None)
    assert told == ["abandon"]
    assert not reactor.readers
