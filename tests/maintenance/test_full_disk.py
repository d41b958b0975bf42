"""Maintenance on a disk that is full at each of its changes in turn: nothing is lost."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.gc.collected_store import Store
from tests.integrity.checked_store import CheckedStore
from tests.integrity.damage_cases import DAMAGE
from tests.repository.trash_kit import DatedDisk, KeptStore
from tests.repository.worlds import done
from tests.storage.filesystem.full_disk import FullDiskFiles
from twisted_registry.gc.collector import CollectionFailed
from twisted_registry.integrity.findings import Severity
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
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
