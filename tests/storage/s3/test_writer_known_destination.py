"""Files whose later name is known from the start."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.storage.s3.test_concurrent_registries import Body, digest_of
from tests.storage.s3.upload_helpers import CHUNK, noise
from twisted_registry.oci.digest import Digest
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.s3.errors import NoSuchUpload, S3Error, SlowDown
from twisted_registry.testing.stream_contract import error_of


@pytest_twisted.ensureDeferred
async def test_known_destination_needs_no_copy(bucket, driver):
    for size, requests in (
        (5, ["put_object"]),
        (
            3 * CHUNK - 7,
            ["create_multipart_upload", *["upload_part"] * 3, "complete_multipart_upload"],
        ),
    ):
        bucket.asked.clear()
        writer = await driver.writer("up/data", 0, destination="blob")
        content = noise(size)
        for start in range(0, size, CHUNK):
            writer.write(content[start : start + CHUNK])
            await deferLater(reactor, 0)
        assert await writer.commit() == size
        assert isinstance(await error_of(driver.move("up/data", "elsewhere")), StorageError)
        await driver.move("up/data", "blob")
        await writer.close()
        assert [name for name, _ in bucket.asked] == ["head_object", *requests]
        assert bucket.objects["root/blob"].content == content


@pytest_twisted.ensureDeferred
async def test_blob_in_one_request_is_sent_with_its_digest_which_is_not_computed_again(
    bucket, driver
):
    content = noise(1000)
    digest = digest_of(content)
    uploads = Registry(driver, reactor).repository("a").uploads
    assert await uploads.store_blob(digest, Body(content)) == len(content)
    (key,) = [key for key in bucket.objects if "/blobs/" in key]
    assert bucket.digests[key] == digest.hex
    sha512 = Digest.parse("sha512:" + hashlib.sha512(content).hexdigest())
    await uploads.store_blob(sha512, Body(content))
    assert [bucket.digests[key] for key in bucket.objects if "/sha512/" in key] == ["", ""]


@pytest_twisted.ensureDeferred
async def test_failed_part_leaves_no_object_and_no_upload(bucket, driver):
    bucket.hooks["upload_part"] = lambda key: SlowDown("UploadPart", "slow down", status=503)
    writer = await driver.writer("up/data", 0, destination="blob")
    writer.write(noise(CHUNK))
    assert isinstance(await error_of(writer.commit()), StorageError)
    await writer.close()
    assert bucket.objects == {}
    assert bucket.uploads == {}


@pytest.mark.parametrize("size", [5, CHUNK])
@pytest_twisted.ensureDeferred
async def test_failed_observer_leaves_nothing_in_store_and_memory(bucket, driver, size):
    def observe(data):
        raise RuntimeError("no")

    writer = await driver.writer("up/data", 0, observe, destination="blob")
    writer.write(noise(size))
    assert "no" in str(await error_of(writer.commit()))
    assert await writer.close() == 0
    assert driver.memory.used == 0
    assert (bucket.objects, bucket.uploads) == ({}, {})


@pytest_twisted.ensureDeferred
async def test_upload_that_was_not_aborted_is_removed_as_leftover(bucket, driver):
    bucket.hooks["abort_multipart_upload"] = lambda key: S3Error("Abort", "no", status=500)
    writer = await driver.writer("up/data", 0, destination="blob")
    writer.write(noise(CHUNK))
    await writer.cancel()
    assert len(bucket.uploads) == 1
    bucket.hooks.clear()
    bucket.page = 1
    bucket.now = 10**9
    other = await driver.client.create_multipart_upload("root/other")
    foreign = await driver.client.create_multipart_upload("somebody/else")
    bucket.uploads[foreign].initiated = 0
    assert await driver.remove_leftovers(1.0) == 1
    assert bucket.uploads.keys() == {other, foreign}
    assert await driver.remove_leftovers(1.5) == 1
    assert bucket.uploads.keys() == {foreign}


@pytest_twisted.ensureDeferred
async def test_upload_with_recent_parts_is_no_leftover(bucket, driver):
    upload = await driver.client.create_multipart_upload("root/data")
    bucket.now = 5 * 10**9
    await driver.client.upload_part("root/data", upload, 1, noise(CHUNK))
    assert await driver.remove_leftovers(4.0, dry_run=True) == 0
    assert await driver.remove_leftovers(4.0) == 0
    assert bucket.uploads.keys() == {upload}
    bucket.hooks["list_parts"] = lambda key: NoSuchUpload("ListParts", "it is over", status=404)
    assert await driver.remove_leftovers(6.0) == 0
    bucket.hooks.clear()
    assert await driver.remove_leftovers(6.0) == 1
    assert bucket.uploads == {}
