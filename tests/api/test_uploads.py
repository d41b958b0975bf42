"""Uploads: end-4 to end-6, end-11, end-13 and end-14."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.api.setups import FLAVOURS, SITES
from tests.api.upload_checks import DIGEST, ONE, THREE, TWO, WHOLE, accepted, closed
from tests.support.http_client import chunked, connect, head, parse, with_query
from tests.support.manifests import digest_of
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver

ON_FILES = tuple(name for name in FLAVOURS if name.endswith("files"))
OURS = tuple(name for name in FLAVOURS if name.startswith("ours"))


@pytest_twisted.ensureDeferred
async def test_begin(api):
    for path in ("a/blobs/uploads/", "a/blobs/uploads"):
        response = await api("POST", path, body=b"")
        url = accepted(response, 0)
        assert url.startswith(f"http://{api.host}/v2/a/blobs/uploads/")
        assert response.get("Content-Length") == "0"
        least = api.driver.min_chunk_bytes
        assert response.get("OCI-Chunk-Min-Length") == (str(least) if least else None)


@pytest_twisted.ensureDeferred
async def test_post_then_put(api):
    """The two requests of most clients (end-4a, end-6)."""
    await closed(api, await api.start_upload(), WHOLE, body=WHOLE)


@pytest_twisted.ensureDeferred
async def test_streamed_put(api):
    url = with_query(await api.start_upload(), digest=DIGEST)
    response = await api.stream("PUT", url, ONE, TWO, THREE)
    assert response.status == 201
    assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_streamed_patch_then_put(api):
    """What docker does: one PATCH of unknown length, then a PUT without a body."""
    response = await api.stream("PATCH", await api.start_upload(), ONE, TWO, THREE)
    url = accepted(response, len(WHOLE))
    await closed(api, url, WHOLE)


@pytest_twisted.ensureDeferred
async def test_patches_without_ranges(api):
    url = await api.start_upload()
    size = 0
    for chunk in (ONE, TWO, THREE):
        size += len(chunk)
        url = accepted(await api.request_target("PATCH", url, body=chunk), size)
        assert accepted(await api.request_target("GET", url), size)
        assert accepted(await api.request_target("HEAD", url), size)
    await closed(api, url, WHOLE, body=b"")


@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*"])
@pytest_twisted.ensureDeferred
async def test_chunks(api, form):
    url = await api.start_upload()
    size = 0
    for chunk in (ONE, TWO):
        header = form.format(size, size + len(chunk) - 1)
        size += len(chunk)
        url = accepted(
            await api.request_target("PATCH", url, {"Content-Range": header}, chunk), size
        )
    header = form.format(size, size + len(THREE) - 1)
    await closed(api, url, WHOLE, body=THREE, **{"Content-Range": header})


@pytest_twisted.ensureDeferred
async def test_a_streamed_chunk(api):
    url = await api.start_upload()
    headers = {"Content-Range": f"0-{len(WHOLE) - 1}"}
    url = accepted(await api.stream("PATCH", url, ONE, TWO, THREE, headers=headers), len(WHOLE))
    await closed(api, url, WHOLE)


@pytest_twisted.ensureDeferred
async def test_nothing(api):
    await closed(api, await api.start_upload(), b"")
    await closed(api, await api.start_upload(), b"", body=b"")
    url = accepted(await api.request_target("PATCH", await api.start_upload(), body=b""), 0)
    await closed(api, url, b"")


@pytest_twisted.ensureDeferred
async def test_large(api):
    content = os.urandom(5 * 1024 * 1024 + 1)
    half = len(content) // 2
    url = accepted(
        await api.request_target("PATCH", await api.start_upload(), body=content[:half]), half
    )
    await closed(api, url, content, body=content[half:])


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest_twisted.ensureDeferred
async def test_algorithms(api, algorithm):
    url = await api.start_upload(query=f"?digest-algorithm={algorithm}")
    assert ("digest-algorithm" in url) == (algorithm != "sha256")
    url = accepted(await api.request_target("PATCH", url, body=ONE), len(ONE))
    await closed(api, url, ONE + TWO, digest_of(ONE + TWO, algorithm), TWO)


@pytest_twisted.ensureDeferred
async def test_an_algorithm_that_was_not_said_beforehand(api):
    url = accepted(await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE))
    await closed(api, url, ONE, digest_of(ONE, "sha512"))


@pytest_twisted.ensureDeferred
async def test_a_single_post(api):
    for algorithm in ("sha256", "sha512"):
        digest = digest_of(WHOLE, algorithm)
        response = await api("POST", f"a/blobs/uploads/?digest={digest}", body=WHOLE)
        assert (response.status, response.body) == (201, b"")
        assert response.get("Docker-Content-Digest") == digest
        assert response.get("Location") == f"http://{api.host}/v2/a/blobs/{digest}"
        assert (await api("GET", f"a/blobs/{digest}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_a_single_post_of_unknown_length(api):
    response = await api.stream("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", ONE, TWO, THREE)
    assert response.status == 201
    assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_a_single_post_of_other_bytes(api):
    response = await api("POST", f"a/blobs/uploads/?digest={DIGEST}", body=ONE)
    assert (response.status, response.code) == (400, "DIGEST_INVALID")
    for content in (ONE, WHOLE):
        assert (await api("GET", f"a/blobs/{digest_of(content)}")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_single_post_of_nothing(api):
    nothing = digest_of(b"")
    response = await api("POST", f"a/blobs/uploads/?digest={nothing}", body=b"")
    assert response.status == 201
    assert (await api("GET", f"a/blobs/{nothing}")).status == 200
    # A digest without its bytes: the client wants to send them later.
    response = await api("POST", f"a/blobs/uploads/?digest={DIGEST}", body=b"")
    await closed(api, accepted(response, 0), WHOLE, body=WHOLE)


@pytest_twisted.ensureDeferred
async def test_mount(api):
    await api.push_blob(WHOLE, "from/there")
    response = await api("POST", f"a/blobs/uploads/?mount={DIGEST}&from=from%2Fthere", body=b"")
    assert (response.status, response.body) == (201, b"")
    assert response.get("Location") == f"http://{api.host}/v2/a/blobs/{DIGEST}"
    assert response.get("Docker-Content-Digest") == DIGEST
    assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE


@pytest_twisted.ensureDeferred
async def test_mount_from_anywhere(api):
    await api.push_blob(WHOLE, "there")
    for query in (f"mount={DIGEST}", f"mount={DIGEST}&from="):
        response = await api("POST", f"a/blobs/uploads/?{query}", body=b"")
        assert response.status == 201
        assert (await api("GET", f"a/blobs/{DIGEST}")).body == WHOLE
        await api("DELETE", f"a/blobs/{DIGEST}")


@pytest_twisted.ensureDeferred
async def test_a_mount_that_is_not_possible_begins_an_upload(api):
    await api.push_blob(ONE, "there")
    for query in (
        f"mount={DIGEST}&from=there",
        f"mount={DIGEST}&from=nobody",
        f"mount={DIGEST}",
        f"mount={digest_of(ONE)}&from=nobody",
        "from=there",
    ):
        url = accepted(await api("POST", f"a/blobs/uploads/?{query}", body=b""), 0)
        await closed(api, url, TWO, body=TWO)
    assert (await api("GET", f"a/blobs/{digest_of(ONE)}")).status == 404


@pytest_twisted.ensureDeferred
async def test_cancel(api):
    url = accepted(await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE))
    response = await api.request_target("DELETE", url)
    assert (response.status, response.body) == (204, b"")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        target = with_query(url, digest=DIGEST) if method == "PUT" else url
        response = await api.request_target(
            method, target, body=b"" if method in {"PATCH", "PUT"} else None
        )
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_UNKNOWN"), method


@pytest.mark.flavours(*OURS)
@pytest.mark.parametrize("secret", [None, b"configured"])
@pytest_twisted.ensureDeferred
async def test_after_a_restart(flavour, start, tmp_path, secret):
    """Another process serves the same store, with and without a configured secret."""
    path = str(tmp_path / "shared")

    def again(driver):
        return FilesystemDriver(path, reactor) if "files" in flavour else driver

    driver = FilesystemDriver(path, reactor) if "files" in flavour else MemoryDriver(reactor)
    async with start(driver=driver, secret=secret) as api:
        url = accepted(
            await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE)
        )
        idle = await api.start_upload()
    async with start(driver=again(driver), secret=secret) as api:
        url, idle = (f"http://{api.host}/" + location.split("/", 3)[3] for location in (url, idle))
        url = accepted(await api.request_target("PATCH", url, body=TWO), len(ONE + TWO))
        await closed(api, url, ONE + TWO)
        await closed(api, idle, THREE, body=THREE)
        assert isinstance(api.served.registry, Registry)


@pytest.mark.flavours(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_changed_secret_refuses_old_states(start, clock):
    driver = MemoryDriver(clock)
    async with start(driver=driver, secret=b"one") as api:
        url = await api.start_upload()
    async with start(driver=driver, secret=b"two") as api:
        url = f"http://{api.host}/" + url.split("/", 3)[3]
        response = await api.request_target("PATCH", url, body=ONE)
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_INVALID")
        response = await api.request_target("GET", url)
        await closed(api, accepted(response, 0), ONE, body=ONE)


@pytest.mark.flavours(*OURS)
@pytest_twisted.ensureDeferred
async def test_two_writers_at_once(api):
    url = await api.start_upload()
    slow = await connect(api.served.port)
    headers = {"Transfer-Encoding": "chunked", "Expect": "100-continue"}
    slow.send(head("PATCH", url, headers, host=api.host))
    # The body is asked for when the writer is there.
    await slow.until(lambda received: b"100 Continue" in received)
    response = await api.request_target("PATCH", url, body=b"abc")
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    put = with_query(url.partition("?")[0], digest=digest_of(TWO))
    response = await api.request_target("PUT", put, body=TWO)
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    assert response.get("Location") is not None
    slow.send(chunked(ONE))
    await slow.closed
    url = accepted(parse(slow.received, "PATCH"), len(ONE))
    await closed(api, url, ONE)


@pytest.mark.flavours(*OURS)
@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_cancelled_while_it_grows(api):
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
    """A store that wants large chunks, as S3 does."""

    min_chunk_bytes = 5 * 1024 * 1024


@pytest.mark.flavours(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_store_that_wants_large_chunks(start, clock):
    driver = Large(clock)
    driver.min_chunk_bytes = 5 * 1024 * 1024
    async with start(driver=driver) as api:
        response = await api("POST", "a/blobs/uploads/", body=b"")
        assert response.get("OCI-Chunk-Min-Length") == str(5 * 1024 * 1024)
        await closed(api, response.get("Location"), ONE, body=ONE)


@pytest.mark.flavours(*ON_FILES)
@pytest_twisted.ensureDeferred
async def test_nothing_stays_behind(api, tmp_path):
    url = accepted(await api.request_target("PATCH", await api.start_upload(), body=ONE), len(ONE))
    await closed(api, url, ONE)
    await api("POST", f"a/blobs/uploads/?digest={DIGEST}", body=ONE)
    url = await api.start_upload()
    await api.request_target("PUT", with_query(url, digest=DIGEST), body=ONE)
    await api.request_target("DELETE", await api.start_upload())
    uploads = tmp_path / "store/docker/registry/v2/repositories/a/_uploads"
    assert not uploads.exists() or not list(uploads.iterdir())


@pytest_twisted.ensureDeferred
async def test_the_same_blob_twice_at_once(api):
    urls = [await api.start_upload() for _ in range(3)]
    for url in urls:
        await api.request_target("PATCH", url, body=WHOLE)
    for url in urls:
        await closed(api, url.partition("?")[0], WHOLE)
