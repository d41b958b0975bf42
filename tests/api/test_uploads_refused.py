"""Uploads that are refused: end-5 and end-6."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.upload_checks import (
    DIGEST,
    ONE,
    THREE,
    TWO,
    WHOLE,
    check_accepted,
    check_range_refused,
    finish_upload,
)
from tests.support.http_client import with_query
from tests.support.manifests import digest_of
from twisted_registry.api.uploads import UploadState


@pytest_twisted.ensureDeferred
async def test_a_chunk_out_of_order_is_416(api):
    url = await api.start_upload()
    for header in ("1-3", "100-102", "3-1", "x", "1", "bytes 0", "-5"):
        response = await api.request_target("PATCH", url, {"Content-Range": header}, b"abc")
        url = await check_range_refused(api, response, 0)
    url = check_accepted(await api.request_target("PATCH", url, body=ONE), len(ONE))
    for first in (0, len(ONE) - 1, len(ONE) + 1):
        headers = {"Content-Range": f"{first}-{first + len(TWO) - 1}"}
        await check_range_refused(
            api, await api.request_target("PATCH", url, headers, TWO), len(ONE)
        )
        put = with_query(url, digest=digest_of(ONE + TWO))
        await check_range_refused(api, await api.request_target("PUT", put, headers, TWO), len(ONE))
    await finish_upload(api, url, ONE + TWO, body=TWO)


@pytest_twisted.ensureDeferred
async def test_an_outdated_location_is_416(api):
    """Without Content-Range, the state in the URL declares the offset."""
    old = await api.start_upload()
    url = check_accepted(await api.request_target("PATCH", old, body=ONE), len(ONE))
    url = await check_range_refused(api, await api.request_target("PATCH", old, body=TWO), len(ONE))
    put = with_query(old, digest=digest_of(ONE + TWO))
    url = await check_range_refused(api, await api.request_target("PUT", put, body=TWO), len(ONE))
    headers = {"Content-Range": f"{len(ONE)}-{len(ONE + TWO) - 1}"}
    url = check_accepted(await api.request_target("PATCH", old, headers, TWO), len(ONE + TWO))
    await finish_upload(api, url, WHOLE, body=THREE)


@pytest_twisted.ensureDeferred
async def test_an_upload_continues_without_state(api):
    """Distribution requires the _state parameter; here the stored size is enough."""
    url = (await api.start_upload()).partition("?")[0]
    check_accepted(await api.request_target("PATCH", url, body=ONE), len(ONE))
    check_accepted(await api.request_target("PATCH", url, body=TWO), len(ONE + TWO))
    await finish_upload(api, url, WHOLE, body=THREE)


@pytest_twisted.ensureDeferred
async def test_a_forged_state_is_refused(api):
    one, two = await api.start_upload(), await api.start_upload()
    state = two.partition("_state=")[2]
    upload = one.partition("?")[0]
    forged = UploadState("a", upload.rpartition("/")[2], 0).pack(b"another secret")
    elsewhere = (await api.start_upload("b")).partition("_state=")[2]
    for text in (state, forged, elsewhere, "", "x", "%FF", "%00", "a" * 3000):
        for method in ("PATCH", "PUT"):
            response = await api.request_target(
                method, f"{upload}?_state={text}&digest={DIGEST}", body=WHOLE
            )
            if text == "%FF":
                assert response.status == 400
            else:
                assert (response.status, response.code) == (404, "BLOB_UPLOAD_INVALID"), text
    check_accepted(await api.request_target("GET", one), 0)
    await finish_upload(api, one, WHOLE, body=WHOLE)


@pytest_twisted.ensureDeferred
async def test_an_upload_of_another_repository_is_unknown(api):
    url = await api.start_upload()
    elsewhere = url.replace("/v2/a/", "/v2/b/")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        response = await api.request_target(
            method, with_query(elsewhere, digest=DIGEST), body=None if method == "GET" else b""
        )
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_UNKNOWN"), method
    check_accepted(await api.request_target("GET", url), 0)


@pytest_twisted.ensureDeferred
async def test_a_put_without_digest_is_refused(api):
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
    )
    for query in ("", "&digest="):
        response = await api.request_target("PUT", url + query, body=b"")
        assert (response.status, response.code) == (400, "DIGEST_INVALID")
    await finish_upload(api, url, ONE)


@pytest_twisted.ensureDeferred
async def test_a_put_with_a_malformed_digest_is_refused(api):
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
    )
    for digest in ("x", "sha256:", "sha256:ABC", f"md5:{'0' * 32}", f"sha256:{'0' * 63}"):
        response = await api.request_target("PUT", with_query(url, digest=digest), body=b"")
        assert (response.status, response.code) == (400, "DIGEST_INVALID"), digest
    await finish_upload(api, url, ONE)


@pytest.mark.parametrize("last", [b"", TWO])
@pytest_twisted.ensureDeferred
async def test_a_put_with_a_wrong_digest_is_refused(api, last):
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
    )
    response = await api.request_target("PUT", with_query(url, digest=DIGEST), body=last)
    assert (response.status, response.code) == (400, "DIGEST_INVALID")
    assert (await api.request_target("GET", url)).code == "BLOB_UPLOAD_UNKNOWN"
    for content in (ONE, ONE + TWO, WHOLE):
        assert (await api("GET", f"a/blobs/{digest_of(content)}")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_chunk_with_a_wrong_content_range_is_refused(api):
    url = await api.start_upload()
    for header in ("0-1", f"0-{len(ONE)}"):
        response = await api.request_target("PATCH", url, {"Content-Range": header}, ONE)
        assert (response.status, response.code) == (400, "SIZE_INVALID")
        check_accepted(await api.request_target("GET", url), 0)
    put = with_query(url, digest=digest_of(ONE))
    response = await api.request_target("PUT", put, {"Content-Range": "0-1"}, ONE)
    assert (response.status, response.code) == (400, "SIZE_INVALID")
    await finish_upload(api, url, ONE, body=ONE)


@pytest_twisted.ensureDeferred
async def test_a_chunked_patch_with_a_wrong_content_range_is_refused(api, setup):
    """If the length is known only after the chunk is stored, the response has the stored size."""
    url = await api.start_upload()
    response = await api.stream("PATCH", url, ONE, headers={"Content-Range": "0-1"})
    assert (response.status, response.code) == (400, "SIZE_INVALID")
    stored = ONE if setup.startswith("httpsite") else b""
    check_accepted(await api.request_target("GET", url), len(stored))
    assert response.get("Range") == f"0-{max(len(stored) - 1, 0)}"
    await finish_upload(api, response.get("Location"), stored + TWO, body=TWO)


@pytest_twisted.ensureDeferred
async def test_a_chunked_put_with_a_wrong_content_range_is_refused(api, setup):
    """If the length is known only after the end, the digest alone decides."""
    url = await api.start_upload()
    put = with_query(url, digest=digest_of(ONE))
    response = await api.stream("PUT", put, ONE, headers={"Content-Range": "0-1"})
    if setup.startswith("httpsite"):
        assert response.status == 201
        assert (await api("GET", f"a/blobs/{digest_of(ONE)}")).body == ONE
    else:
        assert (response.status, response.code) == (400, "SIZE_INVALID")
        assert (await api("GET", f"a/blobs/{digest_of(ONE)}")).status == 404
