"""Files that threads send over TLS, in turns."""

import pytest_twisted

from tests.http.connection_kit import FILE_CONTENT, LAST, MIB, ListeningServer, get, until
from twisted_registry.http import tls_output

FILE = get(b"/file?size=%d" % len(FILE_CONTENT))


@pytest_twisted.async_yield_fixture
async def tls_server(file_kit, tmp_path):
    listening = ListeningServer(file_kit, "own-tls", tmp_path)
    yield listening
    await listening.close()


@pytest_twisted.ensureDeferred
async def test_a_file_is_sent_in_many_turns(tls_server, monkeypatch):
    monkeypatch.setattr(tls_output, "_TURN_BYTES", 300_000)
    monkeypatch.setattr(tls_output, "_PIECE_BYTES", 50_001)
    answer = await tls_server.exchange(FILE + FILE + LAST)
    head, body, _ = answer.split(FILE_CONTENT)
    assert head.startswith(b"HTTP/1.1 206 ")
    assert body.startswith(b"HTTP/1.1 206 ")
    assert answer.endswith(b"\r\n\r\nlast")


@pytest_twisted.ensureDeferred
async def test_a_small_file_that_is_not_cached_is_sent(tls_server, monkeypatch):
    monkeypatch.setattr(tls_output, "_head_and_cached_file", lambda *_: None)
    answer = await tls_server.exchange(get(b"/file?size=70000") + LAST)
    assert answer.partition(b"\r\n\r\n")[2].startswith(FILE_CONTENT[:70000] + b"HTTP/1.1 200 OK")


@pytest_twisted.ensureDeferred
async def test_clients_that_do_not_read_occupy_no_threads(tls_server):
    paused = [
        await tls_server.connect_paused() for _ in range(tls_server.site.tls_send_slots.limit + 2)
    ]
    for peer in paused:
        peer.transport.write(FILE)
    answer = await tls_server.exchange(FILE + LAST)
    assert FILE_CONTENT in answer
    for peer in paused:
        peer.transport.resumeProducing()
        assert await peer.until(lambda data: data.endswith(FILE_CONTENT))
        peer.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_bytes_written_before_a_file_are_sent_first(tls_server, file_kit):
    peer = await tls_server.connect_paused()
    peer.transport.write(get(b"/wait"))
    await until(lambda: file_kit.waiting)
    request = file_kit.waiting[0]
    first = b"x" * 4 * MIB
    request.channel.output.write(first)
    with file_kit.file.open("rb") as file:
        sent = request.sendFileResponse(200, b"", file.fileno(), 0, len(FILE_CONTENT))
    peer.transport.resumeProducing()
    await sent
    answer = await peer.until(lambda data: data.endswith(FILE_CONTENT))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(first + b"HTTP/1.1 200 OK")
    assert body == FILE_CONTENT


@pytest_twisted.ensureDeferred
async def test_an_abort_ends_a_file_on_a_thread(tls_server, file_kit):
    peer = await tls_server.connect_paused()
    peer.transport.write(FILE)
    await until(lambda: file_kit.sending)
    tls_server.site.abort()
    await until(lambda: file_kit.failures)
    peer.transport.resumeProducing()
    assert len(await peer.end()) < len(FILE_CONTENT)
