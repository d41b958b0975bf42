"""Two registries over one bucket: concurrent writes never store a blob under another digest.

The registries share nothing except the store.
"""

from __future__ import annotations

import hashlib
from itertools import permutations, product

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.s3.driver import S3Driver

#: Large enough for a checkpoint of the upload.
SIZE = 1024 * 1024


@implementer(IBodyProducer)
class Body:
    def __init__(self, content):
        self.content = content
        self.length = len(content)

    def startProducing(self, consumer):
        consumer.write(self.content)
        return succeed(None)

    def pauseProducing(self):
        pass

    def resumeProducing(self):
        pass

    def stopProducing(self):
        pass


def digest_of(content):
    return Digest.parse("sha256:" + hashlib.sha256(content).hexdigest())


def checked_blobs(bucket):
    """Return all blobs by digest, and check the digests."""
    found = {}
    for key, stored in bucket.objects.items():
        if "/blobs/" in key:
            digest = key.split("/")[-2]
            assert hashlib.sha256(stored.content).hexdigest() == digest, key
            found[digest] = stored.content
    return found


@pytest_twisted.async_yield_fixture
async def machines():
    bucket = FakeBucket()
    drivers = [S3Driver(bucket, reactor, "", 5 * 1024 * 1024) for _ in range(2)]
    uploads = [Registry(driver, reactor).repository("a").uploads for driver in drivers]
    yield bucket, uploads
    for driver in drivers:
        await driver.close()


async def attempt(answer):
    try:
        return await answer
    except RegistryError as error:
        return error


@pytest_twisted.ensureDeferred
async def test_upload_is_continued_by_another_registry(machines):
    bucket, uploads = machines
    content = [bytes([number]) * SIZE for number in range(4)]
    upload_id = (await uploads[0].start()).id
    for number, part in enumerate(content):
        upload = uploads[number % 2].resume(upload_id, number * SIZE)
        assert await upload.append(Body(part)) == (number + 1) * SIZE
    whole = b"".join(content)
    reads = bucket.count("get_object")
    await uploads[0].resume(upload_id, len(whole)).finish(digest_of(whole))
    assert bucket.count("get_object") == reads + len(
        content
    )  # no process has the digest of all of it
    assert list(checked_blobs(bucket).values()) == [whole]
    assert not [key for key in bucket.objects if "_uploads" in key]


@pytest.mark.parametrize("order", sorted(set(permutations("aabb"))))
@pytest_twisted.ensureDeferred
async def test_interleaved_writes_of_the_same_size(machines, order):
    """All orders of two chunks of each; then both finish, for all possible digests."""
    bucket, uploads = machines
    pieces = {"a": [b"a" * SIZE, b"A" * SIZE], "b": [b"b" * SIZE, b"B" * SIZE]}
    upload_id = (await uploads[0].start()).id
    for who in order:
        position = 2 - len(pieces[who])
        part = pieces[who].pop(0)
        upload = uploads["ab".index(who)].resume(upload_id, position * SIZE)
        await attempt(upload.append(Body(part)))
    possible = [b"".join(one) for one in product(
        (b"a" * SIZE, b"b" * SIZE), (b"A" * SIZE, b"B" * SIZE))]  # fmt: skip
    for machine, content in product(uploads, possible):
        await attempt(machine.resume(upload_id, 2 * SIZE).finish(digest_of(content)))
        checked_blobs(bucket)


@pytest.mark.parametrize("first", [0, 1])
@pytest_twisted.ensureDeferred
async def test_simultaneous_writes_of_the_same_size(machines, first):
    """The digest of one writer is never accepted for the bytes of the other."""
    bucket, uploads = machines
    upload_id = (await uploads[0].start()).id
    contents = [b"x" * SIZE, b"y" * SIZE]
    held = []

    def hold(key):
        if key.endswith("/data"):
            held.append(Deferred())
            return held[-1]
        return None

    bucket.hooks["put_object"] = hold
    appending = []
    for number, content in enumerate(contents):
        work = uploads[number].resume(upload_id, 0).append(Body(content))
        appending.append(Deferred.fromCoroutine(work))
        # Threads prepare what is stored, so the second one begins when the first one waits.
        while len(held) <= number:
            await deferLater(reactor, 0)
    bucket.hooks.clear()
    for number in (first, 1 - first):
        held[number].callback(None)
    for one in appending:
        assert await one == SIZE
    last = digest_of(contents[1 - first])
    for machine, content in product(uploads, contents):
        result = await attempt(machine.resume(upload_id, SIZE).finish(digest_of(content)))
        checked_blobs(bucket)
        if not isinstance(result, RegistryError):
            assert digest_of(content) == last
