"""Files over TLS, which threads send in turns."""

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.http.connection_kit import LAST, Kit, Listening, get
from twisted_registry.http import tls_output

MIB = 1024 * 1024
CONTENT = bytes(range(251)) * (8 * MIB // 251)
FILE = get(b"/file?size=%d" % len(CONTENT))


@pytest.fixture
def kit(tmp_path):
    kit = Kit()
    kit.file = tmp_path / "file"
    kit.file.write_bytes(CONTENT)
    return kit


@pytest_twisted.async_yield_fixture
async def server(kit, tmp_path):
    listening = Listening(reactor, kit, "secure", tmp_path)
    yield listening
    await listening.close()


async def until(condition):
    """Let the reactor turn until something holds; the test's timeout is the limit."""
    while not condition():
        await deferLater(reactor, 0.001)


@pytest_twisted.ensureDeferred
async def test_many_turns(server, monkeypatch):
    monkeypatch.setattr(tls_output, "_TURN_BYTES", 300_000)
    monkeypatch.setattr(tls_output, "_PIECE_BYTES", 50_001)
    answer = await server.exchange(FILE + FILE + LAST)
    head, body, _ = answer.split(CONTENT)
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\nlast")


@pytest_twisted.ensureDeferred
async def test_a_small_file_that_is_not_in_memory(server, monkeypatch):
    monkeypatch.setattr(tls_output, "_head_and_cached_file", lambda *_: None)
    answer = await server.exchange(get(b"/file?size=70000") + LAST)
    assert answer.partition(b"\r\n\r\n")[2].startswith(CONTENT[:70000] + b"HTTP/1.1 200 OK")


@pytest_twisted.ensureDeferred
async def test_those_who_read_nothing_keep_nobody_from_a_thread(server):
    deaf = [await server.connect_deaf() for _ in range(server.site.tls_send_slots.limit + 2)]
    for peer in deaf:
        peer.transport.write(FILE)
    answer = await server.exchange(FILE + LAST)
    assert CONTENT in answer
    for peer in deaf:
        peer.transport.resumeProducing()
        assert await peer.until(lambda data: data.endswith(CONTENT))
        peer.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_what_was_written_before_a_file_comes_first(server, kit):
    peer = await server.connect_deaf()
    peer.transport.write(get(b"/wait"))
    await until(lambda: kit.waiting)
    request = kit.waiting[0]
    first = b"x" * 4 * MIB
    request.setHeader(b"Content-Length", b"%d" % (len(first) + len(CONTENT)))
    request.write(first)
    with kit.file.open("rb") as file:
        sent = request.sendFile(file.fileno(), 0, len(CONTENT))
    peer.transport.resumeProducing()
    await sent
    request.finish()
    answer = await peer.until(lambda data: data.endswith(CONTENT))
    assert answer.partition(b"\r\n\r\n")[2] == first + CONTENT


@pytest_twisted.ensureDeferred
async def test_a_stop_does_not_wait_for_a_thread(server, kit):
    peer = await server.connect_deaf()
    peer.transport.write(FILE)
    await until(lambda: kit.sending)
    server.site.abort()
    await until(lambda: kit.failures)
    peer.transport.resumeProducing()
    assert len(await peer.end()) < len(CONTENT)
