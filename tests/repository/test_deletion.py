"""Deletion of a repository beside pushes, at every step of either, on each kind of store."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest

from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import begin, done, image, result_of
from twisted_registry.maintenance.undelete import Undelete
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository.deletion import DeletedCounts
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.trash import TrashDeleter

REPOSITORIES = "docker/registry/v2/repositories"


def with_trash(world):
    world.deleter = TrashDeleter(world.driver, world.clock)
    world.registry = world.another()
    return world


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def kind(request):
    return request.param


@pytest.fixture(params=[lambda world: world, with_trash], ids=["for good", "trash"])
def prepare(request):
    return request.param


@pytest.fixture
def world(kind, prepare):
    return prepare(kind())


def delete(world, name="a/b"):
    return done(world.repo(name).delete())


def left(world, name="a/b"):
    return [path for path in world.paths() if path.startswith(f"{REPOSITORIES}/{name}/")]


def is_whole(world, name="a/b"):
    """Check that each tag names an image with its blobs; return the number of tags."""
    repository = world.repo(name)
    tags = world.tags(name)
    for tag in tags:
        stored = done(repository.manifests.get(tag))
        parsed = done(repository.manifests.get_parsed(stored.digest))
        for blob in parsed[1].blobs:
            done(repository.blobs.size(blob.digest))
    return len(tags)


def test_counts_and_events_of_a_deletion(world):
    world.image("v1")
    world.image("v2")
    world.image("v1", "a/b/c")
    assert delete(world) == DeletedCounts(2, 1, 2)
    assert left(world) == [path for path in left(world) if path.startswith(f"{REPOSITORIES}/a/b/c")]
    assert is_whole(world, "a/b/c") == 1
    assert done(world.registry.catalog("", 10)) == (["a/b/c"], False)
    events = [(event.action, event.kind) for event in world.listener.take()]
    assert events.count(("delete", "tag")) == 2
    assert events.count(("delete", "manifest")) == 1
    assert events.count(("delete", "blob")) == 2


def test_progress_is_reported(world):
    world.image("v1")
    reported = []
    done(world.repo().delete(reported.append))
    assert reported[0] == DeletedCounts(1, 0, 0)
    assert reported[-1] == DeletedCounts(1, 1, 2)


def test_leftovers_of_crashes_and_stray_files_are_deleted(world):
    digest = world.image("v1")
    folder = f"{REPOSITORIES}/a/b"
    for path in (
        f"_layers/sha256/{digest.hex}/link",
        "_layers/sha256/stray",
        f"_layers/sha256/{digest.hex}/stray",
        f"_manifests/revisions/sha256/{'0' * 64}/link",
        f"_manifests/tags/torn/index/sha256/{digest.hex}/link",
        "_manifests/tags/empty/current/link",
        "_manifests/tags/-/current/link",
        "_manifests/stray",
        "_uploads/not-an-id/data",
    ):
        world.write(f"{folder}/{path}", b"")
    delete(world)
    assert left(world) == [f"{folder}/_uploads/not-an-id/data"]
    assert not done(world.repo().exists())


def test_deleted_repository_is_restored_from_the_trash(kind):
    world = with_trash(kind())
    digest = world.image("v1")
    world.put(image(artifactType="a/b"), OCI_IMAGE, "v2")
    world.blob(b"alone")
    before = left(world)
    world.clock.advance(1)
    delete(world)
    registry = Registry(world.driver, world.clock, deleter=world.deleter)
    assert done(Undelete(registry).repository("a/b")) == []
    assert left(world) == before
    assert world.tags() == ["v1", "v2"]
    assert done(world.repo().manifests.get("v1")).digest == digest
    assert is_whole(world) == 2


def test_deletion_gives_up_if_clients_keep_pushing(world):
    world.image("v1")

    def pushes(_number, action, path):
        if action == "walk" and path.endswith("_layers"):
            world.write(f"{REPOSITORIES}/a/b/_layers/sha256/{'0' * 64}/link", b"")

    world.driver.before = pushes
    with pytest.raises(RegistryError) as caught:
        delete(world)
    assert caught.value.http_status == 503


def between(world, at, outer, inner):
    """Run ``inner`` right before call number ``at`` of ``outer``.

    Returns whether there was such a call, and the result of ``outer``.
    """
    at += len(world.driver.calls)
    happened = []

    def before(number, _action, _path):
        if number == at:
            world.driver.before = lambda *_: None
            happened.append(at)
            inner()

    world.driver.before = before
    outcome = outer()
    world.driver.before = lambda *_: None
    return bool(happened), outcome


def test_push_at_every_step_of_a_deletion(kind, prepare):
    moments = 0
    happened = True
    while happened:
        world = prepare(kind())
        world.image("old")
        pushed = []

        def come(world=world, pushed=pushed):
            with suppress(RegistryError):
                world.image("new", artifactType="new/one")
                pushed.append(True)

        happened, _ = between(world, moments, partial(delete, world), come)
        moments += 1
        world.check()
        count = is_whole(world)
        assert "old" not in world.tags()
        # An image pushed after the last look stays, as if it had been pushed after the deletion.
        assert count == done(world.repo().exists())
        assert pushed or not count
    assert moments > 5


def put_image(world):
    """Push a manifest whose blobs exist, with two tags; return whether it was accepted."""
    content = image()
    try:
        done(world.repo().manifests.put(Digest.of(content), content, OCI_IMAGE, ["new", "more"]))
    except RegistryError:
        return False
    return True


def test_deletion_at_every_step_of_a_push(kind, prepare):
    """An accepted image is complete, or deleted; never a part of it remains."""
    answers = []
    happened = True
    while happened:
        world = prepare(kind())
        for content in (b"{}", b"layer"):
            world.blob(content)
        deleting = []

        def start(world=world, deleting=deleting):
            # It may have to wait for a tag that is being set.
            deleting.append(begin(world.repo().delete()))

        happened, answered = between(world, len(answers), partial(put_image, world), start)
        for deferred in deleting:
            result_of(deferred)
        # The deletion came after it, or before its blobs were checked.
        assert is_whole(world) in ({0, 2} if answered else {0})
        answers.append(answered)
    assert answers.count(False) > 3
    assert len(answers) > 8
