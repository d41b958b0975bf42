"""Pipelined requests of every kind: each response has the length that it declares."""

from __future__ import annotations

import http.client
import io

import pytest
import pytest_twisted

from tests.api.setups import SITES
from tests.support.http_client import connect, head
from tests.support.manifests import digest_of, image


class FakeSocket:
    """A socket for http.client that reads from a file."""

    def __init__(self, file):
        self._file = file

    def makefile(self, *_args, **_more):
        return self._file

    def rest(self):
        return self._file.read()


class UnclosedFile(io.BytesIO):
    """A file that responses do not close."""

    def close(self):
        pass


def parse_responses(data, methods):
    received = FakeSocket(UnclosedFile(data))
    for method in methods:
        response = http.client.HTTPResponse(received, method=method)
        response.begin()
        yield response.status, response.read()
    assert received.rest() == b""


@pytest.mark.setups(*SITES, "httpsite-files")
@pytest_twisted.ensureDeferred
async def test_pipelined_responses_end_where_they_declare(api):
    await api.push_image(b"layer")
    layer, manifest = digest_of(b"layer"), digest_of(image(b"{}", b"layer"))
    content = image(b"{}", b"layer")
    new = b'{"mediaType":"x/y"}'
    steps = [
        ("GET", "", {}, b"", 200, b"{}"),
        ("HEAD", f"a/blobs/{layer}", {}, b"", 200, b""),
        ("GET", f"a/blobs/{layer}", {}, b"", 200, b"layer"),
        ("GET", f"a/blobs/{layer}", {"Range": "bytes=1-2"}, b"", 206, b"ay"),
        ("GET", f"a/blobs/{layer}", {"If-None-Match": "*"}, b"", 304, b""),
        ("GET", f"a/blobs/{layer}", {"Range": "bytes=9-"}, b"", 416, None),
        ("HEAD", "a/manifests/none", {}, b"", 404, b""),
        ("HEAD", "a/tags/list", {}, b"", 200, b""),
        ("GET", "a/tags/list", {}, b"", 200, b'{"name":"a","tags":["latest"]}'),
        ("OPTIONS", "a/tags/list", {}, b"", 204, b""),
        ("GET", f"a/manifests/{manifest}", {}, b"", 200, content),
        ("PUT", "a/manifests/new", {"Content-Type": "x/y"}, new, 201, b""),
        ("PUT", "a/tags/list", {}, b"not wanted", 405, None),
        ("POST", f"a/blobs/uploads/?digest={layer}", {}, b"layer", 201, b""),
        ("POST", f"a/blobs/uploads/?digest={layer}", {}, b"other", 400, None),
        ("HEAD", "a/manifests/new", {}, b"", 200, b""),
        ("DELETE", "a/manifests/new", {}, b"", 202, b""),
        ("GET", f"a/referrers/{layer}", {}, b"", 200, None),
        ("GET", "_catalog", {"Connection": "close"}, b"", 200, b'{"repositories":["a"]}'),
    ]
    sent = b""
    for method, path, headers, body, _, _ in steps:
        framing = {"Content-Length": str(len(body))} if body else {}
        fields = {"Connection": "keep-alive", **framing, **headers}
        sent += head(method, f"/v2/{path}", fields, host=api.host) + body
    connection = await connect(api.served.port)
    connection.send(sent)
    await connection.closed
    responses = parse_responses(connection.received, [step[0] for step in steps])
    for (method, path, *_, status, body), (got, content) in zip(steps, responses, strict=True):
        assert got == status, (method, path)
        if body is not None:
            assert content == body, (method, path)
