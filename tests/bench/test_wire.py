"""Responses parsed from a buffer: complete, partial and invalid ones."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.bench.wire import (
    Connection,
    RedirectedConnections,
    WireError,
    header_of,
    parse_response,
    request_bytes,
    with_query,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Name: value\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_response_is_parsed_when_it_is_complete():
    buffer = bytearray(HEAD + b"bod")
    assert parse_response(buffer, "GET") is None
    buffer += b"y!"
    response = parse_response(buffer, "GET")
    assert (response.status, response.body) == (200, b"body!")
    assert response.header("x-name") == "value"
    assert response.header("absent") == ""
    assert not buffer


@pytest.mark.parametrize(
    ("head", "method"),
    [(HEAD, "HEAD"), (HEAD.replace(b"200", b"304"), "GET"), (HEAD.replace(b"200", b"204"), "GET")],
)
def test_responses_without_a_body_are_parsed(head, method):
    assert parse_response(bytearray(head), method).body == b""


def test_chunks_are_joined():
    buffer = bytearray(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n")
    assert parse_response(buffer, "GET") is None
    buffer += b"0\r\n\r\n"
    assert parse_response(buffer, "GET").body == b"abcde"


@pytest.mark.parametrize("data", [b"SSH-2.0\r\n\r\n", HEAD + b"more than five"])
def test_invalid_responses_are_errors(data):
    with pytest.raises(WireError):
        parse_response(bytearray(data), "GET")


def test_a_request_is_formatted():
    data = request_bytes("GET", "/v2/", "here:1", {"Accept": "x"})
    assert data == b"GET /v2/ HTTP/1.1\r\nHost: here:1\r\nAccept: x\r\n\r\n"


@pytest.mark.parametrize(
    ("location", "query", "target"),
    [
        ("http://h/v2/u?_state=1", "digest=d", "/v2/u?_state=1&digest=d"),
        ("/v2/u", "digest=d", "/v2/u?digest=d"),
        ("/v2/u?a=b", "", "/v2/u?a=b"),
    ],
)
def test_a_query_is_added_to_a_location(location, query, target):
    assert with_query(location, query) == target


class Handler(BaseHTTPRequestHandler):
    """Redirects ``/blob`` to another host name."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        here, body = self.server.server_port, b"0123456789abcdef-the end of it"
        if self.path == "/blob":
            self.send_response(307)
            self.send_header("Location", f"http://localhost:{here}/there?signed=1")
            body = b"elsewhere"
        else:
            self.send_response(200 if self.path == "/there?signed=1" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_redirects_are_followed(url):
    taken = []
    with Connection(url) as connection, RedirectedConnections() as places:
        for _ in range(2):
            taken.clear()
            seen = places.fetch(connection, "/blob", lambda data: taken.append(bytes(data)))
            assert (seen.status, seen.size, seen.last) == (200, 30, b"ef-the end of it")
            assert b"".join(taken) == b"0123456789abcdef-the end of it"
        gone = places.fetch(connection, "/gone", taken.append)
        assert gone.status == 404
        assert len(b"".join(taken)) == 30
        assert header_of(gone.head, "content-length") == "30"
