"""Uploads: end-4 to end-6, end-11, end-13 and end-14."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.api.setups import SETUPS, SITES
from tests.api.upload_checks import DIGEST, ONE, THREE, TWO, WHOLE, check_accepted, finish_upload
from tests.support.http_client import chunked, connect, head, parse, with_query
from tests.support.manifests import digest_of
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver

ON_FILES = tuple(name for name in SETUPS if name.endswith("files"))
HTTPSITE = tuple(name for name in SETUPS if name.startswith("httpsite"))


@pytest_twisted.ensureDeferred
async def test_an_upload_is_started(api):
    for path in ("a/blobs/uploads/", "a/blobs/uploads"):
        response = await api("POST", path, body=b"")
        url = check_accepted(response, 0)
        assert url.startswith(f"http://{api.host}/v2/a/blobs/uploads/")
        assert response.get("Content-Length") == "0"
        least = api.driver.min_chunk_bytes
        assert response.get("OCI-Chunk-Min-Length") == (str(least) if least else None)


@pytest_twisted.ensureDeferred
async def test_post_then_put(api):
    """The two requests of most clients (end-4a, end-6)."""
    await finish_upload(api, await api.start_upload(), WHOLE, body=WHOLE)


@pytest_twisted.ensureDeferred
async def test_a_chunked_put_finishes_an_upload(api):
    url = with_query(await api.start_upload(), digest=DIGEST)
    response = await api.stream("PUT", url, ONE, TWO, THREE)
    assert response.status == 201
    assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_a_chunked_patch_then_an_empty_put(api):
    """Docker sends one PATCH of unknown length, then a PUT without a body."""
    response = await api.stream("PATCH", await api.start_upload(), ONE, TWO, THREE)
    url = check_accepted(response, len(WHOLE))
    await finish_upload(api, url, WHOLE)


@pytest_twisted.ensureDeferred
async def test_patches_without_content_range_append(api):
    url = await api.start_upload()
    size = 0
    for chunk in (ONE, TWO, THREE):
        size += len(chunk)
        url = check_accepted(await api.request_target("PATCH", url, body=chunk), size)
        assert check_accepted(await api.request_target("GET", url), size)
        assert check_accepted(await api.request_target("HEAD", url), size)
    await finish_upload(api, url, WHOLE, body=b"")


@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*"])
@pytest_twisted.ensureDeferred
async def test_chunks_with_content_range(api, form):
    url = await api.start_upload()
    size = 0
    for chunk in (ONE, TWO):
        header = form.format(size, size + len(chunk) - 1)
        size += len(chunk)
        url = check_accepted(
            await api.request_target("PATCH", url, {"Content-Range": header}, chunk), size
        )
    header = form.format(size, size + len(THREE) - 1)
    await finish_upload(api, url, WHOLE, body=THREE, **{"Content-Range": header})


@pytest_twisted.ensureDeferred
async def test_a_chunked_body_with_content_range(api):
    url = await api.start_upload()
    headers = {"Content-Range": f"0-{len(WHOLE) - 1}"}
    url = check_accepted(
        await api.stream("PATCH", url, ONE, TWO, THREE, headers=headers), len(WHOLE)
    )
    await finish_upload(api, url, WHOLE)


@pytest_twisted.ensureDeferred
async def test_an_empty_blob_is_uploaded(api):
    await finish_upload(api, await api.start_upload(), b"")
    await finish_upload(api, await api.start_upload(), b"", body=b"")
    url = check_accepted(await api.request_target("PATCH", await api.start_upload(), body=b""), 0)
    await finish_upload(api, url, b"")


@pytest_twisted.ensureDeferred
async def test_a_large_blob_is_uploaded(api):
    content = os.urandom(5 * 1024 * 1024 + 1)
    half = len(content) // 2
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=content[:half]), half
    )
    await finish_upload(api, url, content, body=content[half:])


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest_twisted.ensureDeferred
async def test_uploads_of_every_algorithm(api, algorithm):
    url = await api.start_upload(query=f"?digest-algorithm={algorithm}")
    assert ("digest-algorithm" in url) == (algorithm != "sha256")
    url = check_accepted(await api.request_target("PATCH", url, body=ONE), len(ONE))
    await finish_upload(api, url, ONE + TWO, digest_of(ONE + TWO, algorithm), TWO)


@pytest_twisted.ensureDeferred
async def test_an_algorithm_that_was_not_declared_at_the_start(api):
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
    )
    await finish_upload(api, url, ONE, digest_of(ONE, "sha512"))


@pytest_twisted.ensureDeferred
async def test_a_post_with_digest_stores_a_blob(api):
    for algorithm in ("sha256", "sha512"):
        digest = digest_of(WHOLE, algorithm)
        response = await api("POST", f"a/blobs/uploads/?digest={digest}", body=WHOLE)
        assert (response.status, response.body) == (201, b"")
        assert response.get("Docker-Content-Digest") == digest
        assert response.get("Location") == f"http://{api.host}/v2/a/blobs/{digest}"
        assert (await api("GET", f"a/blobs/{digest}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_a_chunked_post_stores_a_blob(api):
    response = await api.stream("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", ONE, TWO, THREE)
    assert response.status == 201
    assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_a_post_with_a_wrong_digest_is_refused(api):
    response = await api("POST", f"a/blobs/uploads/?digest={DIGEST}", body=ONE)
    assert (response.status, response.code) == (400, "DIGEST_INVALID")
    for content in (ONE, WHOLE):
        assert (await api("GET", f"a/blobs/{digest_of(content)}")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_post_of_an_empty_blob(api):
    nothing = digest_of(b"")
    response = await api("POST", f"a/blobs/uploads/?digest={nothing}", body=b"")
    assert response.status == 201
    assert (await api("GET", f"a/blobs/{nothing}")).status == 200
    # A digest without a body: the client sends the content later.
    response = await api("POST", f"a/blobs/uploads/?digest={DIGEST}", body=b"")
    await finish_upload(api, check_accepted(response, 0), WHOLE, body=WHOLE)


@pytest_twisted.ensureDeferred
async def test_a_blob_is_mounted_from_a_repository(api):
    await api.push_blob(WHOLE, "from/there")
    response = await api("POST", f"a/blobs/uploads/?mount={DIGEST}&from=from%2Fthere", body=b"")
    assert (response.status, response.body) == (201, b"")
    assert response.get("Location") == f"http://{api.host}/v2/a/blobs/{DIGEST}"
    assert response.get("Docker-Content-Digest") == DIGEST
    assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_a_blob_is_mounted_from_any_repository(api):
    await api.push_blob(WHOLE, "there")
    for query in (f"mount={DIGEST}", f"mount={DIGEST}&from="):
        response = await api("POST", f"a/blobs/uploads/?{query}", body=b"")
        assert response.status == 201
        assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE
        await api("DELETE", f"a/blobs/{DIGEST}")


@pytest_twisted.ensureDeferred
async def test_an_impossible_mount_starts_an_upload(api):
    await api.push_blob(ONE, "there")
    for query in (
        f"mount={DIGEST}&from=there",
        f"mount={DIGEST}&from=nobody",
        f"mount={DIGEST}",
        f"mount={digest_of(ONE)}&from=nobody",
        "from=there",
    ):
        url = check_accepted(await api("POST", f"a/blobs/uploads/?{query}", body=b""), 0)
        await finish_upload(api, url, TWO, body=TWO)
    assert (await api("GET", f"a/blobs/{digest_of(ONE)}")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_cancelled_upload_is_unknown(api):
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
    )
    response = await api.request_target("DELETE", url)
    assert (response.status, response.body) == (204, b"")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        target = with_query(url, digest=DIGEST) if method == "PUT" else url
        response = await api.request_target(
            method, target, body=b"" if method in {"PATCH", "PUT"} else None
        )
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_UNKNOWN"), method


@pytest.mark.setups(*HTTPSITE)
@pytest.mark.parametrize("secret", [None, b"configured"])
@pytest_twisted.ensureDeferred
async def test_an_upload_continues_after_a_restart(setup, start, tmp_path, secret):
    """Another process serves the same store, with and without a configured secret."""
    path = str(tmp_path / "shared")

    def again(driver):
        return FilesystemDriver(path, reactor) if "files" in setup else driver

    driver = FilesystemDriver(path, reactor) if "files" in setup else MemoryDriver(reactor)
    async with start(driver=driver, secret=secret) as api:
        url = check_accepted(
            await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
        )
        idle = await api.start_upload()
    async with start(driver=again(driver), secret=secret) as api:
        url, idle = (f"http://{api.host}/" + location.split("/", 3)[3] for location in (url, idle))
        url = check_accepted(await api.request_target("PATCH", url, body=TWO), len(ONE + TWO))
        await finish_upload(api, url, ONE + TWO)
        await finish_upload(api, idle, THREE, body=THREE)
        assert isinstance(api.served.registry, Registry)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_state_with_an_old_secret_is_refused(start, clock):
    driver = MemoryDriver(clock)
    async with start(driver=driver, secret=b"one") as api:
        url = await api.start_upload()
    async with start(driver=driver, secret=b"two") as api:
        url = f"http://{api.host}/" + url.split("/", 3)[3]
        response = await api.request_target("PATCH", url, body=ONE)
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_INVALID")
        response = await api.request_target("GET", url)
        await finish_upload(api, check_accepted(response, 0), ONE, body=ONE)


@pytest.mark.setups(*HTTPSITE)
@pytest_twisted.ensureDeferred
async def test_of_two_concurrent_writers_one_is_refused(api):
    url = await api.start_upload()
    slow = await connect(api.served.port)
    headers = {"Transfer-Encoding": "chunked", "Expect": "100-continue"}
    slow.send(head("PATCH", url, headers, host=api.host))
    # 100 Continue is sent once the writer is open.
    await slow.until(lambda received: b"100 Continue" in received)
    response = await api.request_target("PATCH", url, body=b"abc")
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    put = with_query(url.partition("?")[0], digest=digest_of(TWO))
    response = await api.request_target("PUT", put, body=TWO)
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    assert response.get("Location") is not None
    slow.send(chunked(ONE))
    await slow.closed
    url = check_accepted(parse(slow.received, "PATCH"), len(ONE))
    await finish_upload(api, url, ONE)


@pytest.mark.setups(*HTTPSITE)
@pytest_twisted.ensureDeferred
async def test_an_upload_is_cancelled_during_a_patch(api):
    url = await api.start_upload()
    slow = await connect(api.served.port)
    slow.send(
        head("PATCH", url, {"Transfer-Encoding": "chunked"}, host=api.host)
        + b"%x\r\n%b\r\n" % (len(ONE), ONE)
    )
    while (await api.request_target("GET", url)).get("Range") == "0-0":
        pass
    assert (await api.request_target("DELETE", url)).status == 204
    slow.send(b"0\r\n\r\n")
    await slow.closed
    assert slow.received.splitlines()[0].split()[1] in {b"202", b"404"}
    assert (await api.request_target("GET", url)).code == "BLOB_UPLOAD_UNKNOWN"


class Large(MemoryDriver):
    """A store with a minimum chunk size, as S3 has."""

    min_chunk_bytes = 5 * 1024 * 1024


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_the_minimum_chunk_size_of_the_store_is_announced(start, clock):
    driver = Large(clock)
    driver.min_chunk_bytes = 5 * 1024 * 1024
    async with start(driver=driver) as api:
        response = await api("POST", "a/blobs/uploads/", body=b"")
        assert response.get("OCI-Chunk-Min-Length") == str(5 * 1024 * 1024)
        await finish_upload(api, response.get("Location"), ONE, body=ONE)


@pytest.mark.setups(*ON_FILES)
@pytest_twisted.ensureDeferred
async def test_finished_uploads_leave_no_files(api, tmp_path):
    url = check_accepted(
        await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
    )
    await finish_upload(api, url, ONE)
    await api("POST", f"a/blobs/uploads/?digest={DIGEST}", body=ONE)
    url = await api.start_upload()
    await api.request_target("PUT", with_query(url, digest=DIGEST), body=ONE)
    await api.request_target("DELETE", await api.start_upload())
    uploads = tmp_path / "store/docker/registry/v2/repositories/a/_uploads"
    assert not uploads.exists() or not list(uploads.iterdir())


@pytest_twisted.ensureDeferred
async def test_the_same_blob_is_pushed_concurrently(api):
    urls = [await api.start_upload() for _ in range(3)]
    for url in urls:
        await api.request_target("PATCH", url, body=WHOLE)
    for url in urls:
        await finish_upload(api, url.partition("?")[0], WHOLE)
