"""Images, tags and repositories that are restored from the trash by command."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.repository.trash_kit import WORLDS, KeptStore
from tests.repository.worlds import descriptor, done, image, index
from twisted_registry.maintenance import undelete
from twisted_registry.maintenance.undelete import NotRecoverable, Undelete
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.trash import Trash, TrashedKind
from twisted_registry.storage.interfaces import StorageError

LAYER = Digest.of(b"layer")


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def store(request):
    with closing(KeptStore(request.param())) as store:
        yield store


def make_undelete(store):
    world = store.world
    registry = Registry(world.driver, world.clock, gate=world.gate, deleter=store.deleter)
    return Undelete(registry)


def multi(store, tag="multi"):
    """Push an image and an index that names it."""
    store.world.image()
    return store.world.put(index(descriptor(image(), OCI_IMAGE)), OCI_INDEX, tag)


def collect_all(store):
    store.age()
    store.collect(untagged=True)
    assert not store.holds(b"layer")


def test_collected_image_is_restored(store):
    digest = multi(store)
    done(store.world.repo().manifests.delete(digest))
    collect_all(store)
    assert done(make_undelete(store).manifest("a/b", digest, ["multi"])) == 4
    assert store.is_whole(digest)
    assert store.world.tags() == ["multi"]
    assert [item.kind for item in store.trash() if item.kind is not TrashedKind.TAG] == []
    store.age()
    assert store.collect(untagged=True).blobs == 0


def test_deleted_image_is_restored_before_its_collection(store):
    digest = multi(store)
    done(store.world.repo().manifests.delete(digest))
    done(store.world.repo().blobs.delete(LAYER))
    assert done(make_undelete(store).manifest("a/b", digest)) == 4
    assert store.is_whole(digest)


@pytest.mark.parametrize("part", [b"layer", image()])
def test_incomplete_image_is_not_touched_and_what_is_missing_is_named(store, part):
    digest = multi(store)
    done(store.world.repo().manifests.delete(digest))
    collect_all(store)
    missing = Digest.of(part)
    (item,) = [item for item in store.trash(TrashedKind.BLOB) if item.digest == missing]
    store.world.remove(item.path)
    before = store.world.paths()
    with pytest.raises(NotRecoverable, match=str(missing)):
        done(make_undelete(store).manifest("a/b", digest, ["multi"]))
    assert store.world.paths() == before


def test_unknown_digest_is_not_recoverable(store):
    with pytest.raises(NotRecoverable):
        done(make_undelete(store).manifest("a/b", LAYER))
    with pytest.raises(NotRecoverable):
        done(make_undelete(store).layer("a/b", LAYER))


def test_manifest_without_media_type_keeps_the_type_of_its_push(store):
    content = image(mediaType=None)
    for part in (b"{}", b"layer"):
        store.world.blob(part)
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    digest = store.world.put(content, docker, "v1")
    done(store.world.repo().manifests.delete(digest))
    collect_all(store)
    done(make_undelete(store).manifest("a/b", digest, ["v1"]))
    assert done(store.world.repo().manifests.get("v1")).media_type == docker


def test_deleted_blob_is_restored(store):
    store.world.blob(b"layer")
    done(store.world.repo().blobs.delete(LAYER))
    collect_all(store)
    done(make_undelete(store).layer("a/b", LAYER))
    assert done(store.world.repo().blobs.size(LAYER)) == 5
    assert store.trash() == []


def test_deleted_content_of_a_repository_is_restored(store):
    kept = store.world.image("stays", artifactType="kept/type")
    digest = multi(store)
    store.world.image("v1", "a/b/c")
    store.world.clock.advance(1)
    repository = store.world.repo()
    done(repository.manifests.delete(digest))
    done(repository.manifests.delete(Digest.of(image())))
    done(repository.tags.delete("stays"))
    done(repository.blobs.delete(LAYER))
    done(store.world.repo("a/b/c").tags.delete("v1"))
    assert done(make_undelete(store).repository("a/b")) == []
    assert store.world.tags() == ["multi", "stays"]
    assert store.world.tags("a/b/c") == []
    assert store.is_whole(digest)
    assert store.is_whole(kept)


def test_many_tags_of_one_image_are_restored_with_few_lookups(store, monkeypatch):
    monkeypatch.setattr(undelete, "_TAGS_PER_PUT", 3)
    for number in range(8):
        digest = store.world.image(f"t{number}")
    store.world.clock.advance(1)
    done(store.world.repo().manifests.delete(digest))
    calls = len(store.world.driver.calls)
    assert done(make_undelete(store).repository("a/b")) == []
    assert store.world.tags() == [f"t{number}" for number in range(8)]
    again = [path for action, path in store.world.driver.calls[calls:] if action == "walk"]
    assert len([path for path in again if path.endswith(digest.hex)]) < 20
    assert [item.kind for item in store.trash() if item.kind is not TrashedKind.TAG] == []


def test_repository_is_restored_except_for_incomplete_images(store):
    store.world.image("v1")
    other = store.world.image("v2", artifactType="other/type")
    store.world.clock.advance(1)
    repository = store.world.repo()
    for tag in ("v1", "v2"):
        done(repository.tags.delete(tag))
    done(repository.manifests.delete(other))
    store.age()
    store.collect()
    (item,) = [item for item in store.trash(TrashedKind.BLOB) if item.digest == other]
    store.world.remove(item.path)
    first, second = done(make_undelete(store).repository("a/b"))
    assert first.startswith("a/b:v2: ")
    assert str(other) in second
    assert store.world.tags() == ["v1"]


def test_tag_that_was_set_again_is_not_changed(store):
    store.world.image("v1")
    store.world.clock.advance(1)
    done(store.world.repo().tags.delete("v1"))
    store.world.clock.advance(1)
    newer = store.world.image("v1", artifactType="newer/type")
    assert done(make_undelete(store).repository("a/b")) == []
    assert done(store.world.repo().tags.resolve("v1")) == newer


def at(store, seconds):
    return done(Trash(store.world.driver).tag_at("a/b", "latest", seconds))


def test_history_of_a_tag_has_each_change(store):
    began = store.world.clock.seconds()
    first = store.world.image("latest")
    store.world.clock.advance(10)
    second = store.world.image("latest", artifactType="new/type")
    store.world.clock.advance(10)
    done(store.world.repo().tags.delete("latest"))
    store.world.clock.advance(10)
    third = store.world.image("latest", artifactType="newest/type")
    moments = [began - 1, began + 5, began + 15, began + 25, began + 35, None]
    assert [at(store, moment) for moment in moments] == [None, first, second, None, third, None]
    found = done(Trash(store.world.driver).tag_changes("a/b", "latest"))
    assert [(change.seconds - began, change.before, change.now) for change in found] == [
        (0, None, first),
        (10, first, second),
        (20, second, None),
        (30, None, third),
    ]
    # The next record replaces those that a power cut tore.
    for item in store.trash(TrashedKind.TAG)[:2]:
        store.world.write(item.path, b"sha256:torn")
    assert at(store, began + 15) == second


def test_tag_without_history_has_no_earlier_digest(store):
    assert at(store, None) is None
    assert at(store, 10.0) is None


def test_an_object_that_fails_keeps_no_other_from_being_restored(store):
    images = {tag: store.world.image(tag, artifactType=f"an/{tag}") for tag in ("v1", "v2")}
    store.age(1)
    for digest in images.values():
        done(store.world.repo().manifests.delete(digest))
    blob = layout.blob_data(images["v1"])
    *_, record = (item.path for item in store.trash(TrashedKind.TAG) if item.tag == "v1")

    for path in (blob, record):

        def before(_number, _action, called, path=path):
            if called == path:
                raise StorageError(path, "broken")

        store.world.driver.before = before
        problems = done(make_undelete(store).repository("a/b"))
        assert [problem.startswith(("a/b:v1: ", f"a/b@{images['v1']}")) for problem in problems]
        store.world.driver.before = lambda *_: None
        assert "v2" in store.world.tags()
        assert store.is_whole(images["v2"])
        store.age(1)
        done(store.world.repo().manifests.delete(images["v2"]))
    assert done(make_undelete(store).repository("a/b")) == []
    assert store.world.tags() == ["v1", "v2"]
