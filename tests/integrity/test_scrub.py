"""Blobs that have changed are found and taken away; the next push brings them back."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.gc.collected_store import Store, drive, heartbeats_running
from tests.repository.worlds import (
    Body,
    PeekWorld,
    World,
    begin,
    descriptor,
    done,
    image,
    index,
)
from twisted_registry.app.integrity import make_scrub
from twisted_registry.config.loading import load_text
from twisted_registry.integrity import blobs as blobs_module
from twisted_registry.integrity import fsck
from twisted_registry.integrity import scrub as module
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import StorageError

LAYER = layout.blob_data(Digest.of(b"layer"))


@pytest.fixture(params=[World, PeekWorld])
def store(request):
    return Store(request.param())


def scrub(store, rate=0):
    said = f"storage: {{inmemory: {{}}, maintenance: {{scrub: {{rate: {rate}}}}}}}"
    configuration = load_text(f"version: 0.1\n{said}\n", {}).configuration
    return make_scrub(configuration, store.world.driver, store.world.clock)()


def scrubbed(store):
    return drive(store.world, scrub(store))


def numbers(found):
    return found.files, found.size, found.damaged, found.quarantined


def quarantined(store):
    found = store.world.paths(layout.QUARANTINE)
    return {path.split("/", 3)[3] for path in found}


def test_an_intact_store_is_unchanged(store):
    digest = store.world.image("v1")
    store.world.blob(b"", "empty")
    before = store.world.paths()
    assert numbers(scrubbed(store)) == (4, store_size(store), 0, 0)
    assert [path for path in store.world.paths() if path != layout.CLOCK] == before
    assert store.is_whole(digest)


def store_size(store):
    return sum(len(store.world.read(path)) for path in store.world.paths(layout.BLOBS))


@pytest.mark.parametrize("damage", [b"", b"lay", b"layer, and more", b"l\xe1yer"])
def test_a_damaged_blob_is_quarantined_and_the_next_push_stores_it_again(store, damage):
    gate = store.serve()
    digest = store.world.image("v1")
    heartbeats_running(store, gate)
    store.age(60)
    assert done(store.world.repo().blobs.size(Digest.of(b"layer"))) == 5
    store.world.write(LAYER, damage)
    assert scrubbed(store).quarantined == 1
    assert quarantined(store) == {LAYER}
    (kept,) = store.world.paths(layout.QUARANTINE)
    assert store.world.read(kept) == damage
    store.world.clock.advance(5)
    with pytest.raises(RegistryError, match="blob unknown"):
        done(store.world.repo().blobs.size(Digest.of(b"layer")))
    assert not store.is_whole(digest)
    store.world.blob(b"layer")
    assert store.is_whole(digest)
    assert scrubbed(store).damaged == 0


def test_a_damaged_manifest_is_quarantined(store):
    digest = store.world.image("v1")
    assert store.is_whole(digest)
    store.world.clock.advance(5)
    store.world.write(layout.blob_data(digest), b"{}")
    assert scrubbed(store).quarantined == 1
    with pytest.raises(RegistryError):
        done(store.world.repo().manifests.get("v1"))
    store.world.image("v1")
    assert store.is_whole(digest)


def test_a_blob_that_is_pushed_before_its_quarantine_stays(store):
    store.world.image("v1")
    store.world.write(LAYER, b"wrong")

    def healed(_number, action, path):
        if action == "put" and path == layout.DELETE_LIST:
            # By a process that does not know of the list.
            store.world.clock.advance(1)
            store.world.write(LAYER, b"layer")

    store.world.driver.after = healed
    assert numbers(scrubbed(store)) == (3, store_size(store), 1, 0)
    assert store.world.read(LAYER) == b"layer"


def test_a_blob_that_is_replaced_while_it_is_read_is_read_again(store):
    store.world.image("v1")
    store.world.write(LAYER, b"wrong")

    def healed(_number, action, path):
        if action == "open" and path == LAYER:
            store.world.clock.advance(1)
            store.world.write(LAYER, b"layer")

    store.world.driver.after = healed
    assert scrubbed(store).damaged == 0


def test_a_blob_that_reads_intact_at_the_second_attempt_stays(store, monkeypatch):
    store.world.image("v1")
    readings = []
    stored_digest = blobs_module.stored_digest

    async def corrupted_once(driver, path, algorithm, throttle):
        digest, seen = await stored_digest(driver, path, algorithm, throttle)
        readings.append(path)
        return (Digest.of(b"corrupt") if readings.count(path) == 1 else digest), seen

    monkeypatch.setattr(blobs_module, "stored_digest", corrupted_once)
    assert scrubbed(store).damaged == 0
    assert readings.count(LAYER) == 2
    assert quarantined(store) == set()


def test_a_push_waits_until_the_damaged_blob_is_quarantined(store):
    """What it brings is not what is taken away."""
    gate = store.serve()
    store.world.image("v1")
    store.world.write(LAYER, b"wrong")
    results = []
    begin(scrub(store)).addBoth(results.append)
    # The list is proposed; the process has not seen it.
    done(gate.poll())
    store.world.clock.advance(0.25)
    assert results[0].quarantined == 1
    assert not store.holds(b"layer")
    pushes = []
    begin(store.world.repo().uploads.store_blob(Digest.of(b"layer"), Body(b"layer"))).addBoth(
        pushes.append
    )
    assert pushes == []
    done(gate.poll())
    assert pushes == [5]
    assert store.holds(b"layer")


def test_without_an_acknowledgement_nothing_is_quarantined_in_this_run(store):
    gate = store.serve()
    store.world.image("v1")
    store.world.write(LAYER, b"wrong")

    def renew():
        store.world.write(layout.process_record(gate.id), b"")
        store.world.clock.callLater(10, renew)

    renew()
    assert numbers(scrubbed(store)) == (3, store_size(store), 1, 0)
    assert store.world.read(LAYER) == b"wrong"


def test_many_blobs_are_quarantined_in_batches(store, monkeypatch):
    monkeypatch.setattr(fsck, "_MAX_WAITING", 2)
    for number in range(5):
        digest = store.world.blob(bytes([number]))
        store.world.write(layout.blob_data(digest), b"rot")
    assert scrubbed(store).quarantined == 5


def test_reading_is_rate_limited_and_continues_after_a_restart(store, monkeypatch):
    monkeypatch.setattr(blobs_module, "_READ_BYTES", 10)
    for number in range(20):
        store.world.blob(bytes([number]) * 100)
    running = begin(scrub(store, rate=10))
    for _ in range(400):
        store.world.clock.advance(0.25)
    # 100 s at 10 bytes a second, of 2,000 bytes: about half of the files.
    opened = {path for action, path in store.world.driver.calls if action == "open"}
    assert 9 <= len(opened) <= 12
    running.addErrback(lambda failure: failure.trap(CancelledError))
    running.cancel()
    # Noted each minute.
    assert 10 <= scrubbed(store).files <= 15
    assert layout.SCRUB not in store.world.paths()
    assert scrubbed(store).files == 20


def test_an_unreadable_file_or_folder_does_not_stop_the_scrub(store):
    store.world.image("v1")
    store.world.blob(b"another")
    store.world.write(LAYER, b"wrong")
    broken = layout.blob_data(Digest.of(b"another"))
    folder = broken.rsplit("/", 2)[0]

    def before(_number, action, path):
        if (action, path) == ("open", broken):
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = before
    assert numbers(scrubbed(store)) == (4, store_size(store) + 5, 2, 1)

    def unreadable(_number, action, path):
        if action == "walk" and folder.startswith(path):
            raise StorageError(path, "the disk is broken")
        if action == "list" and path == folder:
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = unreadable
    found = scrubbed(store)
    assert (found.files, found.damaged, found.quarantined) == (2, 1, 0)


def said(log_events):
    return [event["tag"] for event in log_events if event["log_format"].startswith("affected tag")]


def test_each_tag_that_needs_a_damaged_blob_is_logged(store, log_events):
    child = store.world.image(annotations={"is": "child"})
    inner = index(descriptor(store.world.read(layout.blob_data(child)), OCI_IMAGE))
    store.world.put(inner, OCI_INDEX)
    top = index(descriptor(inner, OCI_INDEX))
    store.world.put(top, OCI_INDEX, "all")
    store.world.image("v1", "other")
    store.world.blob(b"another", "third")
    store.world.put(image(layers=[]), OCI_IMAGE, "whole")
    store.world.write(LAYER, b"wrong")
    found = scrubbed(store)
    assert (found.quarantined, found.tags) == (1, 2)
    assert found.affected == ("a/b:all", "other:v1")
    assert said(log_events) == [f"{tag} ({Digest.of(b'layer')})" for tag in found.affected]
    # It was said when it was found: the next run finds nothing.
    assert scrubbed(store).tags == 0


def test_the_tags_of_a_damaged_manifest_are_logged(store, log_events):
    digest = store.world.image("v1")
    store.world.put(
        index(descriptor(store.world.read(layout.blob_data(digest)), OCI_IMAGE)), OCI_INDEX, "all"
    )
    store.world.write(layout.blob_data(digest), b"{}")
    assert scrubbed(store).affected == ("a/b:all", "a/b:v1")
    assert said(log_events) == [f"a/b:all ({digest})", f"a/b:v1 ({digest})"]


def test_tags_of_many_damaged_blobs_are_logged_in_batches(store, monkeypatch):
    monkeypatch.setattr(module, "_DIGESTS_AT_ONCE", 2)
    for number in range(5):
        layer = bytes([number]) * 10
        store.world.blob(layer)
        store.world.blob(b"{}")
        store.world.put(image(layers=[descriptor(layer)]), OCI_IMAGE, f"v{number}")
        store.world.write(layout.blob_data(Digest.of(layer)), b"rot")
    found = scrubbed(store)
    assert (found.quarantined, found.tags) == (5, 5)
    assert sorted(found.affected) == [f"a/b:v{number}" for number in range(5)]


def test_an_unreadable_repository_does_not_prevent_the_quarantine(store, log_events):
    store.world.image("v1")
    store.world.write(LAYER, b"wrong")

    def before(_number, action, path):
        if action in {"list", "list_folders"} and path.startswith(layout.REPOSITORIES):
            raise StorageError(path, "the disk is broken")

    store.world.driver.before = before
    found = scrubbed(store)
    assert (found.quarantined, found.tags) == (1, 0)
    assert any("cannot find all affected tags" in event["log_format"] for event in log_events)


def test_a_stopped_run_logs_its_tags_in_the_next_run(store, log_events):
    store.world.image("v1")
    store.world.write(LAYER, b"wrong")
    held = []

    def hold(_number, action, path):
        if action == "list_folders" and path.endswith("/tags"):
            held.append(Deferred())
            return held[-1]
        return None

    store.world.driver.before = hold
    running = begin(scrub(store))
    running.addErrback(lambda failure: failure.trap(CancelledError))
    assert held
    running.cancel()
    store.world.driver.before = lambda number, action, path: None
    assert not said(log_events)
    assert store.world.read(LAYER) == b"wrong"
    assert scrubbed(store).affected == ("a/b:v1",)
