"""Requests with parts that are far too large, too many or too deep."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.support.http_client import chunked
from tests.support.manifests import OCI_IMAGE, OTHER, digest_of
from tests.support.passwords import basic_header, password_lines
from tests.support.process_usage import usage
from tests.support.processes import SERVE, RegistryProcess, wait_until, write_configuration

CONFIGURATION = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "{addr}", secret: x}}
auth: {{htpasswd: {{realm: here, path: {root}-users}}}}
access:
  anonymous: [pull, push]
  authenticated: [push]
  tokens: {{}}
"""
MIB = 2**20
BLOB = b"a blob"
TAG = "/v2/a/manifests/b"
UPLOAD = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000"
BLOB_PATH = f"/v2/a/blobs/{digest_of(BLOB)}"
#: Memory that the process may take for all of these requests.
MAX_MEMORY_KIB = 48 * 1024


def request(method="GET", target="/v2/", *fields, body=None):
    """Return a request that ends its connection."""
    lines = [f"{method} {target} HTTP/1.1", "Host: a", "Connection: close", *fields]
    if body is not None and not any(field.startswith("Transfer-Encoding") for field in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def manifest(body, media_type=OTHER):
    return request("PUT", TAG, f"Content-Type: {media_type}", body=body)


def form(body):
    kind = "application/x-www-form-urlencoded"
    return request("POST", "/auth/token", f"Content-Type: {kind}", body=body)


LOGIN = f"Authorization: {basic_header('ada', 'ada-knows-this')}"
CHUNKED = "Transfer-Encoding: chunked"
PUT_HEAD = request("PUT", TAG, f"Content-Type: {OTHER}", CHUNKED)
#: What is sent, and the status; None for a connection that is closed without a response.
REQUESTS = {
    "a method": (request("M" * MIB), 400),
    "a target": (request(target="/v2/" + "a" * MIB), 414),
    "a version": (b"GET / HTTP/" + b"1" * MIB + b"\r\n\r\n", 400),
    "a name of a field": (request("GET", "/v2/", "A" * MIB + ": b"), 431),
    "a value of a field": (request("GET", "/v2/", "A: " + "b" * MIB), 431),
    "many fields": (request("GET", "/v2/", *["A: b"] * 10_000), 431),
    "many fields below the limit of bytes": (request("GET", "/v2/", *["A:"] * 200), 431),
    "trailers": (PUT_HEAD + b"0\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
    "a chunk extension": (PUT_HEAD + b"1;" + b"a" * MIB + b"\r\na\r\n0\r\n\r\n", 400),
    "a chunk size": (PUT_HEAD + b"F" * 40 + b"\r\n", 400),
    "a length of many digits": (request("PUT", TAG, "Content-Length: " + "9" * 40), 400),
    "a length": (request("PUT", TAG, "Content-Length: " + "9" * 18), 413),
    "a manifest": (manifest(b"{" + b" " * 5 * MIB + b"}"), 413),
    "a manifest in chunks": (PUT_HEAD + chunked(*[b" " * MIB] * 6), 413),
    "a deep manifest": (manifest(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), 400),
    "a deep list": (manifest(b'{"a":' + b"[" * MIB), 400),
    "an array": (manifest(b'{"a":[' + b"1," * MIB + b"1]}"), 400),
    "an integer": (manifest(b'{"a":' + b"9" * MIB + b"}"), 201),
    "an integer that is used": (manifest(b'{"schemaVersion":' + b"9" * MIB + b"}", OCI_IMAGE), 400),
    "an exponent": (manifest(b'{"schemaVersion":1e999999999}', OCI_IMAGE), 400),
    "a key many times": (manifest(b'{"a":1' + b',"a":1' * 10_000 + b"}"), 400),
    "a string": (manifest(b'{"mediaType":"' + b"a" * MIB + b'"}'), 400),
    "a form": (form(b"grant_type=password&password=" + b"a" * MIB), 413),
    "many fields of a form": (form(b"a=b&" * 10_000), 400),
    "a password": (form(b"grant_type=password&username=ada&password=" + b"a" * 60_000), 401),
    "a refresh token": (form(b"grant_type=refresh_token&refresh_token=" + b"a" * 60_000), 401),
    "a scope": (request(target="/auth/token?scope=" + "repository:a:pull%20" * 380), 200),
    "parameters": (request(target="/v2/_catalog?" + "a=b&" * 500), 400),
    "a number": (request(target="/v2/a/tags/list?n=" + "9" * 5000), 400),
    "a position": (request("GET", "/v2/_catalog?last=" + "z" * 8000, LOGIN), 200),
    "an encrypted position": (request("GET", "/v2/_catalog?last=~" + "A" * 8000, LOGIN), 400),
    "a position of referrers": (
        request(target=f"/v2/a/referrers/{digest_of(BLOB)}?last=" + "f" * 8000),
        200,
    ),
    "a type of referrers": (
        request(target=f"/v2/a/referrers/{digest_of(BLOB)}?artifactType=" + "a" * 8000),
        200,
    ),
    "a name": (request(target="/v2/" + "a" * 8000 + "/tags/list"), 400),
    "a path": (request(target="/v2" + "/a" * 4000 + "/tags/list"), 400),
    "a digest": (request(target="/v2/a/blobs/sha256:" + "a" * 8000), 400),
    "a tag": (request(target="/v2/a/manifests/" + "a" * 8000), 404),
    "a state of an upload": (
        request("PATCH", UPLOAD + "?_state=" + "A" * 8000, body=b""),
        404,
    ),
    "a login": (request("GET", "/v2/", f"Authorization: {basic_header('ada', 'a' * 11_000)}"), 401),
    "a login without an end": (request("GET", "/v2/", "Authorization: Basic " + "A" * 16_000), 401),
    "a token": (request("GET", "/v2/", "Authorization: Bearer " + "a." * 8000), 401),
    "ranges": (request("GET", BLOB_PATH, "Range: bytes=" + "0-0," * 4000), 200),
    "a range": (request("GET", BLOB_PATH, "Range: bytes=" + "9" * 8000 + "-"), 200),
    "a chunk of an upload": (
        request("PATCH", "{upload}", "Content-Range: 0-" + "9" * 8000, body=b"a"),
        416,
    ),
    "entity tags": (request("GET", BLOB_PATH, "If-None-Match: " + '"a",' * 4000), 200),
    "a condition": (request("GET", BLOB_PATH, 'If-Range: "' + "a" * 15_000), 200),
    "types": (request("GET", "/v2/a/manifests/none", "Accept: " + "a/b;q=0.1," * 1500), 404),
    "addresses": (request("GET", BLOB_PATH, "X-Forwarded-For: " + "1.2.3.4," * 1800), 200),
    "proxies": (request("GET", BLOB_PATH, "Forwarded: " + "for=1.2.3.4;" * 1200), 200),
}  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oversized")
    (folder / "store-users").write_bytes(password_lines(ada="ada-knows-this"))
    path = write_configuration(folder, CONFIGURATION)
    with RegistryProcess(*SERVE, path, cwd=folder) as process:
        target = f"/v2/a/blobs/uploads/?digest={digest_of(BLOB)}"
        assert process.ask("POST", target, BLOB)[0].status == 201
        before = usage(process.process.pid)
        yield process
        wait_until(lambda: usage(process.process.pid).connections <= before.connections)
        assert usage(process.process.pid).memory_kib < before.memory_kib + MAX_MEMORY_KIB
        assert process.stop()[0] == 0
        assert not [line for line in process.lines if "Traceback" in line or "level=error" in line]


def exchange(port, data):
    """Send as much as the registry takes; return what it sends until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        received = b""
        with suppress(ConnectionError):
            connection.sendall(data)
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    return received


@pytest.mark.parametrize("what", REQUESTS)
def test_what_is_too_large_is_refused_and_others_are_served(registry, what):
    data, expected = REQUESTS[what]
    if b"{upload}" in data:
        begun, _ = registry.ask("POST", "/v2/a/blobs/uploads/")
        url = urlsplit(begun.headers["Location"])
        data = data.replace(b"{upload}", f"{url.path}?{url.query}".encode())
    received = exchange(registry.port, data)
    assert re.findall(rb"^HTTP/1\.1 (\d+)", received) == [b"%d" % expected], received[:300]
    # An error does not repeat all that was sent.
    assert len(received) < 20_000
    response, body = registry.ask("GET", BLOB_PATH)
    assert (response.status, body) == (200, BLOB)
