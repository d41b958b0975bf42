"""Redirects to a bucket that the service gives without reading the repository's link again."""

from __future__ import annotations

import io
import os

import pytest
import pytest_twisted
import treq
from attrs import define
from twisted.internet import reactor
from twisted.internet.task import Clock

from tests.app.test_worker import Supervisor
from tests.repository.bucket_world import Timed, TimedBucket, driver_on
from tests.repository.worlds import ORIGIN, Body
from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load_text
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.workers.handover import Handover

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)
LINK = layout.layer_link("a", DIGEST)
#: The driver of the storage section is replaced by one over a bucket in memory.
CONFIGURATION = """
version: 0.1
storage:
  filesystem: {rootdirectory: %s}
  cache: {blobdescriptor: %s}
  delete: {enabled: true}
  maintenance: {gc: {grace: 1s}}
http: {addr: '127.0.0.1:0', workers: %d}
"""


@define
class Serving:
    """A service over a bucket."""

    service: RegistryService

    @property
    def repository(self):
        return self.service.registry.repository("a", ORIGIN)

    async def size(self):
        """Return the size for a redirect, or the code of the error."""
        try:
            return await self.repository.blobs.size(DIGEST, for_pull=True)
        except RegistryError as error:
            return error.code


def make_service(root, bucket, *, cache="inmemory", workers=1, handover=None):
    loaded = load_text(CONFIGURATION % (root, cache, workers), {})
    service = RegistryService(
        loaded, reactor, {}, io.StringIO(), handover=handover, driver=driver_on(bucket)
    )
    service.privilegedStartService()
    service.startService()
    return Serving(service)


async def push(serving):
    await serving.repository.uploads.store_blob(DIGEST, Body(CONTENT))


@pytest_twisted.ensureDeferred
async def test_only_the_cache_in_memory_remembers_links(tmp_path):
    for cache, expected in (("inmemory", 7), ("''", ErrorCode.BLOB_UNKNOWN)):
        bucket = FakeBucket()
        serving = make_service(tmp_path, bucket, cache=cache)
        await push(serving)
        assert await serving.size() == 7
        # Another instance removes the link.
        del bucket.objects[LINK]
        assert await serving.size() == expected
        await serving.service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_collection_by_this_process_ends_redirects(tmp_path):
    store_clock = Clock()
    bucket = TimedBucket(objects=Timed(store_clock))
    serving = make_service(tmp_path, bucket)
    await push(serving)
    store_clock.advance(60)
    assert await serving.size() == 7
    run = await serving.service.getServiceNamed("maintenance").task("gc").run()
    assert not run.failure
    assert LINK not in bucket.objects
    assert await serving.size() is ErrorCode.BLOB_UNKNOWN
    await serving.service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_remembered_redirect_must_not_be_cached_and_ends_with_a_delete(tmp_path):
    bucket = FakeBucket()
    serving = make_service(tmp_path, bucket)
    await push(serving)
    port = serving.service.getServiceNamed("http").address.port
    url = f"http://127.0.0.1:{port}/v2/a/blobs/{DIGEST}"
    for _ in range(2):
        response = await treq.get(url, allow_redirects=False, persistent=False)
        assert response.code == 307
        assert response.headers.getRawHeaders("Cache-Control") == ["no-store"]
    assert [name for name, key in bucket.asked if key == LINK].count("read_object") == 1
    assert (await treq.delete(url, persistent=False)).code == 202
    assert (await treq.get(url, allow_redirects=False, persistent=False)).code == 404
    await serving.service.stopService()


@pytest.mark.parametrize("deleter", [0, 1])
@pytest_twisted.ensureDeferred
async def test_a_delete_by_one_process_ends_redirects_by_the_other(deleter, monkeypatch, tmp_path):
    monkeypatch.setattr("twisted_registry.workers.supervisor.WorkerSupervisor", Supervisor)
    bucket = FakeBucket()
    first = make_service(tmp_path, bucket, workers=2)
    made = Supervisor.made
    descriptors = (os.dup(each.fileno()) for each in (made.listening, made.table))
    handover = Handover(load_text(CONFIGURATION % (tmp_path, "inmemory", 2), {}), 1, *descriptors)
    worker = make_service(tmp_path, bucket, workers=2, handover=handover)
    await push(first)
    for serving in (first, worker):
        assert await serving.size() == 7
    await (first, worker)[deleter].repository.blobs.delete(DIGEST)
    for serving in (first, worker):
        assert await serving.size() is ErrorCode.BLOB_UNKNOWN
    for serving in (worker, first):
        await serving.service.stopService()
