"""Manifests in the store: what must be there, the order of writes, and what is served."""

from __future__ import annotations

import json
import re

import pytest
from domain import (
    CONFIG,
    LAYER,
    Pauses,
    World,
    begin,
    descriptor,
    dies_at,
    done,
    fails_at,
    image,
    index,
    result_of,
)

from twisted_registry.digest import Digest
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.manifest import (
    DOCKER_IMAGE,
    DOCKER_PLUGIN_CONFIG,
    OCI_ARTIFACT,
    OCI_IMAGE,
    OCI_INDEX,
)
from twisted_registry.repository import layout
from twisted_registry.repository.manifests import Precondition
from twisted_registry.repository.policy import Policy

OTHER = "application/vnd.example.thing.v1+json"
#: An image that does not tell its type, so that any image type may be claimed for it.
UNTYPED = json.dumps(
    {"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": []}
).encode()


def refusal(function, *arguments, **options):
    with pytest.raises(RegistryError) as caught:
        function(*arguments, **options)
    return caught.value


def get(world, reference, name="a/b"):
    return done(world.repo(name).manifests.get(reference))


@pytest.fixture
def stocked(world):
    """The blobs of :func:`image` are there."""
    world.blob(b"{}")
    world.blob(b"layer")
    return world


# What is served.


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_byte_for_byte_with_its_type(stocked, algorithm):
    content = b"\n " + image() + b"\n"
    digest = Digest.of(content, algorithm)
    manifest = done(stocked.repo().manifests.put(digest, content, OCI_IMAGE, ["v1", "v2"]))
    assert manifest.media_type == OCI_IMAGE
    stored = get(stocked, digest)
    assert (stored.digest, stored.media_type, stored.content) == (digest, OCI_IMAGE, content)
    assert done(stocked.repo().tags.resolve("v1")) == digest
    assert done(stocked.repo().tags.resolve("v2")) == digest
    assert refusal(get, stocked, digest, name="other").code is ErrorCode.MANIFEST_UNKNOWN
    stocked.check()


def test_the_digest_must_be_that_of_the_content(stocked):
    manifests = stocked.repo().manifests
    error = refusal(done, manifests.put(Digest.of(b"x"), image(), OCI_IMAGE, ["v1"]))
    assert error.code is ErrorCode.DIGEST_INVALID
    assert stocked.tags() == []


@pytest.mark.parametrize("content", [b"text \xff", b"", b"{}", b"[1]"])
def test_a_type_that_nobody_knows_comes_back_as_it_was_pushed(world, content):
    digest = world.put(content, OTHER, "v1")
    world.restart()
    assert (get(world, digest).media_type, get(world, digest).content) == (OTHER, content)


def test_the_last_push_decides_the_type_of_a_document_that_tells_none(stocked):
    for media_type in (OCI_IMAGE, DOCKER_IMAGE, OTHER, OCI_IMAGE, DOCKER_IMAGE):
        digest = stocked.put(UNTYPED, media_type)
        assert get(stocked, digest).media_type == media_type


def test_no_type_is_kept_that_the_shape_tells(stocked):
    listing = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    for content, media_type in ((UNTYPED, OCI_IMAGE), (listing, OCI_INDEX), (image(), OCI_IMAGE)):
        digest = stocked.put(content, media_type)
        assert not stocked.exists(layout.revision_media_type("a/b", digest))
        assert get(stocked, digest).media_type == media_type


def test_a_repository_has_its_own_type_for_the_same_bytes(stocked):
    digest = stocked.put(UNTYPED, DOCKER_IMAGE)
    stocked.put(UNTYPED, OTHER, name="other")
    assert get(stocked, digest).media_type == DOCKER_IMAGE
    assert get(stocked, digest, name="other").media_type == OTHER


@pytest.mark.parametrize("torn", [b"", b"\xff", b"a/b\r\nx: y", b"nonsense", b"x" * 1000])
def test_a_torn_type_is_none(stocked, torn):
    digest = stocked.put(UNTYPED, OTHER)
    stocked.write(layout.revision_media_type("a/b", digest), torn)
    assert get(stocked, digest).media_type == OCI_IMAGE


def test_what_distribution_wrote_is_read(stocked):
    for content, media_type in (
        (UNTYPED, OCI_IMAGE),
        (image(mediaType=DOCKER_IMAGE), DOCKER_IMAGE),
        (index(mediaType=""), OCI_INDEX),
    ):
        digest = Digest.of(content)
        stocked.write(layout.blob(digest), content)
        stocked.write(layout.revision_link("a/b", digest), str(digest).encode())
        assert get(stocked, digest).media_type == media_type


@pytest.mark.parametrize("damage", [b"", b"x", image()[:-1]])
def test_damaged_bytes_are_not_served_and_the_next_push_repairs_them(stocked, damage):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.write(layout.blob(digest), damage)
    assert refusal(get, stocked, digest).code is ErrorCode.MANIFEST_UNKNOWN
    assert done(stocked.repo().manifests.parsed(digest)) is None
    stocked.put(image(), OCI_IMAGE)
    assert get(stocked, digest).content == image()


def test_a_torn_revision_link_is_healed_by_the_next_push(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.write(layout.revision_link("a/b", digest), b"")
    assert refusal(get, stocked, digest).code is ErrorCode.MANIFEST_UNKNOWN
    stocked.put(image(), OCI_IMAGE)
    assert get(stocked, digest).content == image()


def test_what_a_stored_manifest_says_is_read_only_if_it_is_sound(stocked):
    content = b"not what it says"
    digest = Digest.of(content)
    stocked.write(layout.blob(digest), content)
    stocked.write(layout.revision_link("a/b", digest), str(digest).encode())
    assert done(stocked.repo().manifests.parsed(digest)) is None
    assert done(stocked.repo().manifests.parsed(Digest.of(b"none"))) is None


# What must be there first.


def test_all_that_is_missing_is_told_and_nothing_is_written(world):
    error = refusal(world.put, image(), OCI_IMAGE, "v1")
    assert error.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    assert error.detail == {"digests": [str(Digest.of(b"{}")), str(Digest.of(b"layer"))]}
    assert world.paths() == []


def test_blobs_of_another_repository_do_not_count(stocked):
    assert refusal(stocked.put, image(), OCI_IMAGE, name="other").code is (
        ErrorCode.MANIFEST_BLOB_UNKNOWN
    )


def test_a_configuration_must_be_held_whatever_it_says_of_itself(world):
    # Only layers may stay elsewhere.
    world.blob(b"layer")
    for fields in (
        {"urls": ["https://example.org/config"]},
        {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"},
    ):
        content = image(config={**descriptor(b"{}", CONFIG), **fields})
        error = refusal(world.put, content, OCI_IMAGE)
        assert error.detail == {"digests": [str(Digest.of(b"{}"))]}


def test_a_foreign_layer_need_not_be_held(stocked):
    layers = [
        descriptor(b"elsewhere", urls=["https://example.org/layer"]),
        descriptor(b"elsewhere", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    ]
    stocked.put(image(layers=layers), OCI_IMAGE)


def test_the_blobs_of_an_artifact_must_be_held(world):
    content = json.dumps({"mediaType": OCI_ARTIFACT, "blobs": [descriptor(b"x")]}).encode()
    assert refusal(world.put, content, OCI_ARTIFACT).code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    world.blob(b"x")
    world.put(content, OCI_ARTIFACT)


def test_the_children_of_an_index_must_be_held_as_manifests_or_blobs(stocked):
    content = index(descriptor(image(), OCI_IMAGE), descriptor(b"layer", LAYER))
    error = refusal(stocked.put, content, OCI_INDEX)
    assert error.detail == {"digests": [str(Digest.of(image()))]}
    stocked.put(image(), OCI_IMAGE)
    stocked.put(content, OCI_INDEX, "v1")
    stocked.put(index(descriptor(content, OCI_INDEX)), OCI_INDEX)
    stocked.put(index(), OCI_INDEX)


def test_many_children_at_once(stocked):
    children = [descriptor(str(number).encode(), OCI_IMAGE) for number in range(500)]
    error = refusal(stocked.put, index(*children), OCI_INDEX)
    assert error.detail == {"digests": [child["digest"] for child in children]}


def test_a_subject_need_not_be_there(stocked):
    manifest = done(
        stocked.repo().manifests.put(
            Digest.of(image(subject=descriptor(b"later"))),
            image(subject=descriptor(b"later")),
            OCI_IMAGE,
        )
    )
    assert manifest.subject.digest == Digest.of(b"later")


@pytest.mark.parametrize("content", [b"", b"{}", b"text", image(schemaVersion=1)])
def test_what_is_no_manifest_is_refused(stocked, content):
    assert refusal(stocked.put, content, OCI_IMAGE).code is ErrorCode.MANIFEST_INVALID


def test_a_store_that_fails_is_no_missing_blob(stocked):
    # Two blobs, each with a link to read and bytes to look at.
    for number in range(2 if stocked.glances else 4):
        stocked.registry = stocked.another()  # which remembers nothing
        count = len(stocked.driver.calls)
        stocked.driver.before = fails_at(count + number)
        error = refusal(stocked.put, image(), OCI_IMAGE)
        assert error.code is ErrorCode.UNAVAILABLE


# Policy.


def world_with(**policy):
    world = World(policy=Policy(**policy))
    world.blob(b"{}")
    world.blob(b"layer")
    return world


def with_url(url):
    return image(layers=[descriptor(b"elsewhere", urls=[url])])


@pytest.mark.parametrize(
    ("allow", "deny", "url", "fine"),
    [
        ((), (), "https://example.org/x", True),
        ((), (), "HTTP://example.org/x", True),
        ((), (), "ftp://example.org/x", False),
        ((), (), "https://example.org/x#part", False),
        ((), (), "https://example.org/x y", False),
        ((), (), "https://", False),
        ((), (), "", False),
        ((), (), "//example.org", False),
        (("^https://good",), (), "https://good/x", True),
        (("^https://good", "other"), (), "http://other/x", True),
        (("^https://good",), (), "https://bad/good", False),
        ((), ("bad",), "https://example.org/x", True),
        ((), ("bad",), "https://bad/x", False),
        (("https://",), ("bad",), "https://x/bad", False),
    ],
)
def test_urls(allow, deny, url, fine):
    patterns = {
        "url_allow": tuple(map(re.compile, allow)),
        "url_deny": tuple(map(re.compile, deny)),
    }
    world = world_with(**patterns)
    if fine:
        world.put(with_url(url), OCI_IMAGE)
    else:
        error = refusal(world.put, with_url(url), OCI_IMAGE)
        assert (error.code, error.detail) == (ErrorCode.MANIFEST_INVALID, {"url": url})
    world_with(validate=False, **patterns).put(with_url(url), OCI_IMAGE)


def test_the_url_of_a_configuration_is_looked_at_too():
    world = world_with(url_deny=(re.compile("bad"),))
    content = image(config=descriptor(b"{}", CONFIG, urls=["https://bad/x"]))
    assert refusal(world.put, content, OCI_IMAGE).code is ErrorCode.MANIFEST_INVALID


def children():
    platforms = [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
        None,
        {},
        {"os": "linux"},
        {"architecture": None, "os": None},
    ]
    return [
        descriptor(bytes([number]), OCI_IMAGE, platform=platform)
        for number, platform in enumerate(platforms)
    ]


@pytest.mark.parametrize(
    ("platforms", "listed", "missing"),
    [
        ("all", (), [0, 1, 2, 3, 4, 5]),
        ("none", (), []),
        ("list", (), []),
        ("list", [("arm64", "linux")], [1]),
        ("list", [("linux", "amd64")], []),
        ("list", [("amd64", "linux"), ("arm64", "linux"), ("riscv", "linux")], [0, 1]),
    ],
)
def test_which_children_must_be_there(platforms, listed, missing):
    world = world_with(platforms=platforms, platform_list=frozenset(listed))
    content = index(*children())
    if missing:
        error = refusal(world.put, content, OCI_INDEX)
        assert error.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
        assert error.detail == {"digests": [children()[number]["digest"] for number in missing]}
    else:
        world.put(content, OCI_INDEX)


@pytest.mark.parametrize("platform", [{"os": []}, {"architecture": {}}, {"os": {"a": 1}}])
def test_a_strange_platform_is_refused_and_breaks_nothing(platform):
    world = world_with(platforms="list", platform_list=frozenset([("amd64", "linux")]))
    content = index(descriptor(b"x", OCI_IMAGE, platform=platform))
    assert refusal(world.put, content, OCI_INDEX).code is ErrorCode.MANIFEST_INVALID


@pytest.mark.parametrize("classes", [set(), {"image"}, {"plugin"}, {"image", "plugin"}])
@pytest.mark.parametrize("found", ["image", "plugin"])
def test_classes(classes, found):
    world = world_with(classes=frozenset(classes))
    media_type = DOCKER_PLUGIN_CONFIG if found == "plugin" else CONFIG
    content = image(mediaType=DOCKER_IMAGE, config=descriptor(b"{}", media_type))
    if classes and found not in classes:
        error = refusal(world.put, content, DOCKER_IMAGE, "v1")
        assert (error.code, error.http_status) == (ErrorCode.DENIED, 403)
        assert world.tags() == []
    else:
        world.put(content, DOCKER_IMAGE, "v1")
    world.put(index(), OCI_INDEX)


def test_without_validation_nothing_need_be_there_but_a_manifest_is_still_one():
    world = World(policy=Policy(validate=False))
    world.put(image(), OCI_IMAGE, "v1")
    assert refusal(world.put, b"{}", OCI_IMAGE).code is ErrorCode.MANIFEST_INVALID


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
        ({"unlike": frozenset([str(FIRST)])}, True, False),
        ({"unlike": frozenset([str(SECOND)])}, True, True),
        ({"digests": frozenset(), "unlike": frozenset([str(FIRST)])}, False, False),
        ({"digests": frozenset(), "absent": True}, False, False),
    ],
)
def test_preconditions(stocked, precondition, on_none, on_first):
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


def test_a_torn_tag_is_no_tag_for_a_precondition(stocked):
    stocked.write(layout.tag_current("a/b", "v1"), b"")
    put_second(stocked, absent=True)
    assert done(stocked.repo().tags.resolve("v1")) == SECOND


@pytest.mark.parametrize("same_process", [True, False])
def test_of_two_pushes_of_a_new_tag_one_succeeds(stocked, same_process):
    """Both have looked and found no tag before either writes."""
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


# The order of writes, and crashes.


def test_blob_then_revision_then_referrer_then_tag(stocked):
    content = image(subject=descriptor(b"subject"))
    digest = Digest.of(content)
    before = len(stocked.driver.writes())
    stocked.put(content, OCI_IMAGE, "v1")
    assert [path for _, path in stocked.driver.writes()[before:]] == [
        layout.blob(digest),
        layout.revision_link("a/b", digest),
        layout.referrer_link("a/b", Digest.of(b"subject"), digest),
        layout.tag_index("a/b", "v1", digest),
        layout.tag_current("a/b", "v1"),
    ]


def test_a_type_that_has_to_be_kept_is_there_before_the_revision(world):
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
def test_a_crash_at_any_call_leaves_no_tag_that_names_nothing(push, hook):
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
def test_a_crash_in_a_delete_leaves_no_tag_that_names_nothing(hook):
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


# Pushes and deletes at once.


def race(action, ending):
    """A push of a tag that stands still before one call, while the manifest is deleted."""
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
def test_a_push_that_a_delete_overtakes_ends_with_its_manifest(action, ending):
    world, digest = race(action, ending.format(Digest.of(image()).hex))
    assert world.tags() == ["new"]
    assert get(world, digest).content == image()


def test_a_delete_that_a_push_overtakes_takes_its_tag_too():
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
def test_a_tag_that_moves_on_is_not_taken_along_with_the_manifest_that_it_left(ending):
    """The delete has read the tag, or is about to remove it, when a push moves it."""
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


def test_deleting_twice(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    done(stocked.repo().manifests.delete(digest))
    assert stocked.tags() == []
    error = refusal(done, stocked.repo().manifests.delete(digest))
    assert error.code is ErrorCode.MANIFEST_UNKNOWN
    stocked.put(image(), OCI_IMAGE, "v1")
    assert get(stocked, "v1").content == image()


def test_a_tag_that_can_not_be_removed_keeps_its_manifest(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")

    def broken(number, action, path):
        if action == "delete" and path == layout.tag("a/b", "v1"):
            fails_at(number)(number, action, path)

    stocked.driver.before = broken
    error = refusal(done, stocked.repo().manifests.delete(digest))
    assert error.code is ErrorCode.UNAVAILABLE
    stocked.check()
    assert get(stocked, "v1").content == image()


@pytest.mark.parametrize("damage", [b"x", b"{}", image()[:-1]])
def test_a_damaged_manifest_can_be_deleted(stocked, damage):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.write(layout.blob(digest), damage)
    assert done(stocked.repo().manifests.delete(digest)) == ["v1"]
    assert stocked.tags() == []
    assert not stocked.paths(layout.revision("a/b", digest))


def test_two_deletes_at_once_both_end(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    pauses = Pauses("delete", f"/revisions/sha256/{digest.hex}")
    stocked.driver.before = pauses
    first = begin(stocked.repo().manifests.delete(digest))
    second = begin(stocked.repo().manifests.delete(digest))
    pauses.release()
    assert sorted([*result_of(first), *result_of(second)]) == ["v1"]
    assert refusal(get, stocked, digest).code is ErrorCode.MANIFEST_UNKNOWN


def test_the_only_thing_in_a_repository_may_be_a_manifest(world):
    # 2.8.3 finds repositories by their _layers.
    world.put(b"text", OTHER, name="only")
    assert world.exists(layout.layers("only"))
    assert done(world.repo("only").exists())
    assert not done(world.repo("none").exists())
