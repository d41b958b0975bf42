from __future__ import annotations

import os

import pytest
from twisted.internet.interfaces import IReadDescriptor
from zope.interface.verify import verifyObject

from twisted_registry.workers.control import Control
from twisted_registry.workers.handover import STOP


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
    control = Control(reactor, reading, lambda: told.append("stop"), lambda: told.append("abandon"))
    verifyObject(IReadDescriptor, control)
    assert control.fileno() == reading
    assert control.logPrefix()
    assert reactor.readers == {control}
    return control, reactor, told


def test_a_stop_and_the_end(pipe):
    reading, writing = pipe
    control, reactor, told = watched(reading)
    os.write(writing, b"?")
    control.doRead()
    assert told == []
    os.write(writing, STOP)
    control.doRead()
    assert told == ["stop"]
    assert reactor.readers
    os.close(writing)
    control.doRead()
    assert told == ["stop", "abandon"]
    assert not reactor.readers


def test_the_reactor_may_see_the_end_first(pipe):
    reading, writing = pipe
    control, reactor, told = watched(reading)
    os.close(writing)
    control.connectionLost(None)
    assert told == ["abandon"]
    assert not reactor.readers
