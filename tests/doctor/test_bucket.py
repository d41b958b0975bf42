"""Rights in a bucket."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import fail

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.doctor.bucket import check_bucket_rights
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkewed,
    NoSuchBucket,
    Unreachable,
    WrongRegion,
)

PREFIX = "images/twisted-registry/doctor/1"


class Refusing(FakeBucket):
    """A bucket that refuses one operation."""

    refused = ""
    error = AccessDenied("PutObject b/key", "no", status=403)

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "refused"):
            return lambda *_, **__: fail(self.error)
        return object.__getattribute__(self, name)


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_where_everything_is_granted():
    bucket = Refusing()
    assert await check_bucket_rights("storage.s3", bucket, PREFIX) == []
    assert (await bucket.list_objects("")).objects == ()
    assert (await bucket.list_multipart_uploads("")).uploads == ()


@pytest.mark.parametrize(
    ("refused", "right"),
    [
        ("list_objects", "s3:ListBucket"),
        ("put_object", "s3:PutObject"),
        ("read_object", "s3:GetObject"),
        ("delete_object", "s3:DeleteObject"),
        ("create_multipart_upload", "s3:PutObject"),
        ("abort_multipart_upload", "s3:AbortMultipartUpload"),
        ("list_multipart_uploads", "s3:ListBucketMultipartUploads"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_right_that_is_missing_is_named(refused, right):
    bucket = Refusing()
    bucket.refused = refused
    found = await check_bucket_rights("storage.s3", bucket, PREFIX)
    assert found[0].advice == f"grant {right} on bucket/{PREFIX}/*"
    assert found[0].evidence == "PutObject b/key: no (403)"
    assert found[0].is_warning is (refused == "list_multipart_uploads")


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_down_is_not_a_missing_right():
    bucket = Refusing()
    bucket.refused, bucket.error = "list_objects", Unreachable("List b", "connection refused")
    (found,) = await check_bucket_rights("storage.s3", bucket, PREFIX)
    assert found.advice == "start the store, or correct its address"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (NoSuchBucket, "create the bucket, or correct storage.s3.bucket"),
        (WrongRegion, "correct storage.s3.region"),
        (ClockSkewed, "set the clock: timedatectl set-ntp true"),
        (BadCredentials, "correct storage.s3.accesskey and storage.s3.secretkey"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_option_is_not_a_missing_right(kind, advice):
    bucket = Refusing()
    bucket.refused, bucket.error = "list_objects", kind("List b", "no", status=404)
    (found,) = await check_bucket_rights("storage.s3", bucket, PREFIX)
    assert found.advice == advice


@pytest_twisted.ensureDeferred
async def test_a_read_only_registry_stores_nothing():
    bucket = Refusing()
    bucket.refused = "put_object"
    assert await check_bucket_rights("storage.s3", bucket, PREFIX, is_written=False) == []
