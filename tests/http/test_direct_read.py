"""A body that its consumer reads from the socket by itself."""

import os
import socket
from pathlib import Path

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.http.connection_kit import Kit, Listening, get, put
from tests.http.resources import Sink
from twisted_registry.http import body as body_module
from twisted_registry.http import connection as connection_module
from twisted_registry.http.body import DirectRead

BODY = os.urandom(8 * 1024 * 1024)
PUT = get(b"/s/take", b"Content-Length: %d" % len(BODY), method=b"PUT")


@pytest.fixture
def ends(monkeypatch):
    monkeypatch.setattr(body_module, "_POLL_TIMEOUT_MS", 0)
    near, far = socket.socketpair()
    near.setblocking(False)
    yield near, far
    near.close()
    far.close()


def test_a_quick_sender_goes_on(ends):
    near, far = ends
    far.sendall(b"x" * 100)
    room = bytearray(150)
    direct_read = DirectRead(near, 1000)
    assert direct_read.read_into(memoryview(room)) == direct_read.bytes_read == 100
    assert room == b"x" * 100 + bytes(50)
    assert direct_read.left == 900
    assert not direct_read.finished


def test_a_slow_sender_has_had_its_loan(ends):
    near, far = ends
    far.sendall(b"x" * 10)
    direct_read = DirectRead(near, 1000)
    assert direct_read.read_into(memoryview(bytearray(150))) == 10
    assert direct_read.finished


def test_no_more_is_read_than_was_lent(ends):
    near, far = ends
    far.sendall(b"12345GET")
    direct_read = DirectRead(near, 5)
    room = bytearray(8)
    assert direct_read.read_into(memoryview(room)) == 5
    assert direct_read.finished
    assert room == b"12345" + bytes(3)
    assert near.recv(8) == b"GET"


@pytest.mark.parametrize("which", [0, 1])
def test_a_loan_ends_with_the_connection(ends, which):
    near, far = ends
    far.sendall(b"12")
    direct_read = DirectRead(near, 9)
    assert direct_read.read_into(memoryview(bytearray(3))) == 2
    assert not direct_read.finished
    ends[which].close()
    assert direct_read.read_into(memoryview(bytearray(3))) == 0
    assert direct_read.finished


@define(eq=False)
class Drawing(Sink):
    """Reads by itself, on a thread, in pieces that are not those of the reactor."""

    loans: int = 0
    drawn: int = 0

    def append_from(self, direct_read):
        self.loans += 1
        return deferToThread(self._draw, direct_read)

    def _draw(self, direct_read):
        room = memoryview(bytearray(77_777))
        while not direct_read.finished:
            length = direct_read.read_into(room)
            self.received += room[:length]
            self.drawn += length


@define(eq=False)
class Waiting(Drawing):
    """Gives back its loan when the test says so, and wants no other."""

    back: Deferred | None = None

    def append_from(self, direct_read):
        self.loans += 1
        if self.back is None:
            self.back = Deferred()
            return self.back
        return None


@define(eq=False)
class Unwilling(Drawing):
    """Wants no loan this time."""

    def append_from(self, direct_read):
        self.loans += 1


@pytest.fixture
def kit(monkeypatch):
    # The client's end has its turns on the same thread, and sends little in each.
    monkeypatch.setattr(connection_module, "DIRECT_READ_MIN_BYTES", 65536)
    return Kit(sink=Drawing)


@pytest_twisted.async_yield_fixture(params=["tcp", "unix", "secure"])
async def server(request, kit, tmp_path):
    listening = Listening(reactor, kit, request.param, tmp_path)
    yield listening
    await listening.close()


async def until(condition):
    """Let the reactor turn until something holds; the test's timeout is the limit."""
    while not condition():
        await deferLater(reactor, 0.001)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def lent(server, kit, sink):
    """A client whose body is lent to a sink of a kind."""
    kit.sink = sink
    peer = await server.connect()
    peer.transport.write(PUT + BODY[:1_000_000])
    await until(lambda: kit.sinks and kit.sinks[0].loans)
    return peer, kit.sinks[0]


@pytest_twisted.ensureDeferred
async def test_what_is_read_elsewhere_is_in_its_place(server, kit):
    peer = await server.connect()
    await until(lambda: server.site.connections)
    before = descriptors()
    peer.transport.write(PUT + BODY + put(b"/s/take", b"more") + get(b"/a"))
    await peer.until(lambda data: data.endswith(b"\r\n\r\na"))
    first, second = kit.sinks
    assert bytes(first.received) == BODY
    assert bytes(second.received) == b"more"
    assert first.drawn
    assert not second.loans
    assert descriptors() == before


@pytest_twisted.ensureDeferred
async def test_whoever_wants_no_loan_gets_the_bytes(server, kit):
    kit.sink = Unwilling
    peer = await server.connect()
    peer.transport.write(PUT + BODY)
    await peer.until(b"%d " % len(BODY))
    assert kit.sinks[0].loans
    assert bytes(kit.sinks[0].received) == BODY


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_during_a_loan_is_noticed_after_it(server, kit):
    before = descriptors()
    peer, sink = await lent(server, kit, Waiting)
    peer.transport.abortConnection()
    await peer.end()
    assert not kit.failures
    sink.back.callback(None)
    await until(lambda: kit.failures)
    assert kit.failures == ["BodyAborted"]
    await until(lambda: descriptors() == before)


@pytest_twisted.ensureDeferred
async def test_the_reactor_reads_on_when_it_has_the_socket_again(server, kit):
    peer, sink = await lent(server, kit, Waiting)
    peer.transport.write(BODY[1_000_000:])
    had = len(sink.received)
    await deferLater(reactor, 0.02)
    assert len(sink.received) == had
    sink.back.callback(None)
    await peer.until(b"%d " % len(BODY))
    assert bytes(sink.received) == BODY


@pytest_twisted.ensureDeferred
async def test_a_connection_may_end_during_a_loan(server, kit):
    peer, sink = await lent(server, kit, Waiting)
    server.site.abort()
    sink.back.callback(None)
    await peer.end()
    assert kit.failures == ["BodyAborted"]


@pytest_twisted.ensureDeferred
async def test_no_sender_is_late_during_a_loan(server, kit):
    _peer, _sink = await lent(server, kit, Waiting)
    (connection,) = server.site.connections
    assert connection.deadline == float("inf")
    kit.waiting[0].body.stopProducing()
