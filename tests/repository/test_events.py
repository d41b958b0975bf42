"""Events for the listener."""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from tests.repository.worlds import ORIGIN, Body, Listener, descriptor, done, image, index
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.interfaces import (
    Event,
    EventPublisher,
    IPresenceGate,
    IRegistryListener,
    Origin,
)
from twisted_registry.repository.presence import NullGate


@pytest.fixture
def stocked(world):
    world.blob(b"{}")
    world.blob(b"layer")
    world.listener.take()
    return world


def event(action, kind, digest, **facts):
    return Event(action, kind, "a/b", digest, ORIGIN, **facts)


def test_push_in_chunks_is_announced_once(world):
    upload = done(world.repo().uploads.start())
    done(upload.append(Body(b"la")))
    assert world.listener.take() == []
    done(upload.finish(Digest.of(b"layer"), Body(b"yer")))
    assert world.listener.take() == [event("push", "blob", Digest.of(b"layer"), size=5)]


def test_single_request_push_and_mount_are_announced(world):
    digest = world.blob(b"layer", "other")
    (pushed,) = world.listener.take()
    assert (pushed.repository, pushed.action) == ("other", "push")
    done(world.repo().blobs.mount(digest, "other"))
    done(world.repo().blobs.mount(digest, None))
    assert world.listener.take() == [
        event("mount", "blob", digest, size=5, source="other"),
        event("mount", "blob", digest, size=5),
    ]


def test_blob_pull_is_announced_when_it_is_opened(stocked):
    digest = Digest.of(b"layer")
    done(stocked.repo().blobs.size(digest))
    assert stocked.listener.take() == []
    done(stocked.repo().blobs.open(digest, 1)).close()
    assert stocked.listener.take() == [event("pull", "blob", digest, size=4)]


def test_manifest_push_is_announced_for_each_tag(stocked):
    digest = Digest.of(image())
    put = stocked.repo().manifests.put
    done(put(digest, image(), OCI_IMAGE))
    done(put(digest, image(), OCI_IMAGE, ["v1", "v2"]))
    facts = {"size": len(image()), "media_type": OCI_IMAGE}
    assert stocked.listener.take() == [
        event("push", "manifest", digest, **facts),
        event("push", "manifest", digest, tag="v1", **facts),
        event("push", "manifest", digest, tag="v2", **facts),
    ]


def test_manifest_pull_is_announced(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.listener.take()
    done(stocked.repo().manifests.get_parsed(digest))
    assert stocked.listener.take() == []
    done(stocked.repo().manifests.get(digest))
    done(stocked.repo().manifests.get("v1"))
    facts = {"size": len(image()), "media_type": OCI_IMAGE}
    assert stocked.listener.take() == [
        event("pull", "manifest", digest, **facts),
        event("pull", "manifest", digest, tag="v1", **facts),
    ]


def test_events_of_manifests_have_their_bytes(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    done(stocked.repo().manifests.get(digest))
    done(stocked.repo().manifests.delete(digest))
    found = [
        (each.action, each.content) for each in stocked.listener.take() if each.kind == "manifest"
    ]
    assert found == [("push", image()), ("pull", image()), ("delete", None)]


def test_deletes_are_announced(stocked):
    digest = stocked.put(image(), OCI_IMAGE, "v1")
    stocked.put(image(), OCI_IMAGE, "v2")
    stocked.put(image(), OCI_IMAGE, "v3")
    stocked.listener.take()
    done(stocked.repo().tags.delete("v1"))
    assert stocked.listener.take() == [event("delete", "tag", None, tag="v1")]
    done(stocked.repo().manifests.delete(digest))
    assert sorted(stocked.listener.take(), key=lambda each: each.tag or "") == [
        event("delete", "manifest", digest),
        event("delete", "tag", None, tag="v2"),
        event("delete", "tag", None, tag="v3"),
    ]
    done(stocked.repo().blobs.delete(Digest.of(b"layer")))
    assert stocked.listener.take() == [event("delete", "blob", Digest.of(b"layer"))]


def test_refused_requests_are_not_announced(stocked):
    nothing = Digest.of(b"nothing")
    repository = stocked.repo()
    for work in (
        repository.blobs.open(nothing),
        repository.blobs.delete(nothing),
        repository.manifests.get(nothing),
        repository.manifests.delete(nothing),
        repository.manifests.put(nothing, image(), OCI_IMAGE, ["v1"]),
        repository.manifests.put(Digest.of(index()), index(), OCI_IMAGE, ["v1"]),
        repository.tags.delete("v1"),
        repository.uploads.store_blob(nothing, Body(b"something")),
    ):
        with pytest.raises(RegistryError):
            done(work)
    assert done(repository.blobs.mount(nothing, None)) is None
    content = index(descriptor(b"missing", OCI_IMAGE))
    with pytest.raises(RegistryError):
        stocked.put(content, OCI_INDEX, "v1")
    assert stocked.listener.take() == []


def test_push_is_durable_before_it_is_announced(stocked):
    seen = []

    def look(_):
        seen.append(stocked.exists(layout.tag_current_link("a/b", "v1")))

    stocked.listener.handle_event = look
    stocked.put(image(), OCI_IMAGE, "v1")
    assert seen == [True]


def test_defaults_provide_their_interfaces():
    assert verifyObject(IRegistryListener, Listener())
    assert verifyObject(IPresenceGate, NullGate())
    EventPublisher(None, "a", Origin())("push", "blob", None)
