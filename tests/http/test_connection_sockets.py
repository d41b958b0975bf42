"""Connections on sockets: TCP, Unix and TLS."""

import math
import socket
import struct

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.task import deferLater

from tests.http.connection_kit import (
    FILE_CONTENT,
    LAST,
    MIB,
    ListeningServer,
    chunks,
    get,
    open_descriptors,
    put,
    unchunked,
    until,
)
from tests.http.resources import Sink
from twisted_registry.http.interfaces import Limits


@pytest_twisted.async_yield_fixture(params=["tcp", "unix", "tls", "own-tls"])
async def server(request, file_kit, tmp_path):
    listening = ListeningServer(file_kit, request.param, tmp_path)
    listening.kind = request.param
    yield listening
    await listening.close()


@pytest_twisted.async_yield_fixture
async def tcp(file_kit, tmp_path):
    listening = ListeningServer(file_kit, "tcp", tmp_path, limits=Limits(linger_seconds=0.2))
    yield listening
    await listening.close()


@pytest_twisted.ensureDeferred
async def test_requests_are_answered_in_order_on_every_transport(server):
    answer = await server.exchange(
        get(b"/a") + put(b"/b", b"c") + get(b"/pieces") + chunks(b"/s/take", b"abc", b"d") + LAST
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.endswith(b"\r\n\r\nlast")
    assert b"\r\n\r\nabcd 4 2HTTP" in answer
    assert answer.index(b"\r\n\r\na") < answer.index(b"\r\n\r\nbc")


@pytest_twisted.ensureDeferred
async def test_is_secure_is_true_over_tls(server):
    answer = await server.exchange(get(b"/inspect", b"Connection: close"))
    assert (b"True)" in answer) is (server.kind in {"tls", "own-tls"})


@pytest_twisted.ensureDeferred
async def test_a_client_that_still_sends_can_read_the_refusal(server):
    peer = await server.connect()
    peer.transport.write(get(b"/s/refuse", b"Content-Length: 9000000", method=b"PUT"))
    for _ in range(10):
        peer.transport.write(b"x" * 65536)
    answer = await peer.end()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b"\r\n\r\nno")


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_stops_sending_is_disconnected(file_kit, tmp_path):
    server = ListeningServer(file_kit, "tcp", tmp_path, limits=Limits(linger_bytes=100_000))
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
async def test_a_paused_body_stops_the_sender(server, file_kit):
    file_kit.on_write = lambda _sink, _piece: file_kit.waiting[0].body.pauseProducing()
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
    assert len(file_kit.sinks[0].received) <= MIB
    assert sender.sent < 50 * MIB
    peer.transport.abortConnection()


@pytest.mark.parametrize(("size", "piece"), [(50_000, 65536), (8 * MIB, MIB)])
@pytest_twisted.ensureDeferred
async def test_reads_are_small_but_for_bodies(tcp, file_kit, size, piece):
    """A large block is allocated for a read only if much is expected."""
    body = bytes(size)
    peer = await tcp.connect()
    peer.transport.write(get(b"/s/take", b"Content-Length: %d" % size, method=b"PUT"))
    await until(lambda: file_kit.sinks)
    (channel,) = tcp.site.connections
    assert channel.transport.bufferSize == piece
    peer.transport.write(body)
    await peer.until(b"%d " % size)
    assert channel.transport.bufferSize == 8192
    assert file_kit.sinks[0].pieces < size / 8192


@pytest_twisted.ensureDeferred
async def test_a_producer_is_paused_for_a_slow_reader(server, file_kit):
    producer = Filler(64)
    peer = await server.connect_paused()
    peer.transport.write(get(b"/wait", b"Connection: close"))
    await until(lambda: file_kit.waiting)
    producer.start(file_kit.waiting[0])
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
@pytest_twisted.ensureDeferred
async def test_a_range_of_a_file_is_sent(server, file_kit, size, offset):
    before = open_descriptors()
    peer = await server.connect()
    peer.transport.write(get(b"/file?size=%d&offset=%d" % (size, offset)) + LAST)
    answer = await peer.end()
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert b"X-Ready: 1" in head
    assert b"Content-Length: %d" % size in head
    assert rest[:size] == FILE_CONTENT[offset : offset + size]
    assert rest[size:].startswith(b"HTTP/1.1 200 OK")
    await until(lambda: open_descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_a_file_waits_for_a_slow_reader(server, file_kit):
    peer = await server.connect_paused()
    peer.transport.write(get(b"/file?size=%d" % (8 * MIB)) + LAST)
    await until(lambda: file_kit.sending)
    for _ in range(20):
        await deferLater(reactor, 0.001)
    assert not file_kit.sending.called
    peer.transport.resumeProducing()
    answer = await peer.end()
    assert answer.partition(b"\r\n\r\n")[2][: 8 * MIB] == FILE_CONTENT
    assert answer.endswith(b"\r\n\r\nlast")


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_too_short_resets_the_connection(server, file_kit):
    before = open_descriptors()
    size = 9 * MIB
    answer = await server.exchange(get(b"/file?size=%d" % size) + LAST)
    assert len(answer.partition(b"\r\n\r\n")[2]) <= 8 * MIB
    await until(lambda: file_kit.failures)
    assert file_kit.failures == ["EOFError"]
    await until(lambda: open_descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_read_resets_the_connection(server, file_kit, tmp_path):
    file_kit.file = tmp_path
    answer = await server.exchange(get(b"/file?size=10") + LAST)
    assert b"last" not in answer
    await until(lambda: file_kit.failures)
    assert file_kit.failures in (["IsADirectoryError"], ["OSError"])


@pytest_twisted.ensureDeferred
async def test_the_file_is_closed_when_the_client_leaves(server, file_kit):
    before = open_descriptors()
    peer = await server.connect_paused()
    peer.transport.write(get(b"/file?size=%d" % (8 * MIB)))
    await until(lambda: file_kit.sending)
    peer.transport.abortConnection()
    await until(lambda: file_kit.failures)
    assert file_kit.failures in (["ConnectionLost"], ["ConnectionDone"])
    await until(lambda: open_descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_cancelling_a_file_resets_the_connection(server, file_kit):
    before = open_descriptors()
    peer = await server.connect_paused()
    peer.transport.write(get(b"/file?size=%d" % (8 * MIB)))
    await until(lambda: file_kit.sending)
    file_kit.sending.cancel()
    peer.transport.resumeProducing()
    answer = await peer.end()
    assert len(answer) < 8 * MIB
    assert file_kit.failures == ["CancelledError"]
    await until(lambda: open_descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_no_file_is_sent_after_an_abort(tcp, file_kit):
    peer = await tcp.connect()
    peer.transport.write(get(b"/wait"))
    await until(lambda: file_kit.waiting)
    tcp.site.abort()
    failures = []
    file_kit.waiting[0].sendFileResponse(200, b"", 0, 0, 1).addErrback(failures.append)
    assert failures[0].check(ConnectionAborted)
    assert await peer.end() == b""


@pytest_twisted.ensureDeferred
async def test_a_request_fails_when_the_client_leaves(server, file_kit):
    peer = await server.connect()
    peer.transport.write(get(b"/wait"))
    await until(lambda: file_kit.waiting)
    peer.transport.abortConnection()
    await until(lambda: file_kit.events)
    assert file_kit.events != ["finished"]
    assert file_kit.waiting[0].code == 499


@pytest_twisted.ensureDeferred
async def test_a_body_is_aborted_when_the_client_leaves(server, file_kit):
    peer = await server.connect()
    peer.transport.write(get(b"/s/take", b"Content-Length: 50", method=b"PUT") + b"abc")
    await until(lambda: file_kit.sinks and file_kit.sinks[0].received)
    peer.transport.loseConnection()
    await until(lambda: file_kit.failures)
    assert file_kit.failures == ["BodyAborted"]


@pytest_twisted.ensureDeferred
async def test_a_half_closed_client_gets_its_response_on_every_transport(file_kit, tmp_path):
    for kind in ("tcp", "unix"):
        server = ListeningServer(file_kit, kind, tmp_path)
        peer = await server.connect()
        peer.transport.write(get(b"/wait"))
        peer.transport.loseWriteConnection()
        await until(lambda: file_kit.waiting)
        channel = next(iter(server.site.connections))
        await until(lambda: channel.deadline < math.inf)  # noqa: B023
        request = file_kit.waiting.pop()
        request.write(b"late")
        request.finish()
        assert (await peer.end()).endswith(b"4\r\nlate\r\n0\r\n\r\n")
        await server.close()


@pytest_twisted.ensureDeferred
async def test_a_request_fails_when_the_client_resets_the_connection(tcp, file_kit):
    """The client's kernel replies to data with RST."""
    peer = socket.create_connection(("127.0.0.1", tcp.port.getHost().port))
    peer.sendall(get(b"/wait") + get(b"/b"))
    await until(lambda: file_kit.waiting)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    request = file_kit.waiting[0]
    lost = []
    request.notifyFinish().addErrback(lost.append)
    while not lost:
        request.write(b"x" * 65536)
        await deferLater(reactor, 0)
    assert lost[0].check(ConnectionLost) or lost


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_close_is_disconnected(tcp):
    peer = socket.create_connection(("127.0.0.1", tcp.port.getHost().port))
    peer.sendall(b"nonsense\r\n\r\n")
    await until(lambda: tcp.site.connections)
    # linger_seconds is short here, and deadlines are checked once a second.
    await until(lambda: not tcp.site.connections)
    answer = peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    peer.close()


@pytest_twisted.ensureDeferred
async def test_a_missing_tls_handshake_counts_as_idle(file_kit, tmp_path):
    server = ListeningServer(file_kit, "own-tls", tmp_path, limits=Limits(idle_seconds=0.2))
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
async def test_the_last_response_arrives_although_the_server_stops(server, file_kit):
    """Nor does the stop wait for idle clients that do not read."""
    await server.connect_paused()
    peer = await server.connect_paused()
    peer.transport.write(get(b"/wait"))
    await until(lambda: file_kit.waiting)
    drained = server.site.drain()
    file_kit.waiting[0].write(b"x" * 60_000)
    file_kit.waiting[0].finish()
    await drained
    await server.site.disconnect()
    assert not server.site.connections
    peer.transport.resumeProducing()
    assert unchunked((await peer.end()).partition(b"\r\n\r\n")[2]) == b"x" * 60_000


@pytest_twisted.ensureDeferred
async def test_a_request_accepts_a_push_producer(server, file_kit):
    """As a reader of the storage, which delivers to any IConsumer."""
    peer = await server.connect()
    peer.transport.write(get(b"/wait", b"Connection: close"))
    await until(lambda: file_kit.waiting)
    Filler(3).start(file_kit.waiting[0])
    assert (await peer.end()).endswith(b"0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_100_continue_is_sent_on_every_transport_when_the_body_is_read(server, file_kit):
    peer = await server.connect()
    peer.transport.write(
        get(b"/s/wait", b"Content-Length: 5", b"Expect: 100-continue", method=b"PUT")
    )
    await until(lambda: file_kit.waiting)
    assert peer.data == b""
    sink = Sink()
    taken = file_kit.waiting[0].body.startProducing(sink)
    await peer.until(b"100 Continue\r\n\r\n")
    peer.transport.write(b"hello")
    await taken
    assert bytes(sink.received) == b"hello"
    file_kit.waiting[0].finish()
    await peer.until(b"200 OK")
    peer.transport.loseConnection()
    await peer.end()
