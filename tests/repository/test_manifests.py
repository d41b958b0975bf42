"""Manifests: serving them, and the content that a push requires."""

from __future__ import annotations

import json

import pytest

from tests.repository.manifest_kit import OTHER, UNTYPED, get, refusal
from tests.repository.watched_driver import fails_at
from tests.repository.worlds import (
    CONFIG,
    LAYER,
    begin,
    descriptor,
    done,
    image,
    index,
    result_of,
)
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.oci.manifest import (
    DOCKER_IMAGE,
    OCI_ARTIFACT,
    OCI_IMAGE,
    OCI_INDEX,
    ManifestKind,
)
from twisted_registry.repository import layout

# Serving.


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_manifest_is_returned_byte_for_byte_with_its_media_type(stocked, algorithm):
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


def test_digest_must_match_the_content(stocked):
    manifests = stocked.repo().manifests
    error = refusal(done, manifests.put(Digest.of(b"x"), image(), OCI_IMAGE, ["v1"]))
    assert error.code is ErrorCode.DIGEST_INVALID
    assert stocked.tags() == []


@pytest.mark.parametrize("content", [b"text \xff", b"", b"{}", b"[1]"])
def test_unknown_media_type_is_preserved(world, content):
    digest = world.put(content, OTHER, "v1")
    world.restart()
    assert (get(world, digest).media_type, get(world, digest).content) == (OTHER, content)


def test_last_push_sets_the_type_of_a_manifest_without_one(stocked):
    for media_type in (OCI_IMAGE, DOCKER_IMAGE, OTHER, OCI_IMAGE, DOCKER_IMAGE):
        digest = stocked.put(UNTYPED, media_type)
        assert get(stocked, digest).media_type == media_type


def test_media_type_that_can_be_guessed_is_not_stored(stocked):
    listing = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    for content, media_type in ((UNTYPED, OCI_IMAGE), (listing, OCI_INDEX), (image(), OCI_IMAGE)):
        digest = stocked.put(content, media_type)
        assert not stocked.exists(layout.revision_media_type("a/b", digest))
        assert get(stocked, digest).media_type == media_type


def test_media_type_belongs_to_the_repository(stocked):
    digest = stocked.put(UNTYPED, DOCKER_IMAGE)
    stocked.put(UNTYPED, OTHER, name="other")
    assert get(stocked, digest).media_type == DOCKER_IMAGE
    assert get(stocked, digest, name="other").media_type == OTHER


@pytest.mark.parametrize("torn", [b"", b"\xff", b"a/b\r\nx: y", b"nonsense", b"x" * 1000])
def test_torn_media_type_is_ignored(stocked, torn):
    digest = stocked.put(UNTYPED, OTHER)
    stocked.write(layout.revision_media_type("a/b", digest), torn)
    assert get(stocked, digest).media_type == OCI_IMAGE


def test_manifest_written_by_distribution_is_served(stocked):
    for content, media_type in (
        (UNTYPED, OCI_IMAGE),
        (image(mediaType=DOCKER_IMAGE), DOCKER_IMAGE),
        (index(mediaType=""), OCI_INDEX),
    ):
        digest = Digest.of(content)
        stocked.write(layout.blob_data(digest), content)
        stocked.write(layout.revision_link("a/b", digest), str(digest).encode())
        assert get(stocked, digest).media_type == media_type


@pytest.mark.parametrize("damage", [b"", b"x", image()[:-1]])
def test_damaged_manifest_is_unknown_until_the_next_push(stocked, damage):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.write(layout.blob_data(digest), damage)
    assert refusal(get, stocked, digest).code is ErrorCode.MANIFEST_UNKNOWN
    assert done(stocked.repo().manifests.get_parsed(digest)) is None
    stocked.put(image(), OCI_IMAGE)
    assert get(stocked, digest).content == image()


def test_torn_revision_link_is_repaired_by_the_next_push(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.write(layout.revision_link("a/b", digest), b"")
    assert refusal(get, stocked, digest).code is ErrorCode.MANIFEST_UNKNOWN
    stocked.put(image(), OCI_IMAGE)
    assert get(stocked, digest).content == image()


def test_invalid_stored_manifest_is_not_parsed(stocked):
    content = b"not what it says"
    digest = Digest.of(content)
    stocked.write(layout.blob_data(digest), content)
    stocked.write(layout.revision_link("a/b", digest), str(digest).encode())
    assert done(stocked.repo().manifests.get_parsed(digest)) is None
    assert done(stocked.repo().manifests.get_parsed(Digest.of(b"none"))) is None


# Required content.


def test_all_missing_digests_are_reported_and_nothing_is_stored(world):
    error = refusal(world.put, image(), OCI_IMAGE, "v1")
    assert error.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    assert error.detail == {"digests": [str(Digest.of(b"{}")), str(Digest.of(b"layer"))]}
    assert world.paths() == []


def test_blobs_of_another_repository_are_missing(stocked):
    assert refusal(stocked.put, image(), OCI_IMAGE, name="other").code is (
        ErrorCode.MANIFEST_BLOB_UNKNOWN
    )


def test_config_must_exist_even_with_a_foreign_type(world):
    # Only layers may be stored elsewhere.
    world.blob(b"layer")
    for fields in (
        {"urls": ["https://example.org/config"]},
        {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"},
    ):
        content = image(config={**descriptor(b"{}", CONFIG), **fields})
        error = refusal(world.put, content, OCI_IMAGE)
        assert error.detail == {"digests": [str(Digest.of(b"{}"))]}


def test_foreign_layer_may_be_missing(stocked):
    layers = [
        descriptor(b"elsewhere", urls=["https://example.org/layer"]),
        descriptor(b"elsewhere", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    ]
    stocked.put(image(layers=layers), OCI_IMAGE)


def test_blobs_of_an_artifact_must_exist(world):
    content = json.dumps({"mediaType": OCI_ARTIFACT, "blobs": [descriptor(b"x")]}).encode()
    assert refusal(world.put, content, OCI_ARTIFACT).code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    world.blob(b"x")
    world.put(content, OCI_ARTIFACT)


def test_children_of_an_index_must_exist_as_manifests_or_blobs(stocked):
    content = index(descriptor(image(), OCI_IMAGE), descriptor(b"layer", LAYER))
    error = refusal(stocked.put, content, OCI_INDEX)
    assert error.detail == {"digests": [str(Digest.of(image()))]}
    stocked.put(image(), OCI_IMAGE)
    stocked.put(content, OCI_INDEX, "v1")
    stocked.put(index(descriptor(content, OCI_INDEX)), OCI_INDEX)
    stocked.put(index(), OCI_INDEX)


def test_index_with_many_children_is_stored(stocked):
    """Other requests get their turn between the checks of some of them."""
    children = [descriptor(str(number).encode(), LAYER) for number in range(500)]
    for number in range(500):
        stocked.blob(str(number).encode())
    content = index(*children)
    manifests = stocked.repo().manifests
    pushing = begin(manifests.put(Digest.of(content), content, OCI_INDEX))
    assert not pushing.called
    stocked.clock.advance(0)
    assert result_of(pushing).kind is ManifestKind.INDEX
    assert get(stocked, Digest.of(content)).content == content


@pytest.mark.parametrize("kind", ["layers", "children"])
def test_search_for_missing_content_ends_after_many(stocked, kind):
    parts = [descriptor(str(number).encode(), LAYER) for number in range(5000)]
    if kind == "layers":
        error = refusal(stocked.put, image(layers=parts), OCI_IMAGE)
    else:
        error = refusal(stocked.put, index(*parts), OCI_INDEX)
    assert error.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    assert error.detail == {"digests": [part["digest"] for part in parts[:100]]}
    assert len(stocked.driver.calls) < 1000


def test_content_that_is_named_often_is_checked_once(stocked):
    layer = descriptor(b"layer")
    stocked.put(image(layers=[layer]), OCI_IMAGE)
    calls = []
    for count in (1, 1000):
        stocked.registry = stocked.another()  # with empty caches
        before = len(stocked.driver.calls)
        content = image(layers=[layer] * count)
        stocked.put(content, OCI_IMAGE)
        calls.append(len(stocked.driver.calls) - before)
    assert calls[0] <= calls[1] <= calls[0] + 4
    missing = descriptor(b"missing")
    error = refusal(stocked.put, image(layers=[missing] * 1000), OCI_IMAGE)
    assert error.detail == {"digests": [missing["digest"]]}


def test_subject_may_be_missing(stocked):
    manifest = done(
        stocked.repo().manifests.put(
            Digest.of(image(subject=descriptor(b"later"))),
            image(subject=descriptor(b"later")),
            OCI_IMAGE,
        )
    )
    assert manifest.subject.digest == Digest.of(b"later")


@pytest.mark.parametrize("content", [b"", b"{}", b"text", image(schemaVersion=1)])
def test_invalid_manifests_are_refused(stocked, content):
    assert refusal(stocked.put, content, OCI_IMAGE).code is ErrorCode.MANIFEST_INVALID


def test_failing_store_is_not_a_missing_blob(stocked):
    # Two blobs: for each, the link is read, and the bytes are checked.
    for number in range(2 if stocked.can_peek else 4):
        stocked.registry = stocked.another()  # with empty caches
        count = len(stocked.driver.calls)
        stocked.driver.before = fails_at(count + number)
        error = refusal(stocked.put, image(), OCI_IMAGE)
        assert error.code is ErrorCode.UNAVAILABLE
