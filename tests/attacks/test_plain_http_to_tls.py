"""Plain HTTP sent to a port with TLS is answered in plain HTTP, and serves nothing."""

from __future__ import annotations

import socket

import pytest

from tests.support.certificates import Authority
from tests.support.processes import SERVE, RegistryProcess, write_configuration

AUTHORITY = Authority()
#: The words of Go, and of registries that are written in it.
ANSWER = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
REQUESTS = {
    "GET": b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "PUT": b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "GET with a long head": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 8000 + b"\r\n\r\n",
}


def exchange(port, data):
    """Return everything that the server sends until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(4096):
            received += piece
        return received


@pytest.mark.parametrize("workers", [1, 2])
def test_plain_http_is_answered_as_in_go(tmp_path, workers):
    more = f"  workers: {workers}\n" + AUTHORITY.issue("127.0.0.1").section(tmp_path)
    path = write_configuration(tmp_path, more=more)
    with RegistryProcess(*SERVE, path, cwd=tmp_path, secure=AUTHORITY.client()) as registry:
        # Often enough that each process accepts some of them.
        for _ in range(6):
            for name, data in REQUESTS.items():
                assert exchange(registry.port, data) == ANSWER, name
        assert registry.ask()[0].status == 200
        status, access_log, lines = registry.stop()
        assert (status, access_log.count("\n")) == (0, 1)
        assert "Traceback" not in "\n".join(lines)
