"""Why a blob or manifest stays, or when it goes."""

from __future__ import annotations

import pytest

from tests.gc.collected_store import DAY, Store, drive
from tests.repository.worlds import World, descriptor, done, image, index
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.gc.explain import Explainer, describe_holder
from twisted_registry.gc.mark import MarkPhase
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout

LAYER = Digest.of(b"layer")


@pytest.fixture
def store():
    return Store(World())


def explain(store, digest, *, untagged=True):
    collector = store.collector()
    mark_phase = MarkPhase(collector.inventory, store.references, untagged)
    return drive(store.world, Explainer(mark_phase, DAY).explain(digest))


def goes(store, digest, explanation):
    """Whether a collection at the time that was told takes it, and one before does not."""
    store.world.clock.advance(explanation.goes - store.world.clock.seconds() - 60)
    store.collect(untagged=True)
    assert layout.blob(digest) in store.world.paths()
    store.world.clock.advance(120)
    for _ in range(2):
        store.collect(untagged=True)
    return layout.blob(digest) not in store.world.paths()


def test_what_is_not_there(store):
    found = explain(store, LAYER)
    assert (found.size, found.kept, found.goes, found.holders) == (None, False, None, ())


def test_tags_keep_it(store):
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


def test_an_index_keeps_its_children_and_what_they_need(store):
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


def test_a_subject_keeps_its_referrers(store):
    subject = store.world.image("v1")
    named = {"mediaType": OCI_IMAGE, "digest": str(subject), "size": 1}
    store.world.blob(b"signature")
    content = image(subject=named, layers=[descriptor(b"signature")])
    signature = store.world.put(content, OCI_IMAGE)
    store.age()
    (holder,) = explain(store, Digest.of(b"signature")).holders
    assert (holder.manifest, holder.for_good) == (signature, True)
    assert describe_holder(holder) == [f"refers to {subject}"]


def test_nothing_keeps_it(store):
    store.world.blob(b"garbage")
    store.world.clock.advance(DAY / 2)
    digest = Digest.of(b"garbage")
    found = explain(store, digest)
    assert (found.kept, found.holders) == (False, ())
    assert found.goes == pytest.approx(store.world.clock.seconds() + DAY / 2)
    assert goes(store, digest, found)


def test_youth_keeps_it_for_a_while(store):
    store.world.blob(b"layer")
    store.world.clock.advance(DAY / 2)
    digest = store.world.image()
    found = explain(store, digest)
    (holder,) = found.holders
    assert (holder.holds, holder.for_good) == (True, False)
    assert holder.young_until == found.goes
    assert goes(store, digest, found)


def test_a_young_index_keeps_its_old_children_for_a_while(store):
    child = store.world.image()
    store.age()
    store.world.put(index(descriptor(image(), OCI_IMAGE)), OCI_INDEX)
    found = explain(store, child)
    assert all(each.holds and not each.for_good for each in found.holders)
    assert found.goes == pytest.approx(store.world.clock.seconds() + DAY)
    assert goes(store, child, found)


def test_an_old_manifest_without_a_tag_does_not_keep_it_if_those_go(store):
    digest = store.world.image()
    store.age()
    found = explain(store, LAYER)
    assert [(each.manifest, each.holds) for each in found.holders] == [(digest, False)]
    assert not found.kept
    assert found.goes < store.world.clock.seconds()
    stays = explain(store, LAYER, untagged=False)
    assert stays.kept
    assert describe_holder(stays.holders[0]) == []


def test_a_manifest_that_can_not_be_read_keeps_what_its_repository_links(store):
    digest = store.world.image("v1")
    store.world.blob(b"perhaps")
    store.world.write(layout.blob(digest), b"damaged")
    store.age()
    found = explain(store, Digest.of(b"perhaps"))
    assert (found.kept, found.troubled) == (True, ("a/b",))
    store.world.blob(b"elsewhere", "other")
    assert explain(store, Digest.of(b"elsewhere")).troubled == ()


@pytest.mark.parametrize("phase", list(Phase))
def test_a_collector_is_at_work(store, phase):
    store.world.blob(b"garbage")
    digest = Digest.of(b"garbage")
    listed = DeleteList("list", phase, 60.0, frozenset({digest}))
    store.world.write(layout.DELETE_LIST, listed.to_bytes())
    found = explain(store, digest)
    assert (found.listed, found.leased) == (phase.value, False)
    store.world.write(layout.lease("list", digest), b"")
    assert explain(store, digest).leased
    assert explain(store, LAYER).listed == ""
