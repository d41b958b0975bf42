"""Connections that are held open: slow heads, silence after a response, unfinished TLS handshakes.

Slow bodies, and responses that are read slowly, are in ``test_connections.py``.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, closing, suppress

import pytest

from tests.support.certificates import Authority
from tests.support.process_usage import usage
from tests.support.processes import SERVE, RegistryProcess, wait_until, write_configuration
from tests.workers.process_group import children

AUTHORITY = Authority()
CROWD = 100
MORE = "  workers: {workers}\n  limits: {{headertimeout: 2s, idletimeout: 2s, bodytimeout: 2s}}\n"
#: Each connection must be closed by then.
MAX_OPEN_S = 30

#: What is sent first, what is sent again and again, and what the registry sends: the status of its
#: last response, or nothing if it closes without one.
SLOW = {
    "a request line": (b"GET ", b"/", b"408"),
    "a target": (b"GET /v2/", b"a", b"408"),
    "a field": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: ", b"a", b"408"),
    "fields": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n", b"X: a\r\n", b"408"),
    "empty lines": (b"\r\n", b"\r\n", b"408"),
    "the second head": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\nGET", b" ", b"408"),
    "trailers": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: a\r\n",
        b"408",
    ),
    "nothing": (b"", b"", b""),
    "nothing after a response": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", b"", b"200"),
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-processes"])
def registry(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    path = write_configuration(folder, more=MORE.format(workers=request.param))
    with RegistryProcess(*SERVE, path, cwd=folder) as process:
        yield process
        assert process.stop()[0] == 0
        assert "Traceback" not in "\n".join(process.lines)


def count_sockets(registry):
    first = registry.process.pid
    return sum(usage(pid).connections for pid in [first, *children(first)])


def hold(stack, port, data):
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    connection.sendall(data)
    connection.setblocking(False)
    return connection


def drip(crowd, piece):
    """Send a piece on each connection again and again; return what each receives until its end."""
    received, end = dict.fromkeys(crowd, b""), time.monotonic() + MAX_OPEN_S
    waiting = set(crowd)
    while waiting:
        assert time.monotonic() < end, f"{len(waiting)} connections are still open"
        for connection in list(waiting):
            with suppress(BlockingIOError):
                try:
                    if piece:
                        connection.sendall(piece)
                    data = connection.recv(65536)
                except (ConnectionResetError, BrokenPipeError):
                    data = b""
                received[connection] += data
                if not data:
                    waiting.remove(connection)
        time.sleep(0.3)
    return list(received.values())


@pytest.mark.parametrize("what", SLOW)
def test_slow_connections_are_closed_while_others_are_served(registry, what):
    first, piece, status = SLOW[what]
    before = count_sockets(registry)
    with ExitStack() as stack:
        crowd = [hold(stack, registry.port, first) for _ in range(CROWD)]
        assert registry.ask()[0].status == 200
        for received in drip(crowd, piece):
            last = received.rpartition(b"HTTP/1.1 ")[2][:3]
            # A reset, because more had arrived than was read, may destroy the response.
            assert last in {status, b""}, received
        assert registry.ask()[0].status == 200
    wait_until(lambda: count_sockets(registry) <= before)


@pytest.mark.parametrize("workers", [1, 2])
def test_unfinished_handshakes_are_closed_while_others_are_served(tmp_path, workers):
    section = AUTHORITY.issue("127.0.0.1").section(tmp_path)
    path = write_configuration(tmp_path, more=MORE.format(workers=workers) + section)
    # A record of a handshake, of which little follows.
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(32)
    with RegistryProcess(*SERVE, path, cwd=tmp_path, secure=AUTHORITY.client()) as registry:
        assert registry.ask()[0].status == 200
        before = count_sockets(registry)
        for first, piece in ((b"", b""), (hello, b""), (hello, b"\x00")):
            with ExitStack() as stack:
                crowd = [hold(stack, registry.port, first) for _ in range(CROWD)]
                assert registry.ask()[0].status == 200
                assert not any(b"HTTP" in received for received in drip(crowd, piece))
        with closing(registry.connection()) as connection:
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 200
        wait_until(lambda: count_sockets(registry) <= before)
        assert "Traceback" not in "\n".join(registry.lines)
