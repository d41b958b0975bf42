"""An HTTP client that sends requests unchanged, whether well-formed or not.

It sends one request on each connection, and asks the server to close it, so that it can check that
the response is complete (Content-Length, chunks).
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.web.http_headers import Headers

from tests.support.manifests import OCI_IMAGE, digest_of, image


@frozen
class Response:
    """A response.

    :ivar is_complete: whether the body has the length that the headers declare.
    :ivar raw: everything that was received, interim responses excluded.
    """

    status: int
    headers: Headers
    body: bytes
    is_complete: bool
    raw: bytes

    def get(self, name):
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    def json(self):
        assert self.get("Content-Type") is not None
        return json.loads(self.body)

    @property
    def code(self):
        """The code of the only error in the body."""
        (error,) = self.json()["errors"]
        assert error["message"]
        return error["code"]


class Connection(Protocol):
    """A connection that collects what a server sends."""

    def __init__(self):
        self.received = b""
        self.closed = Deferred()
        self._waiting = []
        self.gone = False

    def dataReceived(self, data):
        self.received += data
        self._look()

    def connectionLost(self, reason):
        self.gone = True
        self._look()
        self.closed.callback(None)

    def _look(self):
        for entry in list(self._waiting):
            ready, done = entry
            if self.gone or ready(self.received):
                self._waiting.remove(entry)
                done.callback(None)

    def until(self, ready):
        """Fire when ``ready(received)`` is true, or the connection is closed."""
        done = Deferred()
        self._waiting.append((ready, done))
        self._look()
        return done

    def send(self, data):
        self.transport.write(data)

    def abort(self):
        self.transport.abortConnection()


def parse(raw: bytes, method: str) -> Response:
    """Parse the last response in ``raw``, after which the connection was closed."""
    while True:
        head, found, rest = raw.partition(b"\r\n\r\n")
        assert found, f"no response: {raw[:200]!r}"
        line, *lines = head.split(b"\r\n")
        _, status = line.split(b" ", 2)[:2]
        if status != b"100":
            break
        raw = rest
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(b":")
        headers.addRawHeader(name, value.strip())
    is_complete = True
    if method == "HEAD" or status in {b"204", b"304"}:
        assert not rest, f"unexpected body: {rest[:100]!r}"
    elif headers.hasHeader(b"transfer-encoding"):
        assert not headers.hasHeader(b"content-length")
        rest, is_complete = decode_chunked(rest)
    elif headers.hasHeader(b"content-length"):
        (length,) = headers.getRawHeaders(b"content-length")
        is_complete = len(rest) == int(length)
    return Response(int(status), headers_as_text(headers), rest, is_complete, raw)


def headers_as_text(headers: Headers) -> Headers:
    return Headers(
        {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in headers.getAllRawHeaders()
        }
    )


def decode_chunked(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            return body, data == b"\r\n"
        body += data[:length]
        data = data[length + 2 :]
    return body, False


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def head(method, target, headers=(), *, host="127.0.0.1") -> bytes:
    """Return the head of a request; ``headers`` replace the defaults, None removes one."""
    present = [(name, value) for name, value in dict(headers).items() if value is not None]
    names = {name.lower() for name in dict(headers)}
    defaults = [("Host", host), ("Connection", "close")]
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in defaults if name.lower() not in names]
    lines += [f"{name}: {value}" for name, value in present]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def connect(port: int) -> Connection:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    return await connectProtocol(endpoint, Connection())


@frozen
class LocalPort:
    """A port of this machine that serves a registry or another site.

    :ivar port: its number.
    """

    port: int

    @property
    def host(self):
        """The Host header of requests."""
        return f"127.0.0.1:{self.port}"


@define(eq=False)
class RegistryClient:
    """A client of one registry whose API is below ``prefix``."""

    served: object
    driver: object = None
    prefix: str = "/v2/"
    host: str = field(init=False)

    def __attrs_post_init__(self):
        self.host = self.served.host

    async def raw(self, data: bytes, method: str = "GET") -> Response:
        connection = await connect(self.served.port)
        connection.send(data)
        await connection.closed
        return parse(connection.received, method)

    async def request_target(
        self, method, target, headers=(), body: bytes | None = None
    ) -> Response:
        """Send a request for an absolute path, or a URL of this registry."""
        if target.startswith("http"):
            parts = urlsplit(target)
            assert parts.netloc == self.host, target
            target = parts._replace(scheme="", netloc="").geturl()
        headers = dict(headers)
        if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(headers):
            headers["Content-Length"] = str(len(body))
        return await self.raw(head(method, target, headers, host=self.host) + (body or b""), method)

    async def __call__(self, method, path, headers=(), body: bytes | None = None) -> Response:
        """Send a request for a path below the API."""
        return await self.request_target(method, self.prefix + path, headers, body)

    async def stream(self, method, target, *pieces, headers=()) -> Response:
        """Send a request with a chunked body."""
        return await self.request_target(
            method, target, {**dict(headers), "Transfer-Encoding": "chunked"}, chunked(*pieces)
        )

    async def start_upload(self, name="a", query="") -> str:
        """Start an upload, and return its Location."""
        response = await self("POST", f"{name}/blobs/uploads/{query}", body=b"")
        assert response.status == 202
        return response.get("Location")

    async def push_blob(self, content: bytes, name="a", algorithm="sha256") -> str:
        """Push a blob, and return its digest."""
        digest = digest_of(content, algorithm)
        response = await self("POST", f"{name}/blobs/uploads/?digest={digest}", body=content)
        if response.status == 202:  # a POST without content starts an upload
            response = await self.request_target(
                "PUT", with_query(response.get("Location"), digest=digest), body=content
            )
        assert response.status == 201, response
        return digest

    async def push_manifest(
        self, content, reference="latest", name="a", media_type=OCI_IMAGE, **more
    ):
        """Push a manifest, and return the response."""
        headers = {} if media_type is None else {"Content-Type": media_type}
        headers.update(more)
        return await self("PUT", f"{name}/manifests/{reference}", headers, content)

    async def push_image(self, *layers, name="a", reference="latest", config=b"{}", **more) -> str:
        """Push an image with its blobs, and return its digest."""
        for content in (config, *layers):
            await self.push_blob(content, name)
        content = image(config, *layers, **more)
        response = await self.push_manifest(content, reference, name)
        assert response.status == 201, response
        return response.get("Docker-Content-Digest")


def with_query(url: str, **parameters) -> str:
    separator = "&" if "?" in url else "?"
    return url + separator + "&".join(f"{name}={value}" for name, value in parameters.items())
