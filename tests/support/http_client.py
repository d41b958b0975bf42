"""A small HTTP client that sends exactly what it is told, well-formed or not.

One request on one connection, which it asks the server to close: what was received is then the
whole answer, and whether it kept its own promises (length, chunks) can be checked.
"""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.web.http_headers import Headers

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@frozen
class Response:
    """What came back; ``whole`` says whether it is what its head announced."""

    status: int
    headers: Headers
    body: bytes
    whole: bool
    raw: bytes

    def get(self, name):
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    def json(self):
        assert self.get("Content-Type") is not None
        return json.loads(self.body)

    @property
    def code(self):
        """The code of the one error in the body."""
        (error,) = self.json()["errors"]
        assert error["message"]
        return error["code"]


class Connection(Protocol):
    """Collects what a server sends."""

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
        """Fire when ``ready(received)`` is true, or the connection is gone."""
        done = Deferred()
        self._waiting.append((ready, done))
        self._look()
        return done

    def send(self, data):
        self.transport.write(data)

    def abort(self):
        self.transport.abortConnection()


def parse(raw: bytes, method: str) -> Response:
    """Read the last answer in ``raw``, whose connection was closed behind it."""
    while True:
        head, found, rest = raw.partition(b"\r\n\r\n")
        assert found, f"no answer: {raw[:200]!r}"
        line, *lines = head.split(b"\r\n")
        _, status = line.split(b" ", 2)[:2]
        if status != b"100":
            break
        raw = rest
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(b":")
        headers.addRawHeader(name, value.strip())
    whole = True
    if method == "HEAD" or status in {b"204", b"304"}:
        assert not rest, f"a body where none may be: {rest[:100]!r}"
    elif headers.hasHeader(b"transfer-encoding"):
        assert not headers.hasHeader(b"content-length")
        rest, whole = decode_chunked(rest)
    elif headers.hasHeader(b"content-length"):
        (length,) = headers.getRawHeaders(b"content-length")
        whole = len(rest) == int(length)
    return Response(int(status), headers_as_text(headers), rest, whole, raw)


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
    """The head of a request; a header that is given replaces the default of its name."""
    given = [(name, value) for name, value in dict(headers).items() if value is not None]
    names = {name.lower() for name in dict(headers)}
    defaults = [("Host", host), ("Connection", "close")]
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in defaults if name.lower() not in names]
    lines += [f"{name}: {value}" for name, value in given]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def connect(port: int) -> Connection:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    return await connectProtocol(endpoint, Connection())


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor(content: bytes, media_type: str = LAYER, algorithm: str = "sha256", **more) -> dict:
    return {
        "mediaType": media_type,
        "digest": digest_of(content, algorithm),
        "size": len(content),
        **more,
    }


def image(config=b"{}", *layers, media_type: str | None = OCI_IMAGE, **more) -> bytes:
    """The bytes of an image manifest over these blobs."""
    document = {
        "schemaVersion": 2,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    if media_type is not None:
        document["mediaType"] = media_type
    return json.dumps(document).encode()


def index(*manifests, media_type: str | None = OCI_INDEX, **more) -> bytes:
    document = {"schemaVersion": 2, "manifests": list(manifests), **more}
    if media_type is not None:
        document["mediaType"] = media_type
    return json.dumps(document).encode()


@define(eq=False)
class RegistryClient:
    """A client of one registry that is served under ``prefix``."""

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

    async def ask(self, method, target, headers=(), body: bytes | None = None) -> Response:
        """One request for an absolute path or URL."""
        if target.startswith("http"):
            parts = urlsplit(target)
            assert parts.netloc == self.host, target
            target = parts._replace(scheme="", netloc="").geturl()
        headers = dict(headers)
        if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(headers):
            headers["Content-Length"] = str(len(body))
        return await self.raw(head(method, target, headers, host=self.host) + (body or b""), method)

    async def __call__(self, method, path, headers=(), body: bytes | None = None) -> Response:
        """One request for a path below the API."""
        return await self.ask(method, self.prefix + path, headers, body)

    async def stream(self, method, target, *pieces, headers=()) -> Response:
        """One request with a body whose length is not told beforehand."""
        return await self.ask(
            method, target, {**dict(headers), "Transfer-Encoding": "chunked"}, chunked(*pieces)
        )

    async def start(self, name="a", query="") -> str:
        """Begin an upload, and answer its Location."""
        response = await self("POST", f"{name}/blobs/uploads/{query}", body=b"")
        assert response.status == 202
        return response.get("Location")

    async def blob(self, content: bytes, name="a", algorithm="sha256") -> str:
        """Push a blob, and answer its digest."""
        digest = digest_of(content, algorithm)
        response = await self("POST", f"{name}/blobs/uploads/?digest={digest}", body=content)
        if response.status == 202:  # nothing, which is no chunk to a POST
            response = await self.ask(
                "PUT", with_query(response.get("Location"), digest=digest), body=content
            )
        assert response.status == 201, response
        return digest

    async def manifest(self, content, reference="latest", name="a", media_type=OCI_IMAGE, **more):
        """Push a manifest, and answer the response."""
        headers = {} if media_type is None else {"Content-Type": media_type}
        headers.update(more)
        return await self("PUT", f"{name}/manifests/{reference}", headers, content)

    async def image(self, *layers, name="a", reference="latest", config=b"{}", **more) -> str:
        """Push an image with its blobs, and answer its digest."""
        for content in (config, *layers):
            await self.blob(content, name)
        content = image(config, *layers, **more)
        response = await self.manifest(content, reference, name)
        assert response.status == 201, response
        return response.get("Docker-Content-Digest")


def with_query(url: str, **parameters) -> str:
    joint = "&" if "?" in url else "?"
    return url + joint + "&".join(f"{name}={value}" for name, value in parameters.items())
