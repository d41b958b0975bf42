"""The trash: deletion into it, expiry, and restoring of needed content."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.gc.collected_store import DAY, heartbeats_running
from tests.repository.trash_kit import WEEK, WORLDS, KeptStore
from tests.repository.worlds import done, image
from twisted_registry.gc.expire_trash import TrashExpiryResult
from twisted_registry.gc.sweep import Sweeper
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.repository.trash import TagChange, TrashedKind


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def store(request):
    with closing(KeptStore(request.param())) as store:
        yield store


def test_collected_blobs_are_in_the_trash(store):
    store.world.blob(b"garbage")
    kept = store.world.image("v1")
    store.age()
    assert store.collect().blobs == 1
    assert not store.holds(b"garbage")
    assert store.is_whole(kept)
    (blob,), (layer,) = store.trash(TrashedKind.BLOB), store.trash(TrashedKind.LAYER)
    assert (blob.digest, blob.size, layer.digest) == (Digest.of(b"garbage"), 7, blob.digest)
    assert layer.repository == "a/b"
    assert layer.kind is TrashedKind.LAYER
    assert store.world.read(blob.path) == b"garbage"
    assert store.world.read(layer.path) == str(blob.digest).encode()
    # Moving leaves no empty folder.
    assert not store.world.exists(layout.blob_folder(blob.digest))
    assert not store.world.exists(layout.layer_folder("a/b", blob.digest))


def test_collected_manifests_are_in_the_trash(store):
    digest = store.world.image(media_type="application/vnd.oci.image.manifest.v1+json")
    store.age()
    assert store.collect(untagged=True).manifests == 1
    (item,) = store.trash(TrashedKind.MANIFEST)
    assert (item.repository, item.digest, item.entry_name.reason.value) == (
        "a/b",
        digest,
        "collected",
    )


def test_deleted_content_is_in_the_trash(store):
    digest = store.world.image("v1")
    store.world.put(image(), "application/vnd.oci.image.manifest.v1+json", "v2")
    repository = store.world.repo()
    done(repository.tags.delete("v2"))
    done(repository.manifests.delete(digest))
    layer = Digest.of(b"layer")
    done(repository.blobs.delete(layer))
    assert [
        (item.kind, item.digest) for item in store.trash() if item.kind is not TrashedKind.TAG
    ] == [
        (TrashedKind.LAYER, layer),
        (TrashedKind.MANIFEST, digest),
    ]
    records = {
        item.tag: TagChange.from_bytes(store.world.read(item.path))
        for item in store.trash(TrashedKind.TAG)
        if item.entry_name.reason.value == "deleted"
    }
    assert records == {"v1": TagChange(None, digest), "v2": TagChange(None, digest)}
    assert store.world.tags() == []
    assert {
        item.entry_name.reason.value for item in store.trash() if item.kind is not TrashedKind.TAG
    } == {"deleted"}


def test_only_changes_of_tags_are_recorded(store):
    first = store.world.image("latest")
    again = store.world.put(image(), "application/vnd.oci.image.manifest.v1+json", "latest")
    assert first == again
    store.world.clock.advance(1)
    second = store.world.image("latest", artifactType="new/type")
    records = [TagChange.from_bytes(store.world.read(item.path)) for item in store.trash()]
    assert records == [TagChange(first, None), TagChange(second, first)]


def test_stored_media_type_is_in_the_trash(store):
    content = image(mediaType=None)
    for part in (b"{}", b"layer"):
        store.world.blob(part)
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    digest = store.world.put(content, docker)
    done(store.world.repo().manifests.delete(digest))
    (item,) = store.trash(TrashedKind.MANIFEST)
    assert store.world.read(item.path) == docker.encode()


def test_expired_entries_are_removed(store):
    store.world.blob(b"garbage")
    store.world.image("v1")
    store.age()
    store.collect()
    store.age(WEEK - DAY)
    done(store.world.repo().tags.delete("v1"))
    assert store.empty() == TrashExpiryResult(1, 0, 0)
    assert len(store.trash()) == 3
    store.age(2 * DAY)
    assert store.empty() == TrashExpiryResult(2, 7, 0)
    (left,) = store.trash()
    assert left.tag == "v1"
    store.age(WEEK)
    assert store.empty() == TrashExpiryResult(1, 0, 0)
    assert store.empty() == TrashExpiryResult(0, 0, 0)
    assert not store.world.exists(f"{layout.TRASH}/blobs")
    assert not store.world.exists(f"{layout.TRASH}/repositories")


def test_expiry_restores_needed_content(store):
    """As after a collector that stalled right before a removal."""
    kept = store.world.image("v1")
    layer = Digest.of(b"layer")
    store.age()
    for digest in (layer, kept):
        assert done(store.deleter.delete_blob(digest, lambda: True))
    done(Sweeper(store.world.driver, store.deleter).unlink_blobs({layer}))
    assert not store.is_whole(kept)
    store.age(2 * WEEK)
    assert store.empty().back == 2
    assert store.is_whole(kept)
    assert not store.trash(TrashedKind.BLOB)


def test_collection_restores_needed_content(store):
    kept = store.world.image("v1")
    store.age()
    for digest in (kept, Digest.of(b"layer")):
        assert done(store.deleter.delete_blob(digest, lambda: True))
    assert store.collect(untagged=True).troubled == ()
    assert store.is_whole(kept)


def test_dry_run_restores_nothing(store):
    store.world.image("v1")
    assert done(store.deleter.delete_blob(Digest.of(b"layer"), lambda: True))
    store.collect(dry_run=True)
    assert not store.holds(b"layer")


def test_vetoed_removal_keeps_the_blob(store):
    store.world.blob(b"garbage")
    digest = Digest.of(b"garbage")
    assert not done(store.deleter.delete_blob(digest, lambda: False))
    assert store.holds(b"garbage")
    assert store.trash(TrashedKind.BLOB) == []


def test_collection_into_the_trash_beside_a_serving_process(store):
    gate = store.serve()
    store.serve_with_trash()
    store.world.blob(b"garbage")
    store.age()
    done(gate.poll())
    heartbeats_running(store, gate)
    assert store.collect().blobs == 1
    assert [item.digest for item in store.trash(TrashedKind.BLOB)] == [Digest.of(b"garbage")]


def test_records_of_a_tag_are_bounded(store, monkeypatch):
    monkeypatch.setattr("twisted_registry.gc.expire_trash._MAX_TAG_RECORDS", 3)
    for number in range(5):
        store.world.image("latest", artifactType=f"a/{number}")
        store.world.clock.advance(1)
    store.world.image("other")
    assert store.empty() == TrashExpiryResult(2, 0, 0)
    assert [item.tag for item in store.trash(TrashedKind.TAG)] == ["latest"] * 3 + ["other"]


@pytest.mark.parametrize(
    "name",
    [
        "blobs/sha256/aa/short/20270101T000000.000000Z-collected-1",
        "blobs/stray",
        f"blobs/sha256/aa/{'a' * 64}/yesterday",
        "repositories/A/_tags/v1/20270101T000000.000000Z-deleted-1",
        "repositories/a/_tags/-/20270101T000000.000000Z-deleted-1",
        "repositories/a/_tags/v1/deeper/20270101T000000.000000Z-deleted-1/more",
        "repositories/a/20270101T000000.000000Z-deleted-1",
        "other",
    ],
)
def test_unknown_files_in_the_trash_are_skipped(store, name):
    store.world.write(f"{layout.TRASH}/{name}", b"")
    assert store.trash() == []
    assert store.empty(0.0) == TrashExpiryResult(0, 0, 0)
