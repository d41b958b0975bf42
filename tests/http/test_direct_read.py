"""Bodies that a consumer reads from the socket on a thread."""

import os
import socket

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.http.connection_kit import Kit, ListeningServer, get, open_descriptors, put, until
from tests.http.resources import Sink
from twisted_registry.http import body as body_module
from twisted_registry.http import connection as connection_module
from twisted_registry.http.body import DirectRead

BODY = os.urandom(8 * 1024 * 1024)
PUT = get(b"/s/take", b"Content-Length: %d" % len(BODY), method=b"PUT")


@pytest.fixture
def socket_ends(monkeypatch):
    monkeypatch.setattr(body_module, "_POLL_TIMEOUT_MS", 0)
    near, far = socket.socketpair()
    near.setblocking(False)
    yield near, far
    near.close()
    far.close()


def test_a_read_from_a_fast_sender_is_not_finished(socket_ends):
    near, far = socket_ends
    far.sendall(b"x" * 100)
    buffer = bytearray(150)
    direct_read = DirectRead(near, 1000)
    assert direct_read.read_into(memoryview(buffer)) == direct_read.bytes_read == 100
    assert buffer == b"x" * 100 + bytes(50)
    assert direct_read.left == 900
    assert not direct_read.finished


def test_a_slow_sender_finishes_the_read(socket_ends):
    near, far = socket_ends
    far.sendall(b"x" * 10)
    direct_read = DirectRead(near, 1000)
    assert direct_read.read_into(memoryview(bytearray(150))) == 10
    assert direct_read.finished


def test_a_direct_read_does_not_exceed_its_length(socket_ends):
    near, far = socket_ends
    far.sendall(b"12345GET")
    direct_read = DirectRead(near, 5)
    buffer = bytearray(8)
    assert direct_read.read_into(memoryview(buffer)) == 5
    assert direct_read.finished
    assert buffer == b"12345" + bytes(3)
    assert near.recv(8) == b"GET"


@pytest.mark.parametrize("which", [0, 1])
def test_a_lost_connection_finishes_the_read(socket_ends, which):
    near, far = socket_ends
    far.sendall(b"12")
    direct_read = DirectRead(near, 9)
    assert direct_read.read_into(memoryview(bytearray(3))) == 2
    assert not direct_read.finished
    socket_ends[which].close()
    assert direct_read.read_into(memoryview(bytearray(3))) == 0
    assert direct_read.finished


@define(eq=False)
class DirectSink(Sink):
    """A consumer that reads on a thread, in pieces of another size than the reactor's."""

    direct_reads: int = 0
    directly_read: int = 0

    def append_from(self, direct_read):
        self.direct_reads += 1
        return deferToThread(self._read, direct_read)

    def _read(self, direct_read):
        buffer = memoryview(bytearray(77_777))
        while not direct_read.finished:
            length = direct_read.read_into(buffer)
            self.received += buffer[:length]
            self.directly_read += length


@define(eq=False)
class HeldSink(DirectSink):
    """A consumer whose only direct read ends when the test fires ``released``."""

    released: Deferred | None = None

    def append_from(self, direct_read):
        self.direct_reads += 1
        if self.released is None:
            self.released = Deferred()
            return self.released
        return None


@define(eq=False)
class DecliningSink(DirectSink):
    """A consumer that declines every direct read."""

    def append_from(self, direct_read):
        self.direct_reads += 1


@pytest.fixture
def direct_kit(monkeypatch):
    # The client sends on the same reactor, and so little in each turn.
    monkeypatch.setattr(connection_module, "DIRECT_READ_MIN_BYTES", 65536)
    return Kit(sink=DirectSink)


@pytest_twisted.async_yield_fixture(params=["tcp", "unix", "own-tls"])
async def direct_server(request, direct_kit, tmp_path):
    listening = ListeningServer(direct_kit, request.param, tmp_path)
    yield listening
    await listening.close()


async def start_direct_read(direct_server, direct_kit, sink):
    """Connect a client whose body is read directly by a sink of the given class."""
    direct_kit.sink = sink
    peer = await direct_server.connect()
    peer.transport.write(PUT + BODY[:1_000_000])
    await until(lambda: direct_kit.sinks and direct_kit.sinks[0].direct_reads)
    return peer, direct_kit.sinks[0]


@pytest_twisted.ensureDeferred
async def test_a_body_read_on_a_thread_is_complete(direct_server, direct_kit):
    peer = await direct_server.connect()
    await until(lambda: direct_server.site.connections)
    before = open_descriptors()
    peer.transport.write(PUT + BODY + put(b"/s/take", b"more") + get(b"/a"))
    await peer.until(lambda data: data.endswith(b"\r\n\r\na"))
    first, second = direct_kit.sinks
    assert bytes(first.received) == BODY
    assert bytes(second.received) == b"more"
    assert first.directly_read
    assert not second.direct_reads
    assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_a_consumer_that_declines_a_direct_read_is_written_to(direct_server, direct_kit):
    direct_kit.sink = DecliningSink
    peer = await direct_server.connect()
    peer.transport.write(PUT + BODY)
    await peer.until(b"%d " % len(BODY))
    assert direct_kit.sinks[0].direct_reads
    assert bytes(direct_kit.sinks[0].received) == BODY


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_noticed_after_the_direct_read(direct_server, direct_kit):
    before = open_descriptors()
    peer, sink = await start_direct_read(direct_server, direct_kit, HeldSink)
    peer.transport.abortConnection()
    await peer.end()
    assert not direct_kit.failures
    sink.released.callback(None)
    await until(lambda: direct_kit.failures)
    assert direct_kit.failures == ["BodyAborted"]
    await until(lambda: open_descriptors() == before)


@pytest_twisted.ensureDeferred
async def test_the_reactor_reads_on_after_the_direct_read(direct_server, direct_kit):
    peer, sink = await start_direct_read(direct_server, direct_kit, HeldSink)
    peer.transport.write(BODY[1_000_000:])
    had = len(sink.received)
    await deferLater(reactor, 0.02)
    assert len(sink.received) == had
    sink.released.callback(None)
    await peer.until(b"%d " % len(BODY))
    assert bytes(sink.received) == BODY


@pytest_twisted.ensureDeferred
async def test_an_abort_during_a_direct_read_fails_the_body(direct_server, direct_kit):
    peer, sink = await start_direct_read(direct_server, direct_kit, HeldSink)
    direct_server.site.abort()
    sink.released.callback(None)
    await peer.end()
    assert direct_kit.failures == ["BodyAborted"]


@pytest_twisted.ensureDeferred
async def test_a_direct_read_has_no_deadline(direct_server, direct_kit):
    _, sink = await start_direct_read(direct_server, direct_kit, HeldSink)
    (connection,) = direct_server.site.connections
    assert connection.deadline == float("inf")
    direct_kit.waiting[0].body.stopProducing()
    sink.released.callback(None)
