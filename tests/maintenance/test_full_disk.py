"""Maintenance on a full disk: nothing is lost, and what is possible is done.

The disk is full at each change in turn, or from the beginning.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from twisted.internet.defer import maybeDeferred

from tests.gc.collected_store import Store, drive
from tests.gc.gate_kit import BLOB, OTHER, ListPublisher
from tests.integrity.checked_store import CheckedStore
from tests.integrity.damage_cases import DAMAGE
from tests.repository.trash_kit import DatedDisk, KeptStore
from tests.repository.worlds import done
from tests.storage.filesystem.full_disk import FullDiskFiles
from twisted_registry.gc.collector import CollectionFailed
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.integrity.findings import Severity
from twisted_registry.maintenance.lease import TaskLease
from twisted_registry.maintenance.pull_times import PullTimes
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.trash import TrashDeleter, TrashedKind
from twisted_registry.storage.interfaces import StorageError

FAILS = (RegistryError, CollectionFailed, StorageError)


class FullDisk(DatedDisk):
    files = FullDiskFiles


@pytest.fixture(params=[True, False], ids=["for one call", "until there is room"])
def once(request):
    return request.param


def heartbeats_running(store, gate):
    """Poll a gate periodically, also while its record cannot be written."""

    def poll():
        with suppress(*FAILS):
            done(gate.poll())
        store.world.clock.callLater(1, poll)

    poll()


@pytest.mark.parametrize("kind", [Store, KeptStore], ids=["for good", "into a trash"])
def test_collection_on_a_disk_full_at_each_change(once, kind):
    room, failed, reached = 0, 0, True
    while reached:
        store = kind(FullDisk())
        world, disk = store.world, store.world.disk
        kept = world.image("v1")
        loose = world.image(annotations={"is": "loose"})
        world.blob(b"garbage")
        heartbeats_running(store, store.serve())
        store.age()
        disk.room, disk.once = room, once
        try:
            store.collect(untagged=True)
        except FAILS:
            failed += 1
        # Pulls succeed, and only garbage was removed.
        assert store.is_whole(kept), disk.refused
        reached, disk.room = bool(disk.refused), None
        store.age(60)
        store.collect(untagged=True)
        assert store.is_whole(kept), disk.refused
        assert not store.holds(b"garbage")
        assert done(world.repo().manifests.get_parsed(loose)) is None
        # A list that could not be withdrawn has expired.
        store.age(300)
        world.blob(b"garbage")
        assert world.image("v2") == kept
        store.close()
        room += 1
    assert room > 10
    assert failed > 3


@pytest.mark.parametrize("name", ["flipped blob", "malformed layer link"])
def test_repair_on_a_disk_full_at_each_change(once, name):
    damage = DAMAGE[name]
    room, reached = 0, True
    while reached:
        store = CheckedStore(FullDisk())
        disk = store.world.disk
        store.plant(damage.planted)
        before = store.tree()
        disk.room, disk.once = room, once
        with suppress(*FAILS):
            store.check(repair=True)
        after = store.tree()
        reached, disk.room = bool(disk.refused), None
        # Each file is unchanged, or repaired, or in the quarantine.
        expected = {**before, **damage.mended}
        for path in {*before, *after} - {layout.DELETE_LIST}:
            assert after.get(path) in (before.get(path), expected.get(path)), (path, disk.refused)
            gone = path in before and path not in after
            assert not gone or path in store.quarantined()
        store.age()
        store.check(repair=True)
        _, heard = store.check()
        assert {finding.path for finding in heard.findings} == {path for _, path in damage.remains}
        assert all(finding.severity is Severity.DAMAGE for finding in heard.findings)
        room += 1
    assert room > 3


class RefusingDeleter(TrashDeleter):
    """A deleter that finds no space for some blobs."""

    refused = frozenset()

    async def delete_blob(self, digest, may_delete):
        if digest in self.refused:
            raise StorageError(layout.blob_data(digest), "no space", full=True)
        return await super().delete_blob(digest, may_delete)


def test_collection_counts_what_cannot_be_moved_and_goes_on():
    store = KeptStore(FullDisk())
    world = store.world
    world.image("v1")
    for number in range(3):
        world.blob(b"garbage %d" % number)
    store.age()
    store.deleter = RefusingDeleter(world.driver, world.clock)
    RefusingDeleter.refused = {Digest.of(b"garbage 1")}
    assert store.collect().failed == 1
    assert [store.holds(b"garbage %d" % number) for number in range(3)] == [False, True, False]
    RefusingDeleter.refused = frozenset()
    assert store.collect().failed == 0
    assert not store.holds(b"garbage 1")
    store.close()


def test_trash_is_emptied_as_far_as_possible_if_needed_content_cannot_be_restored():
    store = KeptStore(FullDisk())
    world, disk = store.world, store.world.disk
    kept = world.image("v1")
    done(world.repo().tags.delete("v1"))
    world.image("v2")
    world.blob(b"garbage")
    store.age()
    store.collect()
    # What a collector that stalled would leave: a needed manifest is in the trash only.
    drive(world, store.deleter.delete_blob(kept, lambda: True))
    store.age()
    disk.room = 0
    result = store.empty(0.0)
    disk.room = None
    assert result.failed > 0
    assert {item.kind for item in store.trash()} == {TrashedKind.BLOB}
    assert store.empty(0.0).failed == 0
    assert store.trash() == []
    assert store.is_whole(kept)
    store.close()


def test_task_runs_without_a_lease_on_a_full_disk(log_lines):
    world = FullDisk()
    lease = TaskLease(world.driver, "gc", world.clock, 60.0)
    world.disk.room = 0

    async def work():
        return "done"

    assert drive(world, lease.run_exclusively(work, scheduled=True)) == "done"
    assert any("without a lease task=gc" in line for line in log_lines)


def test_merged_pulls_that_cannot_be_stored_are_known_and_merged_again():
    world = FullDisk()
    world.clock.advance(1_800_000_000)
    times = PullTimes(world.driver)
    done(times.record_pulls([("a/b", "v1")]))
    world.clock.advance(100)
    done(times.merge_batches(0.0))
    done(times.record_pulls([("a/b", "v2")]))
    world.clock.advance(7200)
    world.disk.room = 0
    done(times.merge_batches(0.0))
    assert set(done(times.read_times("a/b"))) == {"v1", "v2"}
    assert set(done(PullTimes(world.driver).read_times("a/b"))) == {"v1"}
    world.disk.room = None
    done(times.merge_batches(0.0))
    assert set(done(PullTimes(world.driver).read_times("a/b"))) == {"v1", "v2"}
    assert world.paths(layout.PULL_BATCHES) == []


def test_listed_content_is_absent_if_there_is_no_space_for_a_lease():
    world = FullDisk()
    world.clock.advance(1_000_000)
    gate = CollectorGate(world.driver, world.clock)
    done(gate.poll())
    publisher = ListPublisher(world)

    async def use():
        async with gate.protect_push("a", OTHER):
            publisher.propose(BLOB)
            await gate.poll()
            world.disk.room = 0
            assert not await maybeDeferred(gate.may_report_present, "a", BLOB)
            world.disk.room = None
            assert await maybeDeferred(gate.may_report_present, "a", BLOB)

    drive(world, use())


def test_repairs_that_find_no_space_are_counted_and_the_check_goes_on():
    store = CheckedStore(FullDisk())
    damage = DAMAGE["flipped blob"], DAMAGE["malformed layer link"]
    for one in damage:
        store.plant(one.planted)
    store.world.disk.room = 0
    result, heard = store.check(repair=True)
    assert result.failed >= 2
    assert result.repaired == 0
    store.world.disk.room = None
    again, _ = store.check(repair=True)
    assert again.failed == 0
    assert again.repaired >= 2
    assert len(heard.findings) >= 2
