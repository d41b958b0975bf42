"""Manifests: preconditions, order of writes, crashes, and concurrent deletes."""

from __future__ import annotations

import pytest

from tests.repository.manifest_kit import OTHER, get, refusal, world_with
from tests.repository.watched_driver import Pauses, dies_at, fails_at
from tests.repository.worlds import begin, descriptor, done, image, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout
from twisted_registry.repository.manifests import Precondition

# Preconditions.

FIRST, SECOND = Digest.of(image()), Digest.of(image(annotations={"n": "2"}))


def put_second(world, **precondition):
    return world.put(
        image(annotations={"n": "2"}), OCI_IMAGE, "v1", precondition=Precondition(**precondition)
    )


@pytest.mark.parametrize(
    ("precondition", "on_none", "on_first"),
    [
        ({}, True, True),
        ({"digests": frozenset()}, False, True),
        ({"digests": frozenset([str(FIRST)])}, False, True),
        ({"digests": frozenset([str(FIRST), str(SECOND)])}, False, True),
        ({"digests": frozenset([str(SECOND)])}, False, False),
        ({"absent": True}, True, False),
        ({"none_of": frozenset([str(FIRST)])}, True, False),
        ({"none_of": frozenset([str(SECOND)])}, True, True),
        ({"digests": frozenset(), "none_of": frozenset([str(FIRST)])}, False, False),
        ({"digests": frozenset(), "absent": True}, False, False),
    ],
)
def test_precondition_decides_whether_a_tag_is_set(stocked, precondition, on_none, on_first):
    for holds, current in ((on_none, None), (on_first, FIRST)):
        if current is not None:
            stocked.put(image(), OCI_IMAGE, "v1")
        before = stocked.paths()
        if holds:
            put_second(stocked, **precondition)
            assert done(stocked.repo().tags.resolve("v1")) == SECOND
        else:
            error = refusal(put_second, stocked, **precondition)
            assert (error.code, error.http_status) == (ErrorCode.PRECONDITION_FAILED, 412)
            assert stocked.paths() == before
            assert done(stocked.repo().tags.resolve("v1")) == current


def test_torn_tag_counts_as_absent_for_a_precondition(stocked):
    stocked.write(layout.tag_current_link("a/b", "v1"), b"")
    put_second(stocked, absent=True)
    assert done(stocked.repo().tags.resolve("v1")) == SECOND


@pytest.mark.parametrize("same_process", [True, False])
def test_of_two_pushes_of_a_new_tag_one_succeeds(stocked, same_process):
    """Both read the tag before either writes it."""
    pauses = Pauses("put", "/link")
    stocked.driver.before = pauses
    other = stocked.registry if same_process else stocked.another()
    pushes = []
    for registry, number in ((stocked.registry, "1"), (other, "2")):
        content = image(annotations={"n": number})
        manifests = stocked.repo(registry=registry).manifests
        precondition = Precondition(absent=True)
        pushes.append(
            begin(manifests.put(Digest.of(content), content, OCI_IMAGE, ["v1"], precondition))
        )
    pauses.release()
    failures = []
    for push in pushes:
        push.addErrback(failures.append)
    (failure,) = failures
    assert failure.value.code is ErrorCode.PRECONDITION_FAILED
    stocked.check()


def test_of_two_pushes_that_replace_a_tag_one_succeeds(stocked):
    stocked.put(image(), OCI_IMAGE, "v1")
    pauses = Pauses("put", "/link")
    stocked.driver.before = pauses
    pushes = []
    for number in ("1", "2"):
        content = image(annotations={"n": number})
        precondition = Precondition(digests=frozenset([str(FIRST)]))
        pushes.append(
            begin(
                stocked.repo().manifests.put(
                    Digest.of(content), content, OCI_IMAGE, ["v1"], precondition
                )
            )
        )
    pauses.release()
    outcomes = []
    for push in pushes:
        push.addBoth(outcomes.append)
    assert sum(hasattr(outcome, "kind") for outcome in outcomes) == 1


# Order of writes, and crashes.


def test_order_of_writes_of_a_push(stocked):
    content = image(subject=descriptor(b"subject"))
    digest = Digest.of(content)
    before = len(stocked.driver.writes())
    stocked.put(content, OCI_IMAGE, "v1")
    assert [path for _, path in stocked.driver.writes()[before:]] == [
        layout.blob_data(digest),
        layout.revision_link("a/b", digest),
        layout.referrer_link("a/b", Digest.of(b"subject"), digest),
        layout.revision_subject("a/b", digest),
        layout.tag_index_link("a/b", "v1", digest),
        layout.tag_current_link("a/b", "v1"),
    ]


def test_media_type_is_stored_before_the_revision_link(world):
    digest = world.put(b"text", OTHER, "v1")
    paths = [path for _, path in world.driver.writes()]
    assert paths.index(layout.revision_media_type("a/b", digest)) < paths.index(
        layout.revision_link("a/b", digest)
    )


PUSHES = {
    "image": lambda world: world.put(image(), OCI_IMAGE, "v1"),
    "referrer": lambda world: world.put(image(subject=descriptor(b"s")), OCI_IMAGE, "v1"),
    "opaque": lambda world: world.put(b"text", OTHER, "v1"),
    "moved tag": lambda world: [
        world.put(content, OCI_IMAGE, "v1") for content in (image(), image(annotations={"a": "b"}))
    ],
}


@pytest.mark.parametrize("push", PUSHES)
@pytest.mark.parametrize("hook", ["before", "after"])
def test_crash_at_any_call_of_a_push_leaves_no_dangling_tag(push, hook):
    whole = world_with()
    count = len(whole.driver.calls)
    PUSHES[push](whole)
    calls = range(count, len(whole.driver.calls))
    assert len(calls) > 5
    for fatal in calls:
        world = world_with()
        setattr(world.driver, hook, dies_at(fatal))
        assert refusal(PUSHES[push], world).code is ErrorCode.UNAVAILABLE
        world.restart()
        world.check()
        PUSHES[push](world)
        world.check()
        assert world.tags() == ["v1"]
        assert world.paths() == whole.paths()


@pytest.mark.parametrize("hook", ["before", "after"])
def test_crash_at_any_call_of_a_delete_leaves_no_dangling_tag(hook):
    content = image(subject=descriptor(b"s"))

    def pushed():
        world = world_with()
        for tag in ("v1", "v2", "v3"):
            world.put(content, OCI_IMAGE, tag)
        world.put(image(), OCI_IMAGE, "other")
        return world

    whole = pushed()
    count = len(whole.driver.calls)
    digest = Digest.of(content)
    assert done(whole.repo().manifests.delete(digest)) == ["v1", "v2", "v3"]
    for fatal in range(count, len(whole.driver.calls)):
        world = pushed()
        setattr(world.driver, hook, dies_at(fatal))
        assert refusal(done, world.repo().manifests.delete(digest)).code is ErrorCode.UNAVAILABLE
        world.restart()
        world.check()
        assert "other" in world.tags()
        try:
            done(world.repo().manifests.delete(digest))
        except RegistryError as error:
            if error.code is not ErrorCode.MANIFEST_UNKNOWN:
                raise
        assert world.tags() == ["other"]
        assert world.referrers(Digest.of(b"s")) == []


# Concurrent pushes and deletes.


def race(action, ending):
    """Delete a manifest while a push of a tag is paused before a call."""
    world = world_with()
    digest = world.put(image(), OCI_IMAGE, "old")
    pauses = Pauses(action, ending)
    world.driver.before = pauses
    push = begin(world.repo().manifests.put(digest, image(), OCI_IMAGE, ["new"]))
    assert pauses.waiting
    pauses.holding = False
    done(world.repo().manifests.delete(digest))
    pauses.release()
    result_of(push)
    world.check()
    return world, digest


@pytest.mark.parametrize(
    ("action", "ending"),
    [("put", "/index/sha256/{}/link"), ("put", "new/current/link"), ("get", "/data")],
)
def test_push_overtaken_by_a_delete_stores_its_manifest_again(action, ending):
    world, digest = race(action, ending.format(Digest.of(image()).hex))
    assert world.tags() == ["new"]
    assert get(world, digest).content == image()


def push_by_digest_whose_link_is_removed():
    """Push an image without a tag; a collector that comes late removes its link before the end."""
    world = world_with()
    digest = Digest.of(image())
    pauses = Pauses("stat", layout.layers_folder("a/b"))
    world.driver.after = pauses
    push = begin(world.repo().manifests.put(digest, image(), OCI_IMAGE))
    assert pauses.waiting
    pauses.holding = False
    result_of(world.driver.driver.delete(layout.revision_folder("a/b", digest)))
    return world, push, pauses


def test_push_by_digest_stores_its_manifest_again_if_its_link_is_removed():
    world, push, pauses = push_by_digest_whose_link_is_removed()
    pauses.release()
    result_of(push)
    assert get(world, Digest.of(image())).content == image()
    world.check()


def test_push_by_digest_is_refused_if_its_blobs_are_removed_after_its_link():
    world, push, pauses = push_by_digest_whose_link_is_removed()
    again = Pauses("put", layout.revision_link("a/b", Digest.of(image())))
    world.driver.after = again
    pauses.release()
    assert again.waiting
    for content in (b"{}", b"layer"):
        done(world.repo().blobs.delete(Digest.of(content)))
    again.release()
    assert refusal(result_of, push).code is ErrorCode.MANIFEST_BLOB_UNKNOWN


def test_delete_overtaken_by_a_push_deletes_its_tag_too():
    world = world_with()
    digest = world.put(image(), OCI_IMAGE, "old")
    pauses = Pauses("delete", f"/revisions/sha256/{digest.hex}")
    world.driver.before = pauses
    delete = begin(world.repo().manifests.delete(digest))
    assert pauses.waiting
    world.put(image(), OCI_IMAGE, "new")
    pauses.release()
    assert sorted(result_of(delete)) == ["new", "old"]
    assert world.tags() == []
    world.check()


@pytest.mark.parametrize("ending", ["old/current/link", "/tags/old"])
def test_delete_of_a_manifest_keeps_a_tag_that_has_moved(ending):
    """A push moves the tag after the delete has read it, or right before it deletes it."""
    world = world_with()
    digest = world.put(image(), OCI_IMAGE, "old")
    content = image(annotations={"n": "2"})
    pauses = Pauses("get" if ending.endswith("link") else "delete", ending)
    setattr(world.driver, "after" if ending.endswith("link") else "before", pauses)
    delete = begin(world.repo().manifests.delete(digest))
    assert pauses.waiting
    pauses.holding = False
    push = begin(world.repo().manifests.put(Digest.of(content), content, OCI_IMAGE, ["old"]))
    pauses.release()
    result_of(push)
    result_of(delete)
    assert world.tags() == ["old"]
    assert done(world.repo().tags.resolve("old")) == Digest.of(content)
    world.check()


def test_second_delete_is_an_unknown_manifest(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    done(stocked.repo().manifests.delete(digest))
    assert stocked.tags() == []
    error = refusal(done, stocked.repo().manifests.delete(digest))
    assert error.code is ErrorCode.MANIFEST_UNKNOWN
    stocked.put(image(), OCI_IMAGE, "v1")
    assert get(stocked, "v1").content == image()


def test_manifest_stays_if_its_tag_cannot_be_deleted(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")

    def broken(number, action, path):
        if action == "delete" and path == layout.tag_folder("a/b", "v1"):
            fails_at(number)(number, action, path)

    stocked.driver.before = broken
    error = refusal(done, stocked.repo().manifests.delete(digest))
    assert error.code is ErrorCode.UNAVAILABLE
    stocked.check()
    assert get(stocked, "v1").content == image()


@pytest.mark.parametrize("damage", [b"x", b"{}", image()[:-1]])
def test_damaged_manifest_can_be_deleted(stocked, damage):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.write(layout.blob_data(digest), damage)
    assert done(stocked.repo().manifests.delete(digest)) == ["v1"]
    assert stocked.tags() == []
    assert not stocked.paths(layout.revision_folder("a/b", digest))


def test_concurrent_deletes_both_succeed(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    pauses = Pauses("delete", f"/revisions/sha256/{digest.hex}")
    stocked.driver.before = pauses
    first = begin(stocked.repo().manifests.delete(digest))
    second = begin(stocked.repo().manifests.delete(digest))
    pauses.release()
    assert sorted([*result_of(first), *result_of(second)]) == ["v1"]
    assert refusal(get, stocked, digest).code is ErrorCode.MANIFEST_UNKNOWN


def test_repository_may_contain_only_a_manifest(world):
    # Distribution 2.8.3 finds repositories by their _layers.
    world.put(b"text", OTHER, name="only")
    assert world.exists(layout.layers_folder("only"))
    assert done(world.repo("only").exists())
    assert not done(world.repo("none").exists())
