"""Removal of empty repositories from the catalog, on each kind of store, with and without trash."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.gc.collected_store import Store
from tests.repository.bucket_world import BucketWorld
from tests.repository.trash_kit import WORLDS, KeptStore
from tests.repository.worlds import descriptor, done, image
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.deletion import prune_empty_repository


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def kind(request):
    return request.param


@pytest.fixture(params=[Store, KeptStore], ids=["for good", "trash"])
def store(request, kind):
    with closing(request.param(kind())) as store:
        yield store


def listed(store):
    names, more = done(store.world.another().catalog("", 100))
    assert not more
    return names


def test_repository_leaves_the_catalog_after_delete_and_collection(store):
    world = store.world
    for name in ("a/b", "a/b/c", "d"):
        digest = world.image("v1", name)
        named = {"mediaType": OCI_IMAGE, "digest": str(digest), "size": 1}
        world.put(image(subject=named, artifactType="s/s"), OCI_IMAGE, name=name)
    world.blob(b"other", "d")
    for name in ("a/b", "d"):
        done(world.repo(name).tags.delete("v1"))
        done(world.repo(name).blobs.delete(Digest.of(b"layer")))
        done(world.repo(name).blobs.delete(Digest.of(b"{}")))
    assert listed(store) == ["a/b", "a/b/c", "d"]
    store.age()
    collected = store.collect(untagged=True)
    # The last blob of one is collected, that of the other was deleted.
    assert collected.vacated == 2
    assert not store.holds(b"other")
    assert listed(store) == ["a/b/c"]
    assert not done(world.repo("d").exists())
    assert not world.exists(layout.repository_folder("d"))
    assert world.tags("a/b/c") == ["v1"]
    # A new push brings it back.
    digest = world.image("v1", "d")
    assert store.is_whole(digest, "d")
    assert listed(store) == ["a/b/c", "d"]
    assert store.collect(untagged=True).vacated == 0


def test_repository_with_any_file_stays(store):
    world = store.world
    world.blob(b"young", "blobs")
    world.image(name="manifests")
    world.write(f"{layout.manifests_folder('stray')}/note", b"unknown")
    assert store.collect().vacated == 0
    assert listed(store) == ["blobs", "manifests", "stray"]


def test_upload_survives_pruning(store):
    world = store.world
    world.image("v1")
    upload = done(world.repo().uploads.start())
    done(world.repo().manifests.delete(done(world.repo().manifests.get("v1")).digest))
    for content in (b"{}", b"layer"):
        done(world.repo().blobs.delete(Digest.of(content)))
    store.age()
    store.collect()
    assert listed(store) == []
    assert done(world.repo().uploads.find(upload.id)).size == 0


def test_dry_run_prunes_nothing(store):
    world = store.world
    world.blob(b"x")
    done(world.repo().blobs.delete(Digest.of(b"x")))
    assert store.collect(dry_run=True).vacated == 0
    # A bucket has no empty folders.
    assert listed(store) == ([] if isinstance(world, BucketWorld) else ["a/b"])


def test_push_at_every_step_of_pruning(kind):
    """It stays in the catalog, for Distribution too, and keeps its referrers."""
    moment, happened = 0, True
    while happened:
        world = kind()
        digest = world.image("v1")
        done(world.repo().manifests.delete(digest))
        for content in (b"{}", b"layer"):
            done(world.repo().blobs.delete(Digest.of(content)))
        done(catalog.mark_repository(world.driver, "a/b"))
        at, happened = len(world.driver.calls) + moment, False
        signature = image(
            subject={**descriptor(image(), OCI_IMAGE), "size": 1}, config=descriptor(b"{}")
        )

        def push(number, _action, _path, world=world, at=at, content=signature):
            nonlocal happened
            if number == at:
                world.driver.before = lambda *_: None
                happened = True
                world.image("v1")
                world.put(content, OCI_IMAGE, "signature")

        world.driver.before = push
        left = done(prune_empty_repository(world.driver, "a/b"))
        world.driver.before = lambda *_: None
        if happened:
            assert world.tags() == ["signature", "v1"]
            assert world.referrers(digest) == [Digest.of(signature)]
            assert done(catalog.is_repository(world.driver, "a/b", layout.LAYER_MARKERS))
            world.check()
        else:
            assert left
        moment += 1
    assert moment > 4
