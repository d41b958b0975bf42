"""A minimal HTTP/1.1 client: load generators share the cores with the server."""

from __future__ import annotations

import json
import re
import socket
import ssl
from functools import cache
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class WireError(Exception):
    """The connection was closed, or the response is not HTTP."""


@frozen
class Response:
    """A response: status, raw head, and body."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header field, "" if it is not there."""
        return header_of(self.head, name)

    def json(self):
        return json.loads(self.body)


@frozen
class ReceivedBody:
    """A large response that was not stored: status, head, size, and the last 16 bytes."""

    status: int
    head: bytes
    size: int
    last: bytes


def request_bytes(method: str, target: str, host: str, headers: dict[str, str]) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse_response(buffer: bytearray, method: str) -> Response | None:
    """Parse the response in ``buffer`` and empty it; None while it is incomplete.

    One request is under way at a time, so nothing follows a response.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[: end + 2])
    if not head.startswith(b"HTTP/1.1 "):
        raise WireError(f"no response: {head[:40]!r}")
    status = int(head[9:12])
    body = bytes(buffer[end + 4 :])
    if method == "HEAD" or status in {204, 304}:
        buffer.clear()
        return Response(status, head, b"")
    if _CHUNKED.search(head):
        if not (b"\r\n" + body).endswith(_LAST_CHUNK):
            return None
        body = _without_chunks(body)
    else:
        length = body_length(head)
        if len(body) < length:
            return None
        if len(body) > length:
            raise WireError(f"{len(body)} bytes received, {length} announced")
    buffer.clear()
    return Response(status, head, body)


def header_of(head: bytes, name: str) -> str:
    """The value of a header field, "" if it is not there."""
    found = re.search(rb"\r\n" + re.escape(name.encode()) + rb": *([^\r]*)", head, re.IGNORECASE)
    return found[1].decode("latin-1") if found else ""


def body_length(head: bytes) -> int:
    """Return the Content-Length, or 0."""
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _without_chunks(body: bytes) -> bytes:
    parts, start = [], 0
    while True:
        line = body.index(b"\r\n", start)
        size = int(body[start:line], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[line + 2 : line + 2 + size])
        start = line + size + 4


def connect(url: str) -> socket.socket:
    """Return a connection to the host of a URL; certificates are not verified."""
    split = urlsplit(url)
    secure = split.scheme == "https"
    port = split.port or (443 if secure else 80)
    connected = socket.create_connection((split.hostname, port), timeout=60)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _unverified_context().wrap_socket(connected) if secure else connected


@cache
def _unverified_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _discard(_data: bytes | memoryview) -> None:
    """Discard a body."""


class Connection:
    """A persistent connection, for one request at a time.

    :param headers: headers of each request.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.host = urlsplit(url).netloc
        self._headers = headers or {}
        self._socket = connect(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def request(self, method, target, headers=None, parts=()) -> Response:
        """Send a request with its body in parts, and read the response."""
        fields = {**self._headers, **(headers or {})}
        if method in {"POST", "PATCH", "PUT"}:
            fields["Content-Length"] = str(sum(map(len, parts)))
        head = request_bytes(method, target, self.host, fields)
        if sum(map(len, parts)) < 64 * 1024:
            self._socket.sendall(head + b"".join(parts))
        else:
            self._socket.sendall(head)
            for part in parts:
                self._socket.sendall(part)
        buffer = bytearray()
        while (response := parse_response(buffer, method)) is None:
            data = self._socket.recv(256 * 1024)
            if not data:
                raise WireError("the server closed the connection in a response")
            buffer += data
        return response

    def download(
        self, target: str, take: Callable[[bytes | memoryview], object] = _discard
    ) -> ReceivedBody:
        """Read a large body without keeping it.

        :param take: gets the parts of the body, if the status is 200.
        """
        self._socket.sendall(request_bytes("GET", target, self.host, self._headers))
        start = bytearray()
        while (end := start.find(b"\r\n\r\n")) < 0:
            data = self._socket.recv(4096)
            if not data:
                raise WireError("the server closed the connection in a head")
            start += data
        # Some stores send the body after the head is acknowledged, which the kernel delays.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        head, body = bytes(start[: end + 2]), start[end + 4 :]
        length, size, last = body_length(head), len(body), bytes(body[-16:])
        status = int(head[9:12])
        if status != 200:
            take = _discard
        take(body)
        buffer = bytearray(MIB)
        while size < length:
            read = self._socket.recv_into(buffer)
            if not read:
                raise WireError("the server closed the connection in a body")
            size += read
            take(memoryview(buffer)[:read])
            last = (last + bytes(buffer[max(read - 16, 0) : read]))[-16:]
        return ReceivedBody(status, head, size, last)


def with_query(location: str, query: str) -> str:
    """Return the target of a Location header, with an added query."""
    split = urlsplit(location)
    joined = "&".join(filter(None, (split.query, query)))
    return f"{split.path}?{joined}" if joined else split.path


def send_request(server, method: str, target: str, headers=None, parts=()) -> Response:
    """Send one request on a new connection."""
    with Connection(server.url, server.headers) as connection:
        return connection.request(method, target, headers, parts)


class RedirectedConnections:
    """Persistent connections of one client to the hosts that it is redirected to."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        for connection in self._connections.values():
            connection.__exit__()

    def fetch(self, connection: Connection, target: str, take=_discard) -> ReceivedBody:
        """Read a body from the registry, or from the host that it redirects to.

        :param take: gets the parts of the body.
        """
        seen = connection.download(target, take)
        if seen.status != 307:
            return seen
        location = header_of(seen.head, "Location")
        place = urlsplit(location).netloc
        if place not in self._connections:
            self._connections[place] = Connection(location)
        return self._connections[place].download(with_query(location, ""), take)
