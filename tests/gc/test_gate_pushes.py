"""Pushes while lists are published by the test."""

from __future__ import annotations

import pytest

from tests.gc.gate_kit import BLOB, OTHER, ListPublisher, late_world
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
    done(world.gate.poll())
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
