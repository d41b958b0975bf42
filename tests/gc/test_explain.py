"""Explanations why content is kept, or when it will be removed."""

from __future__ import annotations

import pytest

from tests.gc.collected_store import DAY, drive
from tests.repository.worlds import descriptor, done, image, index
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.gc.explain import Explainer, describe_holder
from twisted_registry.gc.mark import MarkPhase
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout

LAYER = Digest.of(b"layer")


def explain(store, digest, *, untagged=True):
    collector = store.collector()
    mark_phase = MarkPhase(collector.inventory, store.references, untagged)
    return drive(store.world, Explainer(mark_phase, DAY).explain(digest))


def is_removed_as_explained(store, digest, explanation):
    """Return whether a collection removes it at the explained time, and not before."""
    store.world.clock.advance(explanation.goes - store.world.clock.seconds() - 60)
    store.collect(untagged=True)
    assert layout.blob_data(digest) in store.world.paths()
    store.world.clock.advance(120)
    for _ in range(2):
        store.collect(untagged=True)
    return layout.blob_data(digest) not in store.world.paths()


def test_unknown_digest_is_not_stored(store):
    found = explain(store, LAYER)
    assert (found.size, found.kept, found.goes, found.holders) == (None, False, None, ())


def test_tagged_manifests_keep_a_blob(store):
    one = store.world.image("v1", "a/b")
    store.world.image("v1", "other")
    done(store.world.repo().tags.set("latest", one))
    store.age()
    found = explain(store, LAYER)
    assert (found.size, found.kept, found.goes) == (5, True, None)
    assert [(each.repository, each.manifest, each.tags) for each in found.holders] == [
        ("a/b", one, ("latest", "v1")),
        ("other", one, ("v1",)),
    ]
    assert describe_holder(found.holders[0]) == ["tagged latest, v1"]
    assert explain(store, one).holders == found.holders


def test_index_keeps_its_children_and_their_blobs(store):
    child = store.world.image()
    content = index(descriptor(image(), OCI_IMAGE))
    outer = store.world.put(content, OCI_INDEX, "multi")
    store.age()
    found = explain(store, LAYER)
    holders = {each.manifest: each for each in found.holders}
    assert set(holders) == {child, outer}
    assert describe_holder(holders[child]) == [f"listed by {outer}"]
    assert describe_holder(holders[outer]) == ["tagged multi"]
    assert all(each.for_good for each in found.holders)


def test_subject_keeps_its_referrers(store):
    subject = store.world.image("v1")
    named = {"mediaType": OCI_IMAGE, "digest": str(subject), "size": 1}
    store.world.blob(b"signature")
    content = image(subject=named, layers=[descriptor(b"signature")])
    signature = store.world.put(content, OCI_IMAGE)
    store.age()
    (holder,) = explain(store, Digest.of(b"signature")).holders
    assert (holder.manifest, holder.for_good) == (signature, True)
    assert describe_holder(holder) == [f"refers to {subject}"]


def test_garbage_is_removed_after_its_grace_period(store):
    store.world.blob(b"garbage")
    store.world.clock.advance(DAY / 2)
    digest = Digest.of(b"garbage")
    found = explain(store, digest)
    assert (found.kept, found.holders) == (False, ())
    assert found.goes == pytest.approx(store.world.clock.seconds() + DAY / 2)
    assert is_removed_as_explained(store, digest, found)


def test_young_manifest_keeps_a_blob_until_its_grace_period_ends(store):
    store.world.blob(b"layer")
    store.world.clock.advance(DAY / 2)
    digest = store.world.image()
    found = explain(store, digest)
    (holder,) = found.holders
    assert (holder.holds, holder.for_good) == (True, False)
    assert holder.young_until == found.goes
    assert is_removed_as_explained(store, digest, found)


def test_young_index_keeps_its_children_until_its_grace_period_ends(store):
    child = store.world.image()
    store.age()
    store.world.put(index(descriptor(image(), OCI_IMAGE)), OCI_INDEX)
    found = explain(store, child)
    assert all(each.holds and not each.for_good for each in found.holders)
    assert found.goes == pytest.approx(store.world.clock.seconds() + DAY)
    assert is_removed_as_explained(store, child, found)


def test_old_untagged_manifest_keeps_a_blob_unless_untagged_are_removed(store):
    digest = store.world.image()
    store.age()
    found = explain(store, LAYER)
    assert [(each.manifest, each.holds) for each in found.holders] == [(digest, False)]
    assert not found.kept
    assert found.goes < store.world.clock.seconds()
    stays = explain(store, LAYER, untagged=False)
    assert stays.kept
    assert describe_holder(stays.holders[0]) == []


def test_unreadable_manifest_keeps_the_links_of_its_repository(store):
    digest = store.world.image("v1")
    store.world.blob(b"perhaps")
    store.world.write(layout.blob_data(digest), b"damaged")
    store.age()
    found = explain(store, Digest.of(b"perhaps"))
    assert (found.kept, found.troubled) == (True, ("a/b",))
    store.world.blob(b"elsewhere", "other")
    assert explain(store, Digest.of(b"elsewhere")).troubled == ()


@pytest.mark.parametrize("phase", list(Phase))
def test_delete_list_and_lease_are_shown(store, phase):
    store.world.blob(b"garbage")
    digest = Digest.of(b"garbage")
    listed = DeleteList("list", phase, 60.0, frozenset({digest}))
    store.world.write(layout.DELETE_LIST, listed.to_bytes())
    found = explain(store, digest)
    assert (found.listed, found.leased) == (phase.value, False)
    store.world.write(layout.lease_file("list", digest), b"")
    assert explain(store, digest).leased
    assert explain(store, LAYER).listed == ""
