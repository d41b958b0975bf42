"""The load generators of the benchmark count right responses and report wrong ones."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Thread

import pytest

from tests.bench import generator
from tests.bench.content import BlobMaker
from tests.bench.wire import MIB, Response
from tests.integration.servers import program

pytestmark = pytest.mark.integration

BODY = b"0123456789" * 1000
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n"
PIECES = b"".join(
    b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:4000], BODY[4000:])
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + PIECES + b"0\r\n\r\n"
FOUND = Response(200, b"", BODY)


class Scripted:
    """A server that sends one response to every request; None closes the connection.

    :ivar requests: the requests so far.
    """

    headers: dict[str, str] = {}  # noqa: RUF012 - replaced by tests, never changed

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # a generator stops in the middle
            while data := connection.recv(65536):
                self.requests.append(data)
                if self.answer is None:
                    return
                connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def scripted():
    started = []

    def start(answer):
        started.append(Scripted(answer))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(params=["cc", "wrk", "python"])
def using(request, monkeypatch):
    """The generator that is used."""
    if request.param != "python":
        program(request.param)
    if request.param != "cc":
        monkeypatch.setattr(generator, "CC", None)
    if request.param == "python":
        monkeypatch.setattr(generator, "WRK", None)
    return request.param


@pytest.mark.parametrize("answer", [LENGTH + BODY, CHUNKED], ids=["length", "chunks"])
def test_right_responses_are_counted(using, scripted, answer):
    server = scripted(answer)
    seen = generator.requests(server, "/x", connections=4, expected=FOUND, seconds=0.3)
    assert (seen.errors, seen.fault) == (0, "")
    assert seen.count > 10
    assert 0 < seen.p50 <= seen.p99
    assert 0.2 < seen.elapsed < 3
    assert 0 < seen.processor < 3


def test_each_connection_sends_the_configured_number_of_requests(using, scripted):
    server = scripted(LENGTH + BODY)
    seen = generator.requests(server, "/x", connections=3, expected=FOUND, times=5)
    assert (seen.count, seen.errors) == (15, 0)
    assert len(server.requests) == 15


@pytest.mark.parametrize(
    ("method", "status", "head"),
    [
        ("HEAD", 200, LENGTH),
        ("GET", 304, b"HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n"),
    ],
)
def test_responses_without_a_body_are_counted(using, scripted, method, status, head):
    server = scripted(head)
    seen = generator.requests(
        server, "/x", connections=2, expected=Response(status, b"", b""), seconds=0.2, method=method
    )
    assert (seen.errors, seen.fault) == (0, "")
    assert seen.count > 10
    assert server.requests[0].startswith(f"{method} /x HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (LENGTH.replace(b"200 OK", b"500 No"), "500"),
        (None, "closed"),
    ],
)
def test_wrong_responses_are_reported(using, scripted, answer, fault):
    server = scripted(answer and answer + BODY)
    seen = generator.requests(server, "/x", connections=2, expected=FOUND, seconds=0.2)
    assert seen.errors
    assert fault in seen.fault or using == "wrk"


# wrk compares no bodies; the cases do, before and after it.
@pytest.mark.parametrize("using", ["cc", "python"], indirect=True)
def test_a_body_of_another_length_is_reported(using, scripted):
    server = scripted(LENGTH + BODY)
    seen = generator.requests(
        server, "/x", connections=1, expected=Response(200, b"", b"short"), times=2
    )
    assert (seen.count, seen.errors) == (0, 2)
    assert "a body" in seen.fault


def test_headers_are_sent(using, scripted):
    server = scripted(LENGTH + BODY)
    server.headers = {"Authorization": "Basic eA=="}
    generator.requests(
        server, "/x", connections=1, expected=FOUND, seconds=0.1, headers={"Accept": "y"}
    )
    assert b"\r\nAuthorization: Basic eA==\r\n" in server.requests[0]
    assert b"\r\nAccept: y\r\n" in server.requests[0]


@pytest.mark.parametrize("using", ["cc", "python"], indirect=True)
def test_large_bodies_are_read_completely(using, scripted):
    blob = BlobMaker(3 * MIB).make("large")
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {blob.size}\r\n\r\n".encode()
    server = scripted(head + b"".join(blob.parts))
    seen = generator.downloads(server, "x", blob, clients=2, times=2)
    assert (seen.count, seen.errors) == (4, 0)
    server.answer = head.replace(b"3145728", b"3145727") + b"".join(blob.parts)[1:]
    seen = generator.downloads(server, "x", blob, clients=1, times=1)
    assert (seen.count, seen.errors) == (0, 1)
