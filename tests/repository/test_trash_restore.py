"""Pushes restore the collected content that they need from the trash, and nothing else."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.gc.collected_store import heartbeats_running
from tests.repository.trash_kit import WORLDS, KeptStore
from tests.repository.worlds import begin, descriptor, done, image, index
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.trash import TrashedKind

LAYER = Digest.of(b"layer")


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def store(request):
    with closing(KeptStore(request.param())) as store:
        yield store


def swept(store, name="a/b"):
    """Sweep the blobs of an image before their manifest is pushed."""
    for content in (b"{}", b"layer"):
        store.world.blob(content, name)
    store.age()
    assert store.collect().blobs == 2


def refused(store, content=None, media_type=OCI_IMAGE, name="a/b"):
    with pytest.raises(RegistryError) as caught:
        store.world.put(content or image(), media_type, "v1", name)
    assert caught.value.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    return caught.value.detail["digests"]


def test_manifest_push_restores_collected_blobs(store):
    swept(store)
    with pytest.raises(RegistryError):
        # For a query it is missing.
        done(store.world.repo().blobs.size(LAYER))
    digest = store.world.put(image(), OCI_IMAGE, "v1")
    assert store.is_whole(digest)
    assert store.trash(TrashedKind.BLOB) == store.trash(TrashedKind.LAYER) == []
    # Restored content is as young as pushed content.
    assert store.collect(untagged=True).blobs == 0
    assert store.is_whole(digest)


def test_blobs_are_restored_only_for_their_repository(store):
    swept(store)
    assert len(refused(store, name="other")) == 2
    assert not store.holds(b"layer")


def test_deleted_blob_is_not_restored(store):
    for content in (b"{}", b"layer"):
        store.world.blob(content)
    done(store.world.repo().blobs.delete(LAYER))
    store.age()
    store.collect()
    assert refused(store) == [str(LAYER)]


def test_push_is_refused_if_the_trash_is_empty(store):
    swept(store)
    store.age()
    store.empty(keep=0.0)
    assert len(refused(store)) == 2


def test_link_is_restored_if_the_bytes_were_pushed_again(store):
    swept(store)
    store.world.blob(b"layer", "other")
    assert store.is_whole(store.world.put(image(), OCI_IMAGE, "v1"))


def collected_child(store):
    child = image(layers=[descriptor(b"layer"), descriptor(b"deep")], artifactType="a/b")
    for content in (b"{}", b"layer", b"deep"):
        store.world.blob(content)
    store.world.put(child, OCI_IMAGE)
    store.age()
    assert store.collect(untagged=True).manifests == 1
    return child


def test_index_push_restores_collected_children(store):
    child = collected_child(store)
    digest = store.world.put(index(descriptor(child, OCI_IMAGE)), OCI_INDEX, "multi")
    assert store.is_whole(digest)
    assert store.holds(b"deep")
    assert store.trash(TrashedKind.MANIFEST) == []


def test_child_without_its_blobs_is_not_restored(store):
    child = collected_child(store)
    (layer,) = [item for item in store.trash(TrashedKind.BLOB) if item.digest == Digest.of(b"deep")]
    store.world.remove(layer.path)
    content = index(descriptor(child, OCI_IMAGE))
    assert refused(store, content, OCI_INDEX) == [str(Digest.of(child))]


def test_child_without_its_bytes_is_not_restored(store):
    child = collected_child(store)
    (held,) = [item for item in store.trash(TrashedKind.BLOB) if item.digest == Digest.of(child)]
    store.world.remove(held.path)
    content = index(descriptor(child, OCI_IMAGE))
    assert refused(store, content, OCI_INDEX) == [str(Digest.of(child))]


@pytest.mark.parametrize("source", ["a/b", None])
def test_mount_restores_a_collected_blob(store, source):
    swept(store)
    assert done(store.world.repo("other").blobs.mount(LAYER, source)) == 5
    assert store.holds(b"layer")
    assert done(store.world.repo("other").blobs.size(LAYER)) == 5
    with pytest.raises(RegistryError):
        done(store.world.repo("a/b").blobs.size(LAYER))


def test_mount_from_another_repository_restores_nothing(store):
    swept(store)
    assert done(store.world.repo("other").blobs.mount(LAYER, "third")) is None
    assert done(store.world.repo("other").blobs.mount(Digest.of(b"none"), None)) is None
    assert not store.holds(b"layer")


def sweeping(store):
    """Return the gate of a registry that has seen a sweep of content that is in the trash."""
    swept(store)
    gate = store.serve()
    condemned = DeleteList("some", Phase.CONDEMNED, 60.0, frozenset([LAYER]))
    store.world.write(layout.DELETE_LIST, condemned.to_bytes())
    done(gate.poll())
    return gate


def test_restore_waits_for_the_end_of_a_sweep(store):
    gate = sweeping(store)
    pushed = []
    manifests = store.world.repo().manifests
    putting = begin(manifests.put(Digest.of(image()), image(), OCI_IMAGE, ["v1"]))
    putting.addBoth(pushed.append)
    store.world.clock.advance(1)
    assert pushed == []
    assert not store.holds(b"layer")
    store.world.remove(layout.DELETE_LIST)
    heartbeats_running(store, gate)
    store.world.clock.advance(1)
    assert pushed
    assert store.is_whole(Digest.of(image()))


def test_mount_during_a_long_sweep_falls_back_to_an_upload(store):
    sweeping(store)
    answers = []
    begin(store.world.repo("other").blobs.mount(LAYER, "a/b")).addBoth(answers.append)
    for _ in range(20):
        assert answers == []
        store.world.clock.advance(1)
    assert answers == [None]
    assert not store.holds(b"layer")
