"""Crowds of connections that send nothing, or send it as slowly as they may.

Slow heads and handshakes are in ``test_slowloris.py``.
"""

from __future__ import annotations

import resource
import selectors
import socket
import time
from contextlib import ExitStack, closing, suppress
from statistics import median
from urllib.parse import urlsplit

import pytest

from tests.support.manifests import digest_of
from tests.support.processes import SERVE, RegistryProcess, wait_until, write_configuration

pytestmark = pytest.mark.timed

CROWD = 2000
#: The soft limit of a login shell, and of systemd's services.
USUAL_DESCRIPTORS = 1024


@pytest.fixture
def descriptors():
    """Begin with the usual soft limit on descriptors; yields a function that raises it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CROWD:
        pytest.skip(f"needs a hard limit of {2 * CROWD} descriptors, has {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_DESCRIPTORS, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CROWD, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def serving(folder, more):
    path = write_configuration(folder, more=more)
    return RegistryProcess(*SERVE, path, cwd=folder)


def open_crowd(stack, port, count, data=b""):
    """Open connections that all send the same, until the stack is closed; return them."""
    crowd = []
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        if data:
            connection.sendall(data)
        crowd.append(connection)
    return crowd


def latency(registry):
    """Return the median time of a request on a connection that is kept, in seconds."""
    times = []
    with closing(registry.connection()) as connection:
        for _ in range(150):
            started = time.perf_counter()
            connection.request("GET", "/v2/")
            response = connection.getresponse()
            response.read()
            times.append(time.perf_counter() - started)
            assert response.status == 200
    return median(times)


@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections_do_not_slow_a_client_down(tmp_path, descriptors, workers):
    """Compared by turns with a registry without a crowd, since the machine may be busy."""
    more = f"  workers: {workers}\n"
    with (
        serving(tmp_path, more) as registry,
        serving(tmp_path, more) as empty,
        ExitStack() as stack,
    ):
        descriptors()
        crowd = open_crowd(stack, registry.port, CROWD)
        times = [(latency(empty), latency(registry)) for _ in range(5)]
        usual, beside = map(min, zip(*times, strict=True))
        assert beside < 2 * usual, times
        for connection in crowd:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)  # it is still open
        assert any("descriptors: limit=" in line for line in registry.lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_above_the_limit_do_not_keep_a_client_out(tmp_path, descriptors, workers):
    more = f"  workers: {workers}\n  limits: {{connections: 100}}\n"
    with serving(tmp_path, more) as registry, ExitStack() as stack:
        descriptors()
        for data in (b"", b"G", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n"):
            open_crowd(stack, registry.port, 400, data)
            assert registry.ask()[0].status == 200
        assert registry.ask()[0].status == 200


BODIES = {
    "known length": b"PATCH %b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
    "chunked": b"PATCH %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "manifest": b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
    b"Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n",
}


def trickle(crowd, pieces, seconds):
    """Send a piece on each connection again and again; return what each one receives.

    :param seconds: gives up then.
    """
    received = dict.fromkeys(crowd, b"")
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in crowd:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() < end, f"{len(selector.get_map())} are still open"
            for key, _ in selector.select(0):
                connection = key.fileobj
                try:
                    piece = connection.recv(4096)
                except ConnectionError:
                    piece = b""
                received[connection] += piece
                if not piece:
                    selector.unregister(connection)
            for key in list(selector.get_map().values()):
                try:
                    key.fileobj.sendall(pieces[key.fileobj])
                except ConnectionError:
                    selector.unregister(key.fileobj)
            time.sleep(0.2)
    return list(received.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_bodies_that_trickle_end(tmp_path, workers):
    more = f"  workers: {workers}\n  limits: {{bodytimeout: 2s, bodyrate: 1KiB}}\n"
    with serving(tmp_path, more) as registry, ExitStack() as stack:
        crowd, pieces = [], {}
        for name, head in BODIES.items():
            for _ in range(10):
                begun, _ = registry.ask("POST", "/v2/a/blobs/uploads/", b"")
                target = urlsplit(begun.headers["Location"])
                data = head.replace(b"%b", f"{target.path}?{target.query}".encode())
                (connection,) = open_crowd(stack, registry.port, 1, data)
                crowd.append(connection)
                pieces[connection] = b"1\r\na\r\n" if name == "chunked" else b"a"
        received = trickle(crowd, pieces, 60)
        assert [data.split(b" ")[1] for data in received if data] == [b"408"] * len(crowd)
        assert push_slowly(registry, b"honest" * 1000, 600, 0.4) == 201


@pytest.mark.parametrize("workers", [1, 2])
def test_a_response_that_is_read_slowly_ends(tmp_path, workers):
    """The kernel reports progress in larger steps than a byte, so no rate has to be measured."""
    content = bytes(32 * 1024 * 1024)
    more = f"  workers: {workers}\n  limits: {{bodytimeout: 2s}}\n"
    with serving(tmp_path, more) as registry, ExitStack() as stack:
        digest = digest_of(content)
        pushed, _ = registry.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", content)
        assert pushed.status == 201
        request = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        crowd = open_crowd(stack, registry.port, 5, request)

        def have_ended():
            for connection in crowd:
                assert connection.recv(1)  # what the kernel has received stays readable
            return registry.output.count(f"GET /v2/a/blobs/{digest}") == len(crowd)

        wait_until(have_ended)
        for connection in crowd:
            assert rest_of(connection) < len(content) // 2


def rest_of(connection):
    """Return how much can still be read until the connection has ended."""
    size = 0
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            size += len(piece)
    return size


def push_slowly(registry, content, piece, interval):
    """Push a blob in pieces, with a pause before each; return the status."""
    with closing(registry.connection()) as connection:
        connection.putrequest("POST", f"/v2/a/blobs/uploads/?digest={digest_of(content)}")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders()
        for start in range(0, len(content), piece):
            time.sleep(interval)
            connection.send(content[start : start + piece])
        return connection.getresponse().status
