"""One object that cannot be read, copied or deleted does not end a collection or an expiry."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.gc.collected_store import UNTAGGED, Store
from tests.repository.trash_kit import WEEK, KeptStore
from tests.repository.worlds import World
from twisted_registry.gc.expire_trash import TrashExpiryResult
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.repository.trash import TrashedKind, TrashReason
from twisted_registry.storage.interfaces import StorageError

GARBAGE = (b"garbage", b"more garbage")


def fail_object(store, path):
    """Make all calls for one path fail."""

    def before(_number, _action, called):
        if called == path or (not isinstance(called, str) and path in called):
            raise StorageError(path, "broken")

    store.world.driver.before = before


def stocked(kind):
    """Return an old store with kept images, a manifest without a tag, and garbage."""
    store = kind(World())
    store.kept = [store.world.image("v1"), store.world.image("v1", "other")]
    store.untagged = store.world.image("moved", artifactType="an/old")
    store.world.image("moved", artifactType="a/new")
    for content in GARBAGE:
        store.world.blob(content, "third")
    store.age()
    return store


with closing(stocked(Store)) as example:
    PATHS = example.world.paths()


@pytest.mark.parametrize("kind", [Store, KeptStore], ids=["for good", "trash"])
def test_a_collection_survives_each_object_that_fails(kind):
    for path in PATHS:
        with closing(stocked(kind)) as store:
            check_collection(store, path)


def check_collection(store, path):
    fail_object(store, path)
    store.collect(**UNTAGGED)
    removed = {content for content in GARBAGE if not store.holds(content)}
    concerns = {content for content in GARBAGE if Digest.of(content).hex in path}
    assert removed >= set(GARBAGE) - concerns, path
    store.world.driver.before = lambda *_: None
    assert all(map(store.is_whole, store.kept, ("a/b", "other"))), path
    store.collect(**UNTAGGED)
    assert not any(map(store.holds, GARBAGE)), path
    assert layout.revision_link("a/b", store.untagged) not in store.world.paths(), path


@pytest.mark.parametrize("content", [b"sha256:12", b"?" * 71])
def test_a_damaged_tag_keeps_all_manifests_of_its_repository(content):
    with closing(stocked(KeptStore)) as store:
        path = layout.tag_current_link("a/b", "v1")
        store.world.write(path, content)
        store.age()
        assert store.collect(**UNTAGGED).troubled == ("a/b",)
        assert layout.revision_link("a/b", store.kept[0]) in store.world.paths()
        assert not any(map(store.holds, GARBAGE))


def trashed_although_needed():
    """Return a store with a needed blob and a needed manifest in the trash, and garbage there."""
    store = stocked(KeptStore)
    store.collect()
    layer, manifest = Digest.of(b"layer"), store.kept[0]
    for number, digest in enumerate((layer, manifest)):
        content = store.world.read(layout.blob_data(digest))
        store.world.remove(layout.blob_data(digest))
        name = f"20270116T000000.{number:06}Z-{TrashReason.COLLECTED.value}-abc"
        store.world.write(f"{layout.trashed_blob_folder(digest)}/{name}", content)
    store.age(2 * WEEK)
    return store


with closing(trashed_although_needed()) as example:
    TRASHED = [path for path in example.world.paths() if path.startswith(layout.TRASH)]


def test_each_trashed_object_that_fails_keeps_no_other_from_being_restored():
    for path in TRASHED:
        with closing(trashed_although_needed()) as store:
            check_restoration(store, path)


def check_restoration(store, path):
    fail_object(store, path)
    result = store.collect()
    store.world.driver.before = lambda *_: None
    needed = [Digest.of(b"layer"), store.kept[0]]
    for digest in needed:
        is_stored = layout.blob_data(digest) in store.world.paths()
        assert is_stored is not (digest.hex in path), path
    concerns = sum(digest.hex in path for digest in needed)
    assert result.failed == concerns, path
    assert store.collect().failed == 0
    assert all(map(store.is_whole, store.kept, ("a/b", "other"))), path


def test_no_blob_expires_while_a_needed_one_cannot_be_restored():
    with closing(trashed_although_needed()) as store:
        (path,) = (path for path in TRASHED if Digest.of(b"layer").hex in path)
        fail_object(store, path)
        result = store.empty()
        assert result.back == 1
        assert result.failed > 0
        assert len(store.trash(TrashedKind.BLOB)) == 3
        store.world.driver.before = lambda *_: None
        assert (store.empty().failed, store.trash(TrashedKind.BLOB)) == (0, [])
        assert all(map(store.is_whole, store.kept, ("a/b", "other")))


def test_expiry_counts_the_items_that_remain_and_no_others():
    """An object that cannot be deleted is one failure, not one for each object of its batch."""
    with closing(stocked(KeptStore)) as store:
        store.collect(**UNTAGGED)
        store.age(2 * WEEK)
        doomed, blobs = store.trash(), store.trash(TrashedKind.BLOB)
        (kept,) = (entry for entry in blobs if entry.digest == Digest.of(GARBAGE[0]))
        size = sum(entry.size for entry in blobs)

        def delete_others(_number, action, called):
            if action == "delete_many" and kept.path in called:
                for path in set(called) - {kept.path}:
                    store.world.remove(path)
                raise StorageError(kept.path, "broken")

        store.world.driver.before = delete_others
        assert store.empty() == TrashExpiryResult(len(doomed) - 1, size - kept.size, 0, 1)
        store.world.driver.before = lambda *_: None
        assert store.empty() == TrashExpiryResult(1, kept.size, 0)
