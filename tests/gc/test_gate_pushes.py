"""Pushes while lists are published by the test."""

from __future__ import annotations

import pytest

from tests.gc.gate_kit import BLOB, OTHER, ListPublisher, late_world, refused
from tests.repository.worlds import Body, begin, done, image
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout


@pytest.fixture
def world():
    return late_world()


@pytest.fixture
def collector(world):
    return ListPublisher(world)


def serve(world):
    """Serve with a gate, and push the first image."""
    world.gate = CollectorGate(world.driver, world.clock)
    done(world.gate.poll())
    world.registry = world.another()
    world.image("v1")


def forget(world):
    """Let the time pass for which digests are leased that were pushed."""
    world.clock.advance(10_000)
    done(world.gate.poll())


def test_manifest_put_reads_the_list_before_it_is_answered(world, collector):
    serve(world)
    assert world.tags() == ["v1"]
    layer = Digest.of(b"layer")
    collector.propose(layer)
    collector.condemn()
    # The gate has not been polled yet.
    with pytest.raises(RegistryError) as caught:
        world.put(b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",'
                  b' "config": {"mediaType": "a/b", "size": 5, "digest": "' + str(layer).encode()
                  + b'"}, "layers": []}', None, "v2")  # fmt: skip
    assert caught.value.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    assert caught.value.detail == {"digests": [str(layer)]}
    assert world.tags() == ["v1"]


def test_manifest_put_waits_while_its_blobs_are_listed(world, collector):
    """The collector may take them off the list, or has done so since the last poll."""
    serve(world)
    forget(world)
    collector.propose(Digest.of(b"layer"))
    done(world.gate.poll())
    content = image(annotations={"other": "image"})
    ended = []
    putting = world.repo().manifests.put(Digest.of(content), content, OCI_IMAGE, ["v2"])
    begin(putting).addBoth(ended.append)
    world.clock.advance(5)
    assert ended == []
    collector.withdraw()
    done(world.gate.poll())
    assert len(ended) == 1
    assert world.tags() == ["v1", "v2"]


def test_manifest_put_waits_20_seconds_and_only_for_its_own_blobs(world, collector):
    serve(world)
    collector.propose(OTHER)
    done(world.gate.poll())
    world.image("v2")
    collector.withdraw()
    forget(world)
    collector.propose(Digest.of(b"layer"))
    done(world.gate.poll())
    content = image(annotations={"other": "image"})
    failures = []
    putting = world.repo().manifests.put(Digest.of(content), content, OCI_IMAGE, ["v3"])
    begin(putting).addErrback(failures.append)
    for _ in range(19):
        world.clock.advance(1)
        done(world.gate.poll())
    assert failures == []
    world.clock.pump([1.0] * 2)
    assert failures[0].value.code is ErrorCode.MANIFEST_BLOB_UNKNOWN


def test_upload_of_a_condemned_digest_is_stored_after_the_withdrawal(world, collector):
    world.gate = CollectorGate(world.driver, world.clock)
    done(world.gate.poll())
    world.registry = world.another()
    collector.propose(BLOB)
    done(world.gate.poll())
    stored = []
    upload = begin(world.repo().uploads.store_blob(BLOB, Body(b"blob"))).addCallback(stored.append)
    assert stored == []
    assert layout.blob_data(BLOB) not in world.paths()
    collector.withdraw()
    done(world.gate.poll())
    assert stored == [4]
    assert upload.called
    assert layout.blob_data(BLOB) in world.paths()


def served(world):
    """Return the registry of another process, and its gate."""
    gate = CollectorGate(world.driver, world.clock)
    done(gate.poll())
    first, world.gate = world.gate, gate
    registry, world.gate = world.another(), first
    return registry, gate


def test_manifest_pushed_again_before_the_list_was_seen_is_present_everywhere(world, collector):
    """HEAD by digest, GET and DELETE agree, in the process that stored it and in others."""
    serve(world)
    digest = Digest.of(image())
    other, gate = served(world)
    done(world.repo().tags.delete("v1"))
    forget(world)
    done(gate.poll())
    collector.propose(digest, Digest.of(b"layer"), manifests=[("a/b", digest)])
    # The collector is stopped here. Nobody has seen its list.
    done(world.repo().manifests.put(digest, image(), OCI_IMAGE, ["v1"]))
    done(world.gate.poll())
    done(gate.poll())
    for registry in (world.registry, other):
        repository = world.repo(registry=registry)
        assert done(repository.manifests.get("v1")).digest == digest
        assert done(repository.manifests.get(digest)).digest == digest
        assert done(repository.manifests.get(digest, is_query=True)).digest == digest
        assert done(repository.blobs.size(Digest.of(b"layer"))) == 5
    assert done(world.repo(registry=other).manifests.delete(digest)) == ["v1"]
    assert world.tags() == []


def test_listed_manifest_and_blob_can_be_deleted(world, collector):
    serve(world)
    digest, layer = Digest.of(image()), Digest.of(b"layer")
    registry, gate = served(world)
    collector.propose(digest, layer, manifests=[("a/b", digest)])
    done(gate.poll())
    collector.condemn()
    done(gate.poll())
    repository = world.repo(registry=registry)
    assert done(repository.manifests.delete(digest)) == ["v1"]
    done(repository.blobs.delete(layer))
    for deleting in (repository.manifests.delete(digest), repository.blobs.delete(layer)):
        with pytest.raises(RegistryError) as caught:
            done(deleting)
        assert caught.value.http_status == 404


def test_deleted_content_is_not_leased(world, collector):
    world.clock.advance(10_000)
    serve(world)
    forget(world)
    digest, layer = Digest.of(image()), Digest.of(b"layer")
    done(world.repo().manifests.delete(digest))
    done(world.repo().blobs.delete(layer))
    collector.propose(digest, layer)
    done(world.gate.poll())
    assert collector.leases() == set()


@pytest.mark.parametrize("is_removed", [False, True])
def test_head_of_a_listed_manifest_by_digest_waits_until_the_list_is_withdrawn(
    world, collector, is_removed
):
    serve(world)
    digest = Digest.of(image())
    registry, gate = served(world)
    collector.propose(digest, manifests=[("a/b", digest)])
    collector.condemn()
    done(gate.poll())
    asked, answers = world.repo(registry=registry).manifests, []
    assert done(asked.get(digest)).digest == digest
    assert done(asked.get("v1", is_query=True)).digest == digest
    begin(asked.get(digest, is_query=True)).addCallbacks(
        lambda found: answers.append(found.digest),
        lambda failure: answers.append(failure.value.code),
    )
    for _ in range(5):
        world.clock.advance(1)
        done(gate.poll())
    assert answers == []
    if is_removed:
        world.remove(layout.revision_link("a/b", digest))
    collector.withdraw()
    done(gate.poll())
    assert answers == [ErrorCode.MANIFEST_UNKNOWN if is_removed else digest]


def test_head_of_a_manifest_that_stays_listed_is_refused_after_20_seconds(world, collector):
    serve(world)
    digest = Digest.of(image())
    registry, gate = served(world)
    collector.propose(digest, manifests=[("a/b", digest)])
    collector.condemn()
    done(gate.poll())
    asking = begin(world.repo(registry=registry).manifests.get(digest, is_query=True))
    refused(world, asking)
