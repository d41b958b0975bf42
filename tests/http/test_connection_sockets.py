"""The channel on real sockets: TCP, Unix and TLS."""

import math
import socket
import struct
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import ConnectionLost
from twisted.internet.task import deferLater

from tests.http.connection_kit import LAST, Kit, Listening, chunks, get, put, unchunked
from tests.http.resources import Sink
from twisted_registry.app.listener import HTTPService
from twisted_registry.http.interfaces import Limits

MIB = 1024 * 1024


@pytest.fixture
def kit(tmp_path):
    kit = Kit()
    kit.file = tmp_path / "file"
    kit.file.write_bytes(bytes(range(256)) * (8 * MIB // 256))
    return kit


async def until(condition):
    """Let the reactor turn until something holds; the test's timeout is the limit."""
    while not condition():
        await deferLater(reactor, 0.001)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest_twisted.async_yield_fixture(params=["tcp", "unix", "tls", "secure"])
async def server(request, kit, tmp_path):
    listening = Listening(reactor, kit, request.param, tmp_path)
    listening.kind = request.param
    yield listening
    await listening.close()


@pytest.fixture(params=["fields of its own", "fields that are ready"])
def head(request, kit):
    """How the head of a file's answer is made."""
    kit.ready_head = request.param == "fields that are ready"


@pytest_twisted.async_yield_fixture
async def tcp(kit, tmp_path):
    listening = Listening(reactor, kit, "tcp", tmp_path, limits=Limits(linger_seconds=0.2))
    yield listening
    await listening.close()


@pytest_twisted.ensureDeferred
async def test_answers(server):
    answer = await server.exchange(
        get(b"/a") + put(b"/b", b"c") + get(b"/pieces") + chunks(b"/s/take", b"abc", b"d") + LAST
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.endswith(b"\r\n\r\nlast")
    assert b"\r\n\r\nabcd 4 2HTTP" in answer
    assert answer.index(b"\r\n\r\na") < answer.index(b"\r\n\r\nbc")


@pytest_twisted.ensureDeferred
async def test_a_request_knows_whether_it_is_secure(server):
    answer = await server.exchange(get(b"/inspect", b"Connection: close"))
    assert (b"True)" in answer) is (server.kind in {"tls", "secure"})


@pytest_twisted.ensureDeferred
async def test_a_refusal_can_be_read_by_a_client_that_still_sends(server):
    peer = await server.connect()
    peer.transport.write(get(b"/s/refuse", b"Content-Length: 9000000", method=b"PUT"))
    for _ in range(10):
        peer.transport.write(b"x" * 65536)
    answer = await peer.end()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b"\r\n\r\nno")


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_stops_sending_is_cut_off(kit, tmp_path):
    server = Listening(reactor, kit, "tcp", tmp_path, limits=Limits(linger_bytes=100_000))
    peer = await server.connect()
    peer.transport.write(get(b"/s/refuse", b"Content-Length: 900000000", method=b"PUT"))
    await peer.until(b"no")
    sender = Flood()
    peer.transport.registerProducer(sender, False)
    sender.peer = peer
    await peer.end()
    assert sender.sent < 50 * MIB
    await server.close()


class Flood:
    peer = None
    sent = 0

    def resumeProducing(self):
        if self.peer is not None:
            self.sent += 65536
            self.peer.transport.write(b"x" * 65536)

    def stopProducing(self):
        self.peer = None


@pytest_twisted.ensureDeferred
async def test_a_body_is_held_back_at_the_sender(server, kit):
    kit.on_write = lambda _sink, _piece: kit.waiting[0].body.pauseProducing()
    peer = await server.connect()
    sender = Flood()
    sender.peer = peer
    peer.transport.write(get(b"/s/take", b"Content-Length: 900000000", method=b"PUT"))
    peer.transport.registerProducer(sender, False)
    sender.resumeProducing()
    before = -1
    while sender.sent != before:
        before = sender.sent
        await deferLater(reactor, 0.05)
    assert len(kit.sinks[0].received) <= MIB
    assert sender.sent < 50 * MIB
    peer.transport.abortConnection()


@pytest_twisted.ensureDeferred
async def test_a_large_body_comes_in_large_pieces(tcp, kit):
    body = bytes(8 * MIB)
    peer = await tcp.connect()
    peer.transport.write(get(b"/s/take", b"Content-Length: %d" % len(body), method=b"PUT"))
    peer.transport.write(body)
    await peer.until(b"%d " % len(body))
    channel = next(iter(tcp.site.connections))
    assert channel.transport.bufferSize == 65536
    assert kit.sinks[0].pieces < len(body) / 65536


@pytest_twisted.ensureDeferred
async def test_an_answer_waits_for_a_slow_reader(server, kit):
    producer = Filler(64)
    peer = await server.connect_deaf()
    peer.transport.write(get(b"/wait", b"Connection: close"))
    await until(lambda: kit.waiting)
    producer.start(kit.waiting[0])
    await until(lambda: producer.paused)
    assert producer.left
    peer.transport.resumeProducing()
    answer = await peer.end()
    assert answer.endswith(b"0\r\n\r\n")
    assert len(answer) > 64 * 256 * 1024


class Filler:
    def __init__(self, pieces):
        self.left = pieces
        self.paused = False

    def start(self, request):
        self.request = request
        request.registerProducer(self, True)
        self.fill()

    def fill(self):
        while self.left and not self.paused:
            self.left -= 1
            self.request.write(b"x" * 256 * 1024)
        if not self.left and self.request is not None:
            request, self.request = self.request, None
            request.unregisterProducer()
            request.finish()

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False
        self.fill()

    def stopProducing(self):
        self.request = None


@pytest.mark.parametrize(
    ("size", "offset"), [(0, 0), (1, 5), (70_000, 3), (MIB, 0), (5 * MIB, 7), (8 * MIB, 0)]
)
@pytest.mark.usefixtures("head")
@pytest_twisted.ensureDeferred
async def test_a_range_of_a_file(server, kit, size, offset):
    before = descriptors()
    peer = await server.connect()
    peer.transport.write(get(b"/file?size=%d&offset=%d" % (size, offset)) + LAST)
    answer = await peer.end()
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 " if kit.ready_head else b"HTTP/1.1 200 ")
    assert (b"X-Ready: 1" in head) is kit.ready_head
    assert b"Content-Length: %d" % size in head
    assert rest[:size] == kit.file.read_bytes()[offset : offset + size]
    assert rest[size:].startswith(b"HTTP/1.1 200 OK")
    await until(lambda: descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_a_file_is_not_sent_to_head(server):
    answer = await server.exchange(get(b"/file?size=5", method=b"HEAD") + LAST)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 5\r\n" in answer
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1")


@pytest.mark.usefixtures("head")
@pytest_twisted.ensureDeferred
async def test_a_file_waits_for_a_slow_reader(server, kit):
    peer = await server.connect_deaf()
    peer.transport.write(get(b"/file?size=%d" % (8 * MIB)) + LAST)
    await until(lambda: kit.sending)
    for _ in range(20):
        await deferLater(reactor, 0.001)
    assert not kit.sending.called
    peer.transport.resumeProducing()
    answer = await peer.end()
    assert answer.partition(b"\r\n\r\n")[2][: 8 * MIB] == kit.file.read_bytes()
    assert answer.endswith(b"\r\n\r\nlast")


@pytest.mark.usefixtures("head")
@pytest_twisted.ensureDeferred
async def test_a_file_shorter_than_said_breaks_the_connection(server, kit):
    before = descriptors()
    size = 9 * MIB
    answer = await server.exchange(get(b"/file?size=%d" % size) + LAST)
    assert len(answer.partition(b"\r\n\r\n")[2]) <= 8 * MIB
    await until(lambda: kit.failures)
    assert kit.failures == ["EOFError"]
    await until(lambda: descriptors() <= before)


@pytest.mark.usefixtures("head")
@pytest_twisted.ensureDeferred
async def test_a_file_that_can_not_be_read_breaks_the_connection(server, kit, tmp_path):
    kit.file = tmp_path
    answer = await server.exchange(get(b"/file?size=10") + LAST)
    assert b"last" not in answer
    await until(lambda: kit.failures)
    assert kit.failures in (["IsADirectoryError"], ["OSError"])


@pytest.mark.usefixtures("head")
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_frees_the_file(server, kit):
    before = descriptors()
    peer = await server.connect_deaf()
    peer.transport.write(get(b"/file?size=%d" % (8 * MIB)))
    await until(lambda: kit.sending)
    peer.transport.abortConnection()
    await until(lambda: kit.failures)
    assert kit.failures in (["ConnectionLost"], ["ConnectionDone"])
    await until(lambda: descriptors() <= before)


@pytest.mark.usefixtures("head")
@pytest_twisted.ensureDeferred
async def test_cancelling_a_file_breaks_the_connection(server, kit):
    before = descriptors()
    peer = await server.connect_deaf()
    peer.transport.write(get(b"/file?size=%d" % (8 * MIB)))
    await until(lambda: kit.sending)
    kit.sending.cancel()
    peer.transport.resumeProducing()
    answer = await peer.end()
    assert len(answer) < 8 * MIB
    assert kit.failures == ["CancelledError"]
    await until(lambda: descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_its_request(server, kit):
    peer = await server.connect()
    peer.transport.write(get(b"/wait"))
    await until(lambda: kit.waiting)
    peer.transport.abortConnection()
    await until(lambda: kit.events)
    assert kit.events != ["finished"]
    assert kit.waiting[0].code == 499


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_in_a_body_aborts_it(server, kit):
    peer = await server.connect()
    peer.transport.write(get(b"/s/take", b"Content-Length: 50", method=b"PUT") + b"abc")
    await until(lambda: kit.sinks and kit.sinks[0].received)
    peer.transport.loseConnection()
    await until(lambda: kit.failures)
    assert kit.failures == ["BodyAborted"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_closed_its_sending_side_gets_its_answer(kit, tmp_path):
    for kind in ("tcp", "unix"):
        server = Listening(reactor, kit, kind, tmp_path)
        peer = await server.connect()
        peer.transport.write(get(b"/wait"))
        peer.transport.loseWriteConnection()
        await until(lambda: kit.waiting)
        channel = next(iter(server.site.connections))
        await until(lambda: channel.deadline < math.inf)  # noqa: B023
        request = kit.waiting.pop()
        request.write(b"late")
        request.finish()
        assert (await peer.end()).endswith(b"4\r\nlate\r\n0\r\n\r\n")
        await server.close()


@pytest_twisted.ensureDeferred
async def test_a_reset_connection_is_survived(tcp, kit):
    """The peer's kernel answers what we send with a reset."""
    peer = socket.create_connection(("127.0.0.1", tcp.port.getHost().port))
    peer.sendall(get(b"/wait") + get(b"/b"))
    await until(lambda: kit.waiting)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    request = kit.waiting[0]
    lost = []
    request.notifyFinish().addErrback(lost.append)
    while not lost:
        request.write(b"x" * 65536)
        await deferLater(reactor, 0)
    assert lost[0].check(ConnectionLost) or lost


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_told_of_the_end_and_stays_is_closed(tcp):
    peer = socket.create_connection(("127.0.0.1", tcp.port.getHost().port))
    peer.sendall(b"nonsense\r\n\r\n")
    await until(lambda: tcp.site.connections)
    # linger_seconds is short here, and the sweep comes once a second
    await until(lambda: not tcp.site.connections)
    answer = peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    peer.close()


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_never_comes_is_waited_for_as_for_a_request(kit, tmp_path):
    server = Listening(reactor, kit, "secure", tmp_path, limits=Limits(idle_seconds=0.2))
    peer = socket.create_connection(("127.0.0.1", server.port.getHost().port))
    await until(lambda: server.site.connections)
    await until(lambda: not server.site.connections)
    peer.setblocking(False)
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    peer.close()
    await server.close()


@pytest_twisted.ensureDeferred
async def test_many_idle_connections_share_one_delayed_call(tcp):
    calls = len(reactor.getDelayedCalls())
    peers = [await tcp.connect() for _ in range(100)]
    await until(lambda: len(tcp.site.connections) == 100)
    assert len(reactor.getDelayedCalls()) <= calls + 1
    done = tcp.site.drain()
    for peer in peers:
        await peer.end()
    await done


@pytest_twisted.ensureDeferred
async def test_the_last_answer_arrives_though_the_server_stops(server, kit):
    """Nor does a stop wait for clients that have nothing to wait for, and do not listen."""
    await server.connect_deaf()
    peer = await server.connect_deaf()
    peer.transport.write(get(b"/wait"))
    await until(lambda: kit.waiting)
    stopped = HTTPService(None, server.site, reactor, 30).stopService()
    kit.waiting[0].write(b"x" * 60_000)
    kit.waiting[0].finish()
    await stopped
    assert not server.site.connections
    peer.transport.resumeProducing()
    assert unchunked((await peer.end()).partition(b"\r\n\r\n")[2]) == b"x" * 60_000


@pytest_twisted.ensureDeferred
async def test_a_request_can_be_told_to_take_a_stream(server, kit):
    """An IReader delivers itself to any IConsumer."""
    peer = await server.connect()
    peer.transport.write(get(b"/wait", b"Connection: close"))
    await until(lambda: kit.waiting)
    Filler(3).start(kit.waiting[0])
    assert (await peer.end()).endswith(b"0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_not_taken_stays_at_the_sender(server, kit):
    peer = await server.connect()
    peer.transport.write(
        get(b"/s/wait", b"Content-Length: 5", b"Expect: 100-continue", method=b"PUT")
    )
    await until(lambda: kit.waiting)
    assert peer.data == b""
    sink = Sink()
    taken = kit.waiting[0].body.startProducing(sink)
    await peer.until(b"100 Continue\r\n\r\n")
    peer.transport.write(b"hello")
    await taken
    assert bytes(sink.received) == b"hello"
    kit.waiting[0].finish()
    await peer.until(b"200 OK")
    peer.transport.loseConnection()
    await peer.end()
