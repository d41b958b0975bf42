"""Blobs: end-2 and end-10."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from twisted.internet.defer import fail, succeed
from zope.interface import implementer

from tests.api.setups import SITES
from tests.support.manifests import digest_of
from twisted_registry.api.context import APISettings
from twisted_registry.repository.interfaces import IRegistryListener
from twisted_registry.storage.interfaces import IPresigner, MethodUnsupported
from twisted_registry.storage.memory import MemoryDriver

CONTENT = bytes(range(256)) * 4
BIG = os.urandom(3 * 1024 * 1024 + 17)


@pytest_twisted.ensureDeferred
async def test_get_and_head_of_a_blob(api):
    for algorithm in ("sha256", "sha384", "sha512"):
        digest = await api.push_blob(CONTENT, algorithm=algorithm)
        assert digest.startswith(algorithm)
        for method in ("GET", "HEAD"):
            response = await api(method, f"a/blobs/{digest}")
            assert response.status == 200
            assert response.get("Docker-Content-Digest") == digest
            assert response.get("ETag") == f'"{digest}"'
            assert response.get("Content-Length") == str(len(CONTENT))
            assert response.get("Content-Type") == "application/octet-stream"
            assert response.get("Accept-Ranges") == "bytes"
            assert response.get("Cache-Control") == "max-age=31536000"
            assert response.get("Docker-Distribution-Api-Version") == "registry/2.0"
            assert response.body == (CONTENT if method == "GET" else b"")


@pytest_twisted.ensureDeferred
async def test_a_large_blob_is_served(api):
    digest = await api.push_blob(BIG)
    response = await api("GET", f"a/blobs/{digest}")
    assert response.is_complete
    assert response.body == BIG
    response = await api("GET", f"a/blobs/{digest}", {"Range": "bytes=1000000-2999999"})
    assert (response.status, response.is_complete) == (206, True)
    assert response.body == BIG[1000000:3000000]


@pytest_twisted.ensureDeferred
async def test_an_empty_blob_is_served(api):
    digest = await api.push_blob(b"")
    for method in ("GET", "HEAD"):
        response = await api(method, f"a/blobs/{digest}")
        assert (response.status, response.body) == (200, b"")
        if method == "GET":
            assert response.get("Content-Length") == "0"
    response = await api("GET", f"a/blobs/{digest}", {"Range": "bytes=0-"})
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    assert response.get("Content-Range") == "bytes */0"


@pytest_twisted.ensureDeferred
async def test_an_unknown_blob_is_404(api):
    await api.push_blob(CONTENT, "b")
    digest = digest_of(CONTENT)
    for name in ("a", "b/c", "nobody"):
        for method in ("GET", "HEAD"):
            response = await api(method, f"{name}/blobs/{digest}")
            assert response.status == 404
            assert method == "HEAD" or response.code == "BLOB_UNKNOWN"
    response = await api("GET", f"b/blobs/{digest_of(CONTENT, 'sha512')}")
    assert response.code == "BLOB_UNKNOWN"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=1000-", 1000, 1023),
        ("bytes=1000-5000", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-5000", 0, 1023),
        ("bytes=0-", 0, 1023),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_range_is_answered_206(api, header, first, last):
    digest = await api.push_blob(CONTENT)
    for method in ("GET", "HEAD"):
        response = await api(method, f"a/blobs/{digest}", {"Range": header})
        assert response.status == 206
        assert response.get("Content-Range") == f"bytes {first}-{last}/1024"
        assert response.get("Content-Length") == str(last - first + 1)
        assert response.get("ETag") == f'"{digest}"'
        assert response.get("Docker-Content-Digest") == digest
        assert response.body == (CONTENT[first : last + 1] if method == "GET" else b"")


@pytest.mark.setups(*SITES)
@pytest.mark.parametrize(
    "header", ["bytes=0-1,3-4", "items=0-1", "bytes", "bytes=x-", "", "bytes=-"]
)
@pytest_twisted.ensureDeferred
async def test_an_unsupported_range_is_answered_200(api, header):
    digest = await api.push_blob(CONTENT)
    response = await api("GET", f"a/blobs/{digest}", {"Range": header})
    assert (response.status, response.body) == (200, CONTENT)
    assert response.get("Content-Range") is None


@pytest.mark.setups(*SITES)
@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=5000-6000", "bytes=-0", "bytes=5-4"])
@pytest_twisted.ensureDeferred
async def test_a_range_outside_of_the_blob_is_416(api, header):
    digest = await api.push_blob(CONTENT)
    for method in ("GET", "HEAD"):
        response = await api(method, f"a/blobs/{digest}", {"Range": header})
        assert response.status == 416
        assert response.get("Content-Range") == "bytes */1024"
        assert method == "HEAD" or response.code == "RANGE_INVALID"


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_if_range_selects_part_or_whole(api):
    digest = await api.push_blob(CONTENT)
    for condition, status in (
        (f'"{digest}"', 206),
        (digest, 206),
        ('"sha256:other"', 200),
        ("Tue, 24 Nov 2026 12:00:00 GMT", 200),
    ):
        headers = {"Range": "bytes=0-9", "If-Range": condition}
        response = await api("GET", f"a/blobs/{digest}", headers)
        assert response.status == status, condition
        assert response.body == (CONTENT[:10] if status == 206 else CONTENT)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_if_none_match_is_answered_304(api):
    digest = await api.push_blob(CONTENT)
    for condition in (f'"{digest}"', f'W/"{digest}"', digest, "*", f'"x", "{digest}"'):
        for method in ("GET", "HEAD"):
            response = await api(method, f"a/blobs/{digest}", {"If-None-Match": condition})
            assert (response.status, response.body) == (304, b""), condition
            assert response.get("ETag") == f'"{digest}"'
            assert response.get("Docker-Content-Digest") == digest
            assert response.get("Content-Type") is None
    response = await api("GET", f"a/blobs/{digest}", {"If-None-Match": '"x"'})
    assert response.status == 200


@implementer(IPresigner)
class Presigning(MemoryDriver):
    """A store whose blobs have URLs on another host."""

    def presign(self, path, method, expires, client):
        if method not in {"GET", "HEAD"}:
            return fail(MethodUnsupported(path))
        return succeed(f"https://bucket.example/{path}?{method}&{expires}&{client}")


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_blob_with_a_url_is_redirected(start, clock):
    driver = Presigning(clock)
    async with start(driver=driver) as api:
        digest = await api.push_blob(CONTENT)
        for method in ("GET", "HEAD"):
            response = await api(method, f"a/blobs/{digest}", {"X-Forwarded-For": "192.0.2.7"})
            assert (response.status, response.body) == (307, b"")
            hexadecimal = digest.partition(":")[2]
            assert response.get("Location") == (
                "https://bucket.example/docker/registry/v2/blobs/sha256/"
                f"{hexadecimal[:2]}/{hexadecimal}/data?{method}&1200&192.0.2.7"
            )
            assert response.get("Docker-Content-Digest") == digest
            # A cache must not keep a URL that expires.
            assert (response.get("Cache-Control"), response.get("ETag")) == ("no-store", None)
        assert (await api("GET", f"b/blobs/{digest}")).status == 404
        assert (await api("GET", f"a/blobs/{digest}", {"If-None-Match": "*"})).status == 304
    async with start(driver=driver, settings=APISettings(redirect=False)) as api:
        response = await api("GET", f"a/blobs/{digest}")
        assert (response.status, response.body) == (200, CONTENT)


@implementer(IRegistryListener)
class LastEvent:
    event = None

    def handle_event(self, event):
        self.event = event


@pytest_twisted.ensureDeferred
async def test_the_event_of_a_redirect_has_the_size(start, clock):
    listener = LastEvent()
    async with start(driver=Presigning(clock), listener=listener) as api:
        digest = await api.push_blob(CONTENT)
        assert (await api("GET", f"a/blobs/{digest}")).status == 307
    assert (listener.event.action, listener.event.size) == ("pull", len(CONTENT))


@pytest_twisted.ensureDeferred
async def test_a_deleted_blob_is_404(api):
    digest = await api.push_blob(CONTENT)
    await api.push_blob(CONTENT, "b")
    response = await api("DELETE", f"a/blobs/{digest}")
    assert (response.status, response.body) == (202, b"")
    assert response.get("Docker-Content-Digest") == digest
    assert (await api("GET", f"a/blobs/{digest}")).status == 404
    response = await api("DELETE", f"a/blobs/{digest}")
    assert (response.status, response.code) == (404, "BLOB_UNKNOWN")
    assert (await api("GET", f"b/blobs/{digest}")).body == CONTENT
    await api.push_blob(CONTENT)
    assert (await api("GET", f"a/blobs/{digest}")).body == CONTENT
