"""Purge of abandoned uploads."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_registry.maintenance.purge import UploadPurge, UploadPurgeResult
from twisted_registry.oci.digest import Digest
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.interfaces import ILeftovers, StorageError
from twisted_registry.storage.memory import MemoryDriver

DAY = 86_400


def done(coroutine):
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


@implementer(ILeftovers)
class LeftoverDriver(MemoryDriver):
    """A store with unfinished files of crashes, and one folder that cannot be deleted."""

    swept = None
    stubborn = ""

    def remove_leftovers(self, before):
        self.swept = before
        return succeed(3)

    def delete(self, path, *, durable=True):
        if self.stubborn and path.endswith(self.stubborn):
            return fail(StorageError(path, "it will not go"))
        return super().delete(path, durable=durable)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


@pytest.fixture
def driver(clock):
    return LeftoverDriver(clock)


@pytest.fixture
def registry(driver, clock):
    return Registry(driver, clock)


def start(registry, name="a"):
    return done(registry.repository(name).uploads.start()).id


def is_there(registry, upload_id, name="a"):
    return done(registry.repository(name).uploads.is_started(upload_id))


def test_abandoned_uploads_are_removed_and_recent_ones_stay(registry, driver, clock):
    old = start(registry)
    clock.advance(DAY)
    young = start(registry)
    clock.advance(DAY)
    assert done(UploadPurge(registry, 1.5 * DAY, dry_run=False).run()) == UploadPurgeResult(
        1, 1, 0, 3
    )
    assert not is_there(registry, old)
    assert is_there(registry, young)
    assert driver.swept == clock.seconds() - 1.5 * DAY


def test_dry_run_logs_abandoned_uploads_and_removes_nothing(registry, driver, clock, log_events):
    old = start(registry)
    clock.advance(2 * DAY)
    assert done(UploadPurge(registry, DAY, dry_run=True).run()) == UploadPurgeResult(1, 0, 0, 0)
    assert is_there(registry, old)
    assert driver.swept is None
    said = [event for event in log_events if event.get("what") == "would purge"]
    assert [(event["id"], event["repository"], event["hours"]) for event in said] == [
        (old, "a", 48)
    ]


def test_upload_that_cannot_be_removed_is_skipped(registry, driver, clock):
    first, second = sorted(start(registry) for _ in range(2))
    driver.stubborn = first
    clock.advance(2 * DAY)
    assert done(UploadPurge(registry, DAY, dry_run=False).run()) == UploadPurgeResult(2, 1, 1, 3)
    assert is_there(registry, first)
    assert not is_there(registry, second)


def test_upload_that_is_being_written_is_not_removed(registry, driver, clock):
    upload_id = start(registry)
    path = f"docker/registry/v2/repositories/a/_uploads/{upload_id}/data"
    writers = []
    driver.writer(path).addCallback(writers.append)
    clock.advance(2 * DAY)
    assert done(UploadPurge(registry, DAY, dry_run=False).run()) == UploadPurgeResult(1, 0, 0, 3)
    assert writers


def test_blobs_are_not_purged(registry, clock):
    class Body:
        length = 4

        def startProducing(self, consumer):
            consumer.write(b"blob")
            done = Deferred()
            done.callback(None)
            return done

        def pauseProducing(self):
            pass

        resumeProducing = stopProducing = pauseProducing

    digest = Digest.of(b"blob")
    done(registry.repository("a").uploads.store_blob(digest, Body()))
    clock.advance(2 * DAY)
    assert done(UploadPurge(registry, DAY, dry_run=False).run()).found == 0
    assert done(registry.repository("a").blobs.size(digest)) == 4
