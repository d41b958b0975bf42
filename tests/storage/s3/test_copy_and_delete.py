"""Copies inside the store, deletion of many objects, and conditional writes."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.storage.interfaces import MethodUnsupported, StorageError
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import S3Error
from twisted_registry.storage.s3.files import CopyOptions, gather_limited
from twisted_registry.testing.stream_contract import error_of

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (18 * 4096) + b"!"


@pytest.fixture
def bucket():
    bucket = FakeBucket()
    bucket.store("source", CONTENT)
    return bucket


@pytest_twisted.async_yield_fixture
async def driver(bucket):
    rules = CopyOptions(10 * MIB, 5 * MIB, max_concurrent_parts=2)
    driver = S3Driver(bucket, reactor, "", 5 * MIB, rules)
    yield driver
    await driver.close()


@pytest_twisted.ensureDeferred
async def test_large_object_is_copied_in_concurrent_parts(bucket, driver):
    held = []

    def hold(key):
        held.append(Deferred())
        return held[-1]

    bucket.hooks["upload_part_copy"] = hold
    copying = driver.copy("source", "copy")
    assert len(held) == 2
    while not copying.called:
        held.pop(0).callback(None)
    await copying
    assert bucket.count("upload_part_copy") == 4
    assert bucket.objects["copy"].content == CONTENT
    assert bucket.uploads == {}
    bucket.hooks.clear()
    await driver.move("copy", "moved")
    assert bucket.objects.keys() == {"source", "moved"}


@pytest.mark.parametrize("operation", ["upload_part_copy", "complete_multipart_upload"])
@pytest_twisted.ensureDeferred
async def test_failed_copy_leaves_no_object_and_no_upload(bucket, driver, operation):
    bucket.hooks[operation] = lambda key: S3Error(operation, "no", status=500)
    assert isinstance(await error_of(driver.move("source", "copy")), StorageError)
    assert bucket.objects.keys() == {"source"}
    assert bucket.uploads == {}
    assert bucket.count(operation) in {1, 2}


@pytest_twisted.ensureDeferred
async def test_failed_copy_that_cannot_be_aborted_raises_its_error(bucket, driver):
    bucket.hooks["upload_part_copy"] = lambda key: S3Error("UploadPartCopy", "no", status=500)
    bucket.hooks["abort_multipart_upload"] = lambda key: S3Error("Abort", "neither", status=500)
    assert "no" in str(await error_of(driver.copy("source", "copy")))
    assert len(bucket.uploads) == 1


@pytest_twisted.ensureDeferred
async def test_copy_fails_if_the_source_changes(bucket, driver):
    bucket.hooks["upload_part_copy"] = lambda key: bucket.store("source", CONTENT[::-1]) and None
    assert "was changed while" in str(await error_of(driver.copy("source", "copy")))
    assert "copy" not in bucket.objects


@pytest_twisted.ensureDeferred
async def test_objects_that_cannot_be_deleted_are_reported(bucket, driver):
    for number in range(3):
        bucket.store(f"x/{number}", b"")
    bucket.undeletable = {"x/0", "x/1"}
    for deleting in (driver.delete("x"), driver.delete_many(["x/0", "x/1"])):
        assert "AccessDenied no and 1 more" in str(await error_of(deleting))
    bucket.undeletable = {"x/0"}
    assert str(await error_of(driver.delete("x"))).endswith("not deleted: AccessDenied no")
    assert bucket.objects.keys() == {"source", "x/0"}


@pytest_twisted.ensureDeferred
async def test_failed_probe_of_conditional_writes_is_repeated(bucket, driver):
    bucket.hooks["put_object"] = lambda key: S3Error("PutObject", "busy", status=500)
    one, two = driver.create("a", b""), driver.create("b", b"")
    for creating in (one, two):
        assert "busy" in str(await error_of(creating))
    bucket.hooks.clear()
    await driver.create("a", b"1")
    assert sorted(bucket.objects) == ["a", "source"]


@pytest_twisted.ensureDeferred
async def test_presigned_urls_are_for_get_and_head(driver):
    assert await driver.presign("a", "HEAD", 5) == "https://store/a?HEAD&5"
    assert isinstance(await error_of(driver.presign("a", "PUT", 5)), MethodUnsupported)


@pytest_twisted.ensureDeferred
async def test_gather_limited_starts_no_call_after_an_error():
    started = []

    def call(number):
        started.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        await gather_limited(1, [lambda number=number: call(number) for number in range(3)])
    assert started == [0]
