"""A stored body, and a file sent piece by piece."""

import os
from io import BytesIO

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface.verify import verifyObject

from tests.http.connection_kit import Kit, Memory, put
from tests.http.resources import Sink
from twisted_registry.http import output
from twisted_registry.http.body import BufferedBody, request_body
from twisted_registry.http.interfaces import BodyAborted, IRequestBody
from twisted_registry.http.output import FileProducer, make_file_reader


@pytest.fixture
def clock():
    return Clock()


def stored(data, clock):
    return BufferedBody(BytesIO(data), clock)


def test_a_stored_body_keeps_the_promises_of_one_that_arrives(clock):
    body = stored(b"abc", clock)
    verifyObject(IRequestBody, body)
    assert body.length == 3
    sink = Sink()
    taken = body.startProducing(sink)
    assert taken.called
    assert bytes(sink.received) == b"abc"
    with pytest.raises(RuntimeError):
        body.startProducing(sink)


def test_a_stored_body_comes_in_slices(clock):
    sink = Sink()
    taken = stored(bytes(200_000), clock).startProducing(sink)
    assert len(sink.received) == 65536
    assert not taken.called
    clock.pump([0] * 5)
    assert taken.called
    assert len(sink.received) == 200_000
    assert sink.pieces == 4


def test_a_stored_body_can_be_paused(clock):
    body = stored(bytes(200_000), clock)
    sink = Sink(on_write=lambda _sink, _piece: body.pauseProducing())
    taken = body.startProducing(sink)
    clock.pump([0] * 5)
    assert sink.pieces == 1
    assert not clock.getDelayedCalls()
    sink.on_write = None
    body.resumeProducing()
    body.pauseProducing()
    clock.pump([0] * 5)
    assert sink.pieces == 1
    body.resumeProducing()
    clock.pump([0] * 5)
    assert taken.called


def test_a_stored_body_can_be_stopped(clock):
    body = stored(bytes(200_000), clock)
    failures = []
    body.startProducing(Sink()).addErrback(failures.append)
    body.stopProducing()
    body.stopProducing()
    assert failures[0].check(BodyAborted)
    assert not clock.getDelayedCalls()
    body = stored(bytes(200_000), clock)
    taken = body.startProducing(Sink())
    taken.addErrback(failures.append)
    taken.cancel()
    assert failures[1].check(BodyAborted)
    body = stored(b"abc", clock)
    body.stopProducing()
    body.startProducing(Sink()).addErrback(failures.append)
    assert failures[2].check(BodyAborted)


def test_what_the_consumer_raises_is_what_the_body_fails_with(clock):
    def explode(_sink, _piece):
        raise ValueError

    failures = []
    stored(b"abc", clock).startProducing(Sink(on_write=explode)).addErrback(failures.append)
    assert failures[0].check(ValueError)


def test_our_channel_has_a_body_of_its_own(clock):
    kit = Kit()
    wire = Memory(kit)
    wire.send(put(b"/s/wait", b"abc"))
    assert request_body(kit.waiting[0], clock) is kit.waiting[0].body


class Stock:
    """A stock Site with one Resource, which leaves its request to the test."""

    def __init__(self):
        self.clock = Clock()
        self.requests = []
        resource = Resource()
        resource.isLeaf = True
        resource.render = self.render
        self.site = Site(resource, reactor=self.clock)
        self.site.log = lambda request: None
        self.transport = StringTransport()
        self.channel = self.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def render(self, request):
        self.requests.append(request)
        return NOT_DONE_YET


def test_a_stock_site_has_a_stored_body():
    stock = Stock()
    stock.channel.dataReceived(put(b"/x", b"abc"))
    body = request_body(stock.requests[0], stock.clock)
    assert body.length == 3
    sink = Sink()
    body.startProducing(sink)
    assert bytes(sink.received) == b"abc"


@pytest.fixture
def file(tmp_path):
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


class Slow:
    """A reader whose reads end when the test says so."""

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
def pumped(file):
    consumer, slow = Consumer(), Slow()
    pump = FileProducer(consumer, slow, consumer.abort, file, 0, 600_000)
    return consumer, slow, pump


def test_a_pump_reads_ahead_of_nobody(pumped):
    consumer, slow, pump = pumped
    done = pump.start()
    assert len(slow.reads) == 1
    pump.pauseProducing()
    slow.end()
    assert slow.reads == []
    pump.resumeProducing()
    pump.resumeProducing()
    assert len(slow.reads) == 1
    slow.end()
    slow.end()
    assert done.called
    assert len(consumer.data) == 600_000
    assert consumer.producer is None
    assert not is_open(slow.descriptor)


def test_a_pump_stops_with_its_consumer_and_frees_the_file_after_the_read(pumped):
    consumer, slow, pump = pumped
    failures = []
    pump.start().addErrback(failures.append)
    pump.stopProducing()
    pump.stopProducing()
    assert failures[0].check(ConnectionLost)
    assert is_open(slow.descriptor)
    slow.end()
    assert not is_open(slow.descriptor)
    assert consumer.data == b""
    assert not consumer.aborted


def test_a_read_that_fails_after_the_end_frees_the_file(pumped):
    _consumer, slow, pump = pumped
    pump.start().addErrback(lambda _: None)
    pump.stopProducing()
    slow.reads[0][0].errback(OSError())
    assert not is_open(slow.descriptor)


def test_cancelling_a_pump_aborts_its_consumer(pumped):
    consumer, slow, pump = pumped
    done = pump.start()
    slow.end()
    done.addErrback(lambda _: None)
    done.cancel()
    assert consumer.aborted == 1
    assert consumer.producer is None
    slow.end()
    assert not is_open(slow.descriptor)


@pytest.mark.parametrize("outcome", [b"", OSError()])
def test_a_file_that_can_not_be_read_aborts_the_consumer(pumped, outcome):
    consumer, slow, pump = pumped
    failures = []
    pump.start().addErrback(failures.append)
    slow.reads[0][0].callback(outcome if outcome == b"" else Failure(outcome))
    assert failures[0].check(EOFError if outcome == b"" else OSError)
    assert consumer.aborted == 1
    assert not is_open(slow.descriptor)


def test_a_clock_reads_where_it_stands(file, clock):
    read = make_file_reader(clock)(file, 3, 1)
    assert read.result == b"\x01\x02\x03"


class Threads:
    """A pool that says how often it was asked, and answers at once."""

    calls = 0

    def callInThreadWithCallback(self, onResult, function, *arguments):
        self.calls += 1
        onResult(True, function(*arguments))


class Threaded(Clock):
    """A clock with a pool."""

    def __init__(self):
        super().__init__()
        self.threads = Threads()

    def getThreadPool(self):
        return self.threads

    def callFromThread(self, function, *arguments):
        function(*arguments)


def test_a_thread_reads_only_what_would_have_to_be_waited_for(file, monkeypatch):
    reactor = Threaded()
    read = make_file_reader(reactor, reactor.threads)

    def fetched(*_):
        raise BlockingIOError

    def held(descriptor, rooms, offset, _flags):
        rooms[0][:2] = os.pread(descriptor, 2, offset)
        return 2

    monkeypatch.setattr(output, "_RWF_NOWAIT", 8)
    monkeypatch.setattr(os, "preadv", held)
    assert read(file, 3, 1).result == b"\x01\x02"
    assert reactor.threads.calls == 0
    monkeypatch.setattr(os, "preadv", fetched)
    assert read(file, 3, 1).result == b"\x01\x02\x03"
    assert reactor.threads.calls == 1
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    assert read(file, 3, 1 << 30).result == b""
    assert reactor.threads.calls == 2
