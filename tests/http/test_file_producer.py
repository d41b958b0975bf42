"""Files that are read without blocking, and sent piece by piece."""

import os

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.http import output
from twisted_registry.http.output import FileProducer, make_file_reader


@pytest.fixture
def descriptor(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


class Consumer:
    def __init__(self):
        self.data = b""
        self.producer = None
        self.aborted = 0

    def registerProducer(self, producer, streaming):
        assert streaming
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        self.data += data

    def abort(self):
        self.aborted += 1


class HeldReader:
    """A file reader whose reads end when the test calls ``end``."""

    def __init__(self):
        self.reads = []

    def __call__(self, descriptor, size, offset):
        read = Deferred()
        self.descriptor = descriptor
        self.reads.append((read, descriptor, size, offset))
        return read

    def end(self):
        read, descriptor, size, offset = self.reads.pop(0)
        read.callback(os.pread(descriptor, size, offset))


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def producing(descriptor):
    consumer, reader = Consumer(), HeldReader()
    producer = FileProducer(consumer, reader, consumer.abort, descriptor, 0, 600_000)
    return consumer, reader, producer


def test_a_file_producer_does_not_read_while_paused(producing):
    consumer, reader, producer = producing
    done = producer.start()
    assert len(reader.reads) == 1
    producer.pauseProducing()
    reader.end()
    assert reader.reads == []
    producer.resumeProducing()
    producer.resumeProducing()
    assert len(reader.reads) == 1
    reader.end()
    reader.end()
    assert done.called
    assert len(consumer.data) == 600_000
    assert consumer.producer is None
    assert not is_open(reader.descriptor)


def test_a_stopped_file_producer_closes_the_file_after_the_current_read(producing):
    consumer, reader, producer = producing
    failures = []
    producer.start().addErrback(failures.append)
    producer.stopProducing()
    producer.stopProducing()
    assert failures[0].check(ConnectionLost)
    assert is_open(reader.descriptor)
    reader.end()
    assert not is_open(reader.descriptor)
    assert consumer.data == b""
    assert not consumer.aborted


def test_a_failed_read_after_the_stop_closes_the_file(producing):
    _consumer, reader, producer = producing
    producer.start().addErrback(lambda _: None)
    producer.stopProducing()
    reader.reads[0][0].errback(OSError())
    assert not is_open(reader.descriptor)


def test_cancelling_a_file_producer_aborts_its_consumer(producing):
    consumer, reader, producer = producing
    done = producer.start()
    reader.end()
    done.addErrback(lambda _: None)
    done.cancel()
    assert consumer.aborted == 1
    assert consumer.producer is None
    reader.end()
    assert not is_open(reader.descriptor)


@pytest.mark.parametrize("outcome", [b"", OSError()])
def test_a_file_that_cannot_be_read_aborts_the_consumer(producing, outcome):
    consumer, reader, producer = producing
    failures = []
    producer.start().addErrback(failures.append)
    reader.reads[0][0].callback(outcome if outcome == b"" else Failure(outcome))
    assert failures[0].check(EOFError if outcome == b"" else OSError)
    assert consumer.aborted == 1
    assert not is_open(reader.descriptor)


def test_a_reader_on_a_clock_reads_without_threads(descriptor):
    read = make_file_reader(Clock())(descriptor, 3, 1)
    assert read.result == b"\x01\x02\x03"


class Threads:
    """A thread pool that counts calls, and runs them at once."""

    calls = 0

    def callInThreadWithCallback(self, onResult, function, *arguments):
        self.calls += 1
        onResult(True, function(*arguments))


@implementer(IReactorThreads)
class ThreadedClock(Clock):
    """A clock with a thread pool."""

    def __init__(self):
        super().__init__()
        self.threads = Threads()

    def getThreadPool(self):
        return self.threads

    def callFromThread(self, function, *arguments):
        function(*arguments)


def test_a_reader_uses_a_thread_only_for_uncached_data(descriptor, monkeypatch):
    reactor = ThreadedClock()
    read = make_file_reader(reactor)

    def read_uncached(*_):
        raise BlockingIOError

    def read_cached(descriptor, buffers, offset, _flags):
        buffers[0][:2] = os.pread(descriptor, 2, offset)
        return 2

    monkeypatch.setattr(output, "_RWF_NOWAIT", 8)
    monkeypatch.setattr(os, "preadv", read_cached)
    assert read(descriptor, 3, 1).result == b"\x01\x02"
    assert reactor.threads.calls == 0
    monkeypatch.setattr(os, "preadv", read_uncached)
    assert read(descriptor, 3, 1).result == b"\x01\x02\x03"
    assert reactor.threads.calls == 1
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    assert read(descriptor, 3, 1 << 30).result == b""
    assert reactor.threads.calls == 2
