"""The operations of the client on real stores; object options on moto."""

from __future__ import annotations

import hashlib
import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet.defer import succeed
from twisted.internet.threads import deferToThread

from tests.support.s3_stores import make_client
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.errors import (
    BadCredentials,
    InvalidPart,
    NoSuchBucket,
    NoSuchUpload,
    NotFound,
    PreconditionFailed,
    RangeUnsatisfiable,
    S3Error,
    Unsupported,
)
from twisted_registry.storage.s3.interfaces import ObjectOptions, Operation, Part

MIN_PART_BYTES = 5 * 1024 * 1024
STRANGE = "a b+c%2F/ü~/d&<e>=z;w,@:$!*()'\""


@pytest_twisted.async_yield_fixture
async def client(store):
    client = make_client(store)
    yield client
    await client.close()


@pytest.fixture
def root():
    """The key prefix of one test."""
    return f"{uuid4().hex}/"


async def read(client, *arguments):
    return await (await client.get_object(*arguments)).collect(2 * MIN_PART_BYTES)


@pytest_twisted.ensureDeferred
async def test_operations_on_objects(client, root):
    key = root + STRANGE
    etag = await client.put_object(key, [b"hel", b"lo"], metadata="noted")
    info = await client.head_object(key)
    assert (info.key, info.size, info.etag, info.metadata) == (key, 5, etag, "noted")
    assert info.modified is not None
    assert await client.read_object(key, 5) == (info, b"hello")
    assert await read(client, key) == b"hello"
    assert await read(client, key, 1, 3) == b"ell"
    assert await read(client, key, 3, 100) == b"lo"
    assert await read(client, key, 4) == b"o"
    assert await read(client, key, 0, None, etag) == b"hello"
    with pytest.raises(RangeUnsatisfiable):
        await client.get_object(key, 5)
    with pytest.raises(PreconditionFailed):
        await client.get_object(key, etag="other")
    assert await client.copy_object(key, f"{root}copy") == etag
    assert (await client.head_object(f"{root}copy")).metadata == "noted"
    await client.delete_object(key)
    await client.delete_object(key)
    for operation in (client.head_object, client.get_object):
        with pytest.raises(NotFound):
            await operation(key)
    with pytest.raises(NotFound):
        await client.copy_object(key, f"{root}copy")


@pytest_twisted.ensureDeferred
async def test_empty_object(client, root):
    await client.put_object(f"{root}empty", b"")
    assert (await client.head_object(f"{root}empty")).size == 0
    assert await read(client, f"{root}empty") == b""
    assert (await client.read_object(f"{root}empty", 0))[1] == b""


@pytest_twisted.ensureDeferred
async def test_put_object_if_none_match(client, root):
    key = f"{root}once"
    try:
        await client.put_object(key, b"one", if_none_match=True)
    except Unsupported:
        return
    with pytest.raises(PreconditionFailed):
        await client.put_object(key, b"two", if_none_match=True)
    assert await read(client, key) == b"one"


@pytest_twisted.ensureDeferred
async def test_content_with_another_digest_is_refused(client, root):
    content = os.urandom(1_000_000)
    await client.put_object(f"{root}a", content, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(S3Error):
        await client.put_object(f"{root}b", content, sha256=hashlib.sha256(b"x").hexdigest())
    with pytest.raises(NotFound):
        await client.head_object(f"{root}b")


@pytest_twisted.ensureDeferred
async def test_listings(client, root):
    names = ["a-b", "a.b", "a/1", "a/2", STRANGE]
    for name in names:
        await client.put_object(root + name, b"x")
    in_order = sorted((root + name for name in names), key=str.encode)
    found = await client.list_objects(root)
    assert [each.key for each in found.objects] == in_order
    assert {each.size for each in found.objects} == {1}
    assert found.token == ""

    pages, token = [], ""
    while True:
        page = await client.list_objects(root, limit=2, token=token)
        pages += page.objects
        token = page.token
        if not token:
            break
    assert [each.key for each in pages] == in_order

    folded = await client.list_objects(root, delimiter="/")
    assert [each.key for each in folded.objects] == [f"{root}a-b", f"{root}a.b"]
    assert sorted(folded.prefixes) == [f"{root}{STRANGE.partition('/')[0]}/", f"{root}a/"]
    after = await client.list_objects(root, after=f"{root}a.b")
    assert [each.key for each in after.objects] == [f"{root}a/1", f"{root}a/2"]

    assert await client.delete_objects([*in_order, f"{root}none"]) == []
    assert (await client.list_objects(root)).objects == ()


@pytest_twisted.ensureDeferred
async def test_operations_on_uploads(client, root):
    key, head, tail = f"{root}{STRANGE}", os.urandom(MIN_PART_BYTES), b"tail"
    upload = await client.create_multipart_upload(key)
    assert await client.list_parts(key, upload) == []
    first = await client.upload_part(key, upload, 1, [head[:10], head[10:]])
    await client.upload_part(key, upload, 2, b"replaced")
    second = await client.upload_part(key, upload, 2, tail)
    assert await client.list_parts(key, upload) == [first, second]
    listing = await client.list_multipart_uploads(root)
    assert [(each.key, each.upload_id) for each in listing.uploads] == [(key, upload)]
    assert listing.uploads[0].initiated is not None
    with pytest.raises(InvalidPart):
        await client.complete_multipart_upload(key, upload, [first, Part(2, "0" * 32, 4)])
    etag = await client.complete_multipart_upload(key, upload, [first, second])
    info = await client.head_object(key)
    assert (info.size, info.etag) == (MIN_PART_BYTES + 4, etag)
    assert etag.endswith("-2")
    assert await read(client, key) == head + tail
    assert (await client.list_multipart_uploads(root)).uploads == ()

    # Ceph finds a source with such a name for CopyObject, and not for this.
    plain = f"{root}plain"
    await client.copy_object(key, plain)
    upload = await client.create_multipart_upload(f"{root}copied")
    await client.upload_part_copy(f"{root}copied", upload, 1, plain, (0, MIN_PART_BYTES))
    await client.upload_part_copy(f"{root}copied", upload, 2, plain, (MIN_PART_BYTES, 3))
    parts = await client.list_parts(f"{root}copied", upload)
    assert [(part.number, part.size) for part in parts] == [(1, MIN_PART_BYTES), (2, 3)]
    await client.complete_multipart_upload(f"{root}copied", upload, parts)
    assert await read(client, f"{root}copied", MIN_PART_BYTES - 1) == head[-1:] + b"tai"


@pytest_twisted.ensureDeferred
async def test_aborted_upload_is_no_such_upload(client, root):
    key = f"{root}a"
    upload = await client.create_multipart_upload(key)
    part = await client.upload_part(key, upload, 1, b"x")
    await client.abort_multipart_upload(key, upload)
    await client.abort_multipart_upload(key, upload)
    with pytest.raises(NoSuchUpload):
        await client.list_parts(key, upload)
    with pytest.raises(NoSuchUpload):
        await client.upload_part(key, upload, 2, b"x")
    with pytest.raises(NoSuchUpload):
        await client.complete_multipart_upload(key, upload, [part])


@pytest_twisted.ensureDeferred
async def test_small_part_is_invalid(client, root):
    upload = await client.create_multipart_upload(f"{root}a")
    parts = [await client.upload_part(f"{root}a", upload, n, b"x") for n in (1, 2)]
    with pytest.raises(InvalidPart):
        await client.complete_multipart_upload(f"{root}a", upload, parts)
    await client.abort_multipart_upload(f"{root}a", upload)


@pytest_twisted.ensureDeferred
async def test_presigned_urls(client, root):
    key = root + STRANGE
    await client.put_object(key, b"hello")

    def ask(url, method="GET", **headers):
        try:
            with urlopen(Request(url, method=method, headers=headers)) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, b""

    url = await client.presign(key, "GET", 60)
    assert await deferToThread(ask, url) == (200, b"hello")
    assert await deferToThread(ask, url, Range="bytes=1-2") == (206, b"el")
    assert await deferToThread(ask, await client.presign(key, "HEAD", 60), "HEAD") == (200, b"")
    # It permits nothing else, and expires.
    assert (await deferToThread(ask, url, "DELETE"))[0] == 403
    assert (await deferToThread(ask, url.replace("hello", "x").replace(root, "x/")))[0] == 403
    client.sender.clock_offset_s -= 120
    assert (await deferToThread(ask, await client.presign(key, "GET", 60)))[0] == 403


@pytest_twisted.ensureDeferred
async def test_wrong_clock_is_corrected(client, root):
    await client.put_object(f"{root}a", b"x")
    for operation in (client.head_bucket, lambda: client.head_object(f"{root}a")):
        client.sender.clock_offset_s = 3600
        await operation()
        assert abs(client.sender.clock_offset_s) < 10


@pytest_twisted.ensureDeferred
async def test_wrong_credentials_and_bucket(store):
    for options, error in (
        ({"secret_key": "wrong"}, BadCredentials),
        ({"access_key": "nobody"}, BadCredentials),
        ({"bucket": "nothing-here"}, NoSuchBucket),
    ):
        client = make_client(store, **options)
        with pytest.raises(error):
            await client.head_bucket()
        await client.close()


@pytest_twisted.ensureDeferred
async def test_object_options(object_stores):
    """On moto, since the real stores have other storage classes and keys."""
    plain = make_client(object_stores.get("moto"))

    async def headers(object_options, key):
        client = S3Client(plain.sender, object_options)
        await client.put_object(key, b"x")
        await client.copy_object(key, f"{key}-copy")
        upload = await client.create_multipart_upload(f"{key}-parts")
        part = await client.upload_part(f"{key}-parts", upload, 1, b"x")
        await client.complete_multipart_upload(f"{key}-parts", upload, [part])
        names = ("x-amz-server-side-encryption", "x-amz-storage-class", "content-type")
        seen = {
            await plain.sender.send(
                Operation("HeadObject", "HEAD", each),
                lambda answer: succeed(tuple(answer.header(name) for name in names)),
            )
            for each in (key, f"{key}-copy", f"{key}-parts")
        }
        assert len(seen) == 1, seen
        return seen.pop()

    binary = "application/octet-stream"
    assert await headers(ObjectOptions(), "plain") == ("", "", binary)
    assert await headers(ObjectOptions(encrypt=True), "aes") == ("AES256", "", binary)
    assert await headers(ObjectOptions(encrypt=True, key_id="k"), "kms") == ("aws:kms", "", binary)
    assert await headers(ObjectOptions(storage_class="STANDARD_IA"), "cold") == (
        "", "STANDARD_IA", binary,
    )  # fmt: skip
    await plain.close()


@pytest_twisted.ensureDeferred
async def test_strict_store_refuses_unequal_parts_and_other_bytes(object_stores, root):
    client = make_client(object_stores.get("strict"))
    key, content = f"{root}a", os.urandom(MIN_PART_BYTES + 1)
    upload = await client.create_multipart_upload(key)
    parts = [
        await client.upload_part(key, upload, number, each)
        for number, each in enumerate((content, content[1:], b"tail"), 1)
    ]
    with pytest.raises(InvalidPart):
        await client.complete_multipart_upload(key, upload, parts)
    parts[1] = await client.upload_part(key, upload, 2, content)
    await client.complete_multipart_upload(key, upload, parts)
    assert await read(client, key, MIN_PART_BYTES) == content[-1:] + content + b"tail"
    with pytest.raises(S3Error, match="XAmzContentSHA256Mismatch"):
        await client.put_object(key, content, sha256=hashlib.sha256(b"x").hexdigest())
    await client.close()
