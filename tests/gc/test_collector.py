"""What a collection removes and what it keeps."""

from __future__ import annotations

import json

import pytest

from tests.gc.collected_store import DAY, UNTAGGED
from tests.repository.worlds import ROOT, begin, descriptor, done, image, index
from twisted_registry.gc.collector import CollectionFailed, CollectionResult
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import RateLimiter


def test_empty_store_has_nothing_to_collect(store):
    assert store.collect() == CollectionResult()


def test_unreferenced_blob_is_removed_with_its_links(store):
    store.world.blob(b"garbage")
    kept = store.world.image("v1")
    store.age()
    assert store.collect() == CollectionResult(1, 3, 0, 1, 7)
    assert not store.holds(b"garbage")
    assert store.is_whole(kept)
    assert store.observer.blobs == [Digest.of(b"garbage")]
    # The link of the repository and the folder of the bytes are removed as well.
    text = Digest.of(b"garbage").hex
    assert not [path for path in store.world.paths() if text in path]
    assert store.collect() == CollectionResult(1, 3)


def test_young_blob_is_kept(store):
    store.world.blob(b"young")
    store.age(DAY / 2)
    store.world.blob(b"younger")
    store.age(DAY * 3 / 4)
    assert store.collect().blobs == 1
    assert not store.holds(b"young")
    assert store.holds(b"younger")


def test_blob_that_was_pushed_again_is_young(store):
    store.world.blob(b"pushed twice")
    store.age()
    store.world.blob(b"pushed twice", "other")
    assert store.collect().blobs == 0
    assert store.holds(b"pushed twice")


def test_deleted_image_is_removed_with_blobs_that_only_it_needs(store):
    layer = descriptor(b"own layer")
    store.world.blob(b"own layer")
    doomed = store.world.image("old", layers=[layer, descriptor(b"layer")])
    kept = store.world.image("new")
    done(store.world.repo().manifests.delete(doomed))
    store.age()
    assert store.collect().blobs == 2
    assert not store.holds(b"own layer")
    assert layout.blob_data(doomed) not in store.world.paths()
    assert store.is_whole(kept)


def test_blob_needed_by_another_repository_is_kept(store):
    kept = store.world.image("v1", "one")
    other = store.world.image("v1", "two")
    done(store.world.repo("two").manifests.delete(other))
    store.age()
    assert store.collect().blobs == 0
    assert store.is_whole(kept, "one")


def nested(store):
    """Push an index of an index of an image with its own layer; only the first is tagged."""
    store.world.blob(b"deep layer")
    deep = image(layers=[descriptor(b"deep layer")])
    store.world.image()
    inner_image = store.world.put(deep, OCI_IMAGE)
    inner = index(descriptor(deep, OCI_IMAGE))
    inner_digest = store.world.put(inner, OCI_INDEX)
    outer = store.world.put(index(descriptor(inner, OCI_INDEX)), OCI_INDEX, "multi")
    return outer, inner_digest, inner_image


def test_tagged_index_keeps_its_children(store):
    outer, *children = nested(store)
    store.age()
    # The image that nested() pushed without a tag is removed.
    assert store.collect(**UNTAGGED).manifests == 1
    assert all(store.is_whole(digest) for digest in (outer, *children))
    assert store.holds(b"deep layer")


def test_referrer_is_kept_and_removed_with_its_subject(store):
    subject = store.world.image("v1")
    named = {"mediaType": OCI_IMAGE, "digest": str(subject), "size": 1}
    store.world.blob(b"signature")
    signature = store.world.put(image(subject=named, layers=[descriptor(b"signature")]), OCI_IMAGE)
    named = {"mediaType": OCI_IMAGE, "digest": str(signature), "size": 1}
    second = store.world.put(image(subject=named, artifactType="a/b"), OCI_IMAGE)
    store.age()
    assert store.collect(**UNTAGGED) == CollectionResult(1, 6)
    assert store.is_whole(signature)
    assert store.is_whole(second)
    done(store.world.repo().tags.delete("v1"))
    store.age()
    assert store.collect(**UNTAGGED).manifests == 3
    assert not [path for path in store.world.paths() if path.startswith(f"{ROOT}/blobs")]


def test_untagged_manifests_are_kept_by_default(store):
    untagged = store.world.image()
    store.age()
    assert store.collect() == CollectionResult(1, 3)
    assert store.is_whole(untagged)


def test_untagged_manifests_are_removed_on_request_with_their_blobs(store):
    store.world.image()
    store.age()
    collected = store.collect(**UNTAGGED)
    assert (collected.manifests, collected.blobs) == (1, 3)
    assert store.observer.manifests[0][0] == "a/b"
    assert not [path for path in store.world.paths() if path.startswith(f"{ROOT}/blobs")]


def test_young_index_keeps_its_old_children(store):
    child = image()
    store.world.image()
    store.age()
    young = store.world.put(index(descriptor(child, OCI_IMAGE)), OCI_INDEX)
    assert store.collect(**UNTAGGED).manifests == 0
    assert store.is_whole(young)


def test_revision_folder_without_link_is_removed(store):
    """A crash left the folder with a temporary file; no client was answered."""
    digest = store.world.image()
    store.world.remove(layout.revision_link("a/b", digest))
    store.world.write(f"{layout.revision_folder('a/b', digest)}/link-unfinished", b"sha")
    store.age()
    assert store.collect().blobs == 0
    assert store.collect(**UNTAGGED).manifests == 1
    assert not store.holds(b"layer")
    assert not [path for path in store.world.paths() if digest.hex in path]


def test_manifest_of_an_overwritten_tag_is_removed(store):
    first = store.world.image("latest")
    second = store.world.image("latest", artifactType="new/type")
    store.age()
    assert store.collect(**UNTAGGED).manifests == 1
    assert not store.is_whole(first)
    assert store.is_whole(second)


def test_digests_in_a_manifest_of_unknown_type_are_kept(store):
    store.world.blob(b"mentioned")
    content = json.dumps({"a": {"b": [f"see {Digest.of(b'mentioned')}"]}}).encode()
    store.world.put(content, "application/vnd.unknown+json", "odd")
    store.world.blob(b"in bytes")
    store.world.put(b"\xff" + str(Digest.of(b"in bytes")).encode(), "application/x-bytes", "bytes")
    store.age()
    assert store.collect(**UNTAGGED) == CollectionResult(1, 4)


def test_child_held_by_another_repository_is_followed(store):
    child = image(layers=[descriptor(b"layer")])
    for content in (b"{}", b"layer"):
        store.world.blob(content, "one")
    store.world.put(child, OCI_IMAGE, "v1", "one")
    parent = index(descriptor(child, OCI_IMAGE))
    digest = Digest.of(parent)
    # As stored by a registry that does not check the children of an index.
    store.world.write(layout.blob_data(digest), parent)
    store.world.write(layout.revision_link("two", digest), str(digest).encode())
    store.world.write(layout.tag_current_link("two", "v1"), str(digest).encode())
    done(store.world.repo("one").manifests.delete(Digest.of(child)))
    store.age()
    assert store.collect(**UNTAGGED).blobs == 0
    assert store.holds(b"layer")


def test_dry_run_reports_garbage_and_removes_nothing(store):
    store.world.blob(b"garbage")
    store.world.image()
    store.age()
    before = store.world.paths()
    found = store.collect(dry_run=True, **UNTAGGED)
    assert (found.manifests, found.blobs, found.size) == (1, 1, 7)
    assert [path for path in store.world.paths() if "collector" not in path] == before
    assert store.observer.blobs == [Digest.of(b"garbage")]


def test_garbage_beyond_one_list_is_removed_with_several(store):
    for number in range(10):
        store.world.blob(bytes([number]))
    store.age()
    assert store.collect(min_list_digests=3).blobs == 10
    assert store.observer.progress[-1] == (1, 1)
    assert not [path for path in store.world.paths() if "list" in path or "leases" in path]


@pytest.mark.parametrize(("seconds", "lists"), [(0.0, 13), (4.0, 13), (1.9, 7), (0.1, 3)])
def test_lists_are_longer_on_a_fast_store(store, seconds, lists):
    """As many digests as are removed in four seconds, estimated from the previous list."""
    for number in range(39):
        store.world.blob(bytes([number]))
    store.age()
    condemned, sizes = [], []

    def before(_number, action, path):
        if action == "put" and path == layout.DELETE_LIST:
            condemned.append(path)
            sizes.append(0)
        elif action == "delete" and path.startswith(layout.BLOBS):
            sizes[-1] += 1
            # The first list takes this long in all.
            store.world.clock.advance(seconds / 3)

    store.world.driver.before = before
    assert store.collect(min_list_digests=3, max_list_digests=30).blobs == 39
    assert len(condemned) == lists, sizes
    assert max(sizes) <= 30


def test_one_mark_selects_all_lists_and_each_has_a_second_mark(store):
    for number in range(10):
        store.world.blob(bytes([number]))
    kept = store.world.image("v1")
    store.age()
    looks = []
    revisions = layout.revisions_folder("a/b") + "/sha256"

    def before(_number, action, path):
        if action == "list_folders" and path == revisions:
            looks.append("look")
        elif action == "put" and path == layout.DELETE_LIST:
            looks.append("condemned")

    store.world.driver.before = before
    assert store.collect(min_list_digests=3).blobs == 10
    assert looks == ["look", *["condemned", "look"] * 4]
    assert store.is_whole(kept)


def test_blob_that_became_needed_before_a_later_list_is_kept(store):
    """The mark that selected the lists did not find it."""
    for number in range(10):
        store.world.blob(bytes([number]))
    for content in (b"{}", b"layer"):
        store.world.blob(content)
    store.age()
    condemned = []

    def before(_number, action, path):
        if action == "put" and path == layout.DELETE_LIST:
            condemned.append(path)
            if len(condemned) == 1:
                digest = Digest.of(image())
                store.world.write(layout.blob_data(digest), image())
                store.world.write(layout.revision_link("a/b", digest), str(digest).encode())

    store.world.driver.before = before
    assert store.collect(min_list_digests=3).blobs == 10
    assert len(condemned) > 2
    assert store.is_whole(Digest.of(image()))


def test_manifests_are_read_once(store):
    store.world.image("v1")
    store.age()
    store.collect()
    before = len(store.world.driver.calls)
    store.collect()
    again = store.world.driver.calls[before:]
    assert not [call for call in again if call[0] in {"get_many", "get", "open"}]


def test_torn_list_is_replaced(store):
    store.world.blob(b"garbage")
    store.age()
    store.world.write(layout.DELETE_LIST, b"1 proposed 60\nsha")
    assert store.collect().blobs == 1


def test_slow_sweep_stops_after_half_of_the_list_ttl(store):
    for number in range(10):
        store.world.blob(bytes([number]))
    store.age()
    removed = []

    def before(_number, action, path):
        if action == "delete" and path.startswith(layout.BLOBS):
            removed.append(store.world.clock.seconds())
            store.world.clock.advance(25)

    store.world.driver.before = before
    began = store.world.clock.seconds()
    assert store.collect(min_list_digests=10).blobs == 10, (
        "what was left was done in the next rounds"
    )
    first_list = [time for time in removed if time - began < 30]
    assert len(first_list) == 2


def slow_marks(store, seconds):
    """Let each listing of the revisions of a repository take that long."""
    kept = layout.revisions_folder("a/b") + "/sha256"

    def before(_number, action, path):
        if action == "list_folders" and path == kept:
            store.world.clock.advance(seconds())

    store.world.driver.before = before


def test_slow_mark_extends_the_list_ttl(store):
    store.world.blob(b"garbage")
    kept = store.world.image("v1")
    store.age()
    slow_marks(store, lambda: 100)
    assert store.collect().blobs == 1
    assert store.is_whole(kept)


def test_second_mark_slower_than_the_list_ttl_fails_the_run(store):
    store.world.blob(b"garbage")
    store.world.image("v1")
    store.age()
    looks = iter([1, 100])
    slow_marks(store, lambda: next(looks))
    with pytest.raises(CollectionFailed, match="too long"):
        store.collect()
    assert store.holds(b"garbage")


@pytest.mark.parametrize("action", ["list_folders", "walk", "list_folders_many"])
def test_unreadable_store_is_not_collected(store, action):
    store.world.blob(b"garbage")
    store.world.image("v1")
    store.age()

    def before(_number, called, path):
        if called == action:
            raise OSError("broken")

    before_paths = store.world.paths()
    store.world.driver.before = before
    with pytest.raises((CollectionFailed, RegistryError, OSError)):
        store.collect()
    store.world.driver.before = lambda *_: None
    assert [path for path in store.world.paths() if "collector" not in path] == before_paths


def test_cancelled_run_withdraws_its_list(store):
    gate = store.serve()
    store.world.blob(b"garbage")
    store.age()
    done(gate.poll())
    running = begin(store.collector().run())
    running.addErrback(lambda _: None)
    store.world.clock.advance(1)
    assert layout.DELETE_LIST in store.world.paths()
    running.cancel()
    assert layout.DELETE_LIST not in store.world.paths()
    assert store.holds(b"garbage")


def collect_at_rate(store, rate, **settings):
    """Return the result of a run and its duration in seconds."""
    began = store.world.clock.seconds()
    collected = store.collect(rate_limiter=RateLimiter(store.world.clock, rate), **settings)
    return collected, store.world.clock.seconds() - began


def test_rate_limits_removals_per_second(store):
    for number in range(60):
        store.world.blob(b"garbage %d" % number)
    store.age()
    collected, took = collect_at_rate(store, 4)
    assert collected.blobs == 60
    # Lists are limited to forty digests, so that each is swept long before it expires.
    assert store.observer.progress == [(40, 40), (20, 20)]
    assert 60 / 4 - 1 <= took <= 60 / 4 + 3


def test_rate_limits_manifests_read_per_second(store):
    for number in range(40):
        store.world.image(f"t{number}", annotations={"n": str(number)})
    store.age()
    collected, took = collect_at_rate(store, 4)
    assert collected.marked == 42
    assert 8 <= took <= 11
    # Their references are in the database now.
    assert collect_at_rate(store, 4)[1] <= 1


def test_rate_zero_is_unlimited(store):
    for number in range(60):
        store.world.blob(b"garbage %d" % number)
    store.age()
    assert collect_at_rate(store, 0)[1] <= 1


def test_rate_below_one_per_second_completes(store):
    for number in range(3):
        store.world.blob(b"garbage %d" % number)
    store.age()
    collected, took = collect_at_rate(store, 0.1)
    assert collected.blobs == 3
    assert took >= 20
