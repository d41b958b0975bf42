"""A collection beside processes that serve, and beside other collectors."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.gc.collected_store import DAY, UNTAGGED, heartbeats_running
from tests.repository.worlds import begin, done, image
from twisted_registry.gc.collector import CollectionFailed
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout


def test_list_replaced_by_another_collector_ends_the_run(store):
    store.world.blob(b"garbage")
    store.age()

    def after(_number, action, path):
        if action == "create" and path == layout.DELETE_LIST:
            store.world.write(layout.DELETE_LIST, other_list().to_bytes())

    store.world.driver.after = after
    with pytest.raises(CollectionFailed, match="another collector"):
        store.collect()
    assert store.holds(b"garbage")
    assert store.world.read(layout.DELETE_LIST) == other_list().to_bytes()


def test_collector_waits_for_acknowledgements(store):
    gate = store.serve()
    store.world.blob(b"garbage")
    store.age()
    done(gate.poll())
    collecting = []
    begin(store.collector().run()).addBoth(collecting.append)
    for _ in range(20):
        store.world.clock.advance(1)
    assert collecting == []
    assert store.holds(b"garbage")
    done(gate.poll())
    store.world.clock.advance(1)
    assert collecting[0].blobs == 1
    assert not store.holds(b"garbage")


def test_missing_acknowledgement_ends_the_run(store):
    gate = store.serve()
    store.world.blob(b"garbage")
    store.age()
    done(gate.poll())

    def renew():
        store.world.write(layout.process_record(gate.id), b"")
        store.world.clock.callLater(10, renew)

    renew()
    with pytest.raises(CollectionFailed, match="1 serving processes"):
        store.collect()
    assert store.holds(b"garbage")
    assert not [path for path in store.world.paths() if path == layout.DELETE_LIST]


def test_expired_records_are_ignored_and_deleted(store):
    dead = store.serve()
    store.world.blob(b"garbage")
    store.age(2 * DAY)
    store.world.gate = dead
    assert store.collect().blobs == 1
    assert layout.process_record(dead.id) not in store.world.paths()


def test_leased_blob_is_kept(store):
    gate = store.serve()
    store.world.blob(b"old but wanted")
    store.world.blob(b"garbage")
    store.age()
    done(gate.poll())
    wanted = Digest.of(b"old but wanted")
    assert done(store.world.repo().blobs.size(wanted)) == 14
    heartbeats_running(store, gate)
    collected = store.collect()
    assert (collected.blobs, collected.leased) == (1, 1)
    assert store.holds(b"old but wanted")


def test_blobs_of_a_push_between_proposal_and_sweep_are_kept(store):
    """The mark after the list was condemned finds its revision."""
    for content in (b"{}", b"layer"):
        store.world.blob(content)
    store.age()
    pushed = []

    def before(_number, action, path):
        if action == "put" and path == layout.DELETE_LIST and not pushed:
            pushed.append(True)
            # From a process that has not seen the list.
            digest = Digest.of(image())
            store.world.write(layout.blob_data(digest), image())
            store.world.write(layout.revision_link("a/b", digest), str(digest).encode())

    store.world.driver.before = before
    assert store.collect().blobs == 0
    assert pushed
    assert store.is_whole(Digest.of(image()))


def test_listed_blob_can_be_pulled_from_processes_that_obey_the_list(store):
    """The first process has acknowledged a list that the second has not seen yet."""
    store.world.image("v1")
    store.age()
    first, ahead = store.serve(), store.world.registry
    store.serve()
    needed = Digest.of(b"layer")
    proposed = DeleteList("list", Phase.PROPOSED, 120.0, frozenset([needed]))
    store.world.write(layout.DELETE_LIST, proposed.to_bytes())
    done(first.poll())
    taken = store.world.put(image(annotations={"new": "image"}), OCI_IMAGE, "v2")
    for registry in (ahead, store.world.registry):
        pulled = store.world.repo(registry=registry)
        assert done(pulled.manifests.get("v2")).digest == taken
        done(pulled.blobs.open_whole(needed)).close()
    # A client that asks before a push has to upload it.
    with pytest.raises(RegistryError):
        done(store.world.repo(registry=ahead).blobs.size(needed))


def test_untagged_manifest_pushed_again_before_the_sweep_is_kept(store):
    digest = store.world.image()
    store.age()
    pushed = []

    def before(_number, action, path):
        if action == "put" and path == layout.DELETE_LIST and not pushed:
            pushed.append(True)
            store.world.write(layout.revision_link("a/b", digest), str(digest).encode())

    store.world.driver.before = before
    assert store.collect(**UNTAGGED).manifests == 0
    assert pushed
    assert store.is_whole(digest)


def other_list(phase=Phase.PROPOSED):
    return DeleteList("other", phase, 120.0, frozenset([Digest.of(b"x")]))


def test_collector_waits_for_another_collector(store):
    store.world.blob(b"garbage")
    store.age()
    store.world.write(layout.DELETE_LIST, other_list().to_bytes())
    collecting = []
    begin(store.collector().run()).addBoth(collecting.append)
    store.world.clock.pump([0.25] * 40)
    assert collecting == []
    store.world.remove(layout.DELETE_LIST)
    store.world.clock.pump([0.25] * 40)
    assert collecting[0].blobs == 1


def test_list_of_a_dead_collector_expires(store):
    store.world.blob(b"garbage")
    store.age()
    store.world.write(layout.DELETE_LIST, other_list(Phase.CONDEMNED).to_bytes())
    began = store.world.clock.seconds()
    assert store.collect().blobs == 1
    assert 120 <= store.world.clock.seconds() - began < 125


@pytest.mark.parametrize("settle_s", [0.0, 15.0])
def test_list_of_an_exited_collector_expires_after_the_settle_time(store, exited_process, settle_s):
    """Only requests to an object store may still be under way."""
    store.world.blob(b"garbage")
    store.age()
    left = evolve(other_list(Phase.CONDEMNED), owner=exited_process)
    store.world.write(layout.DELETE_LIST, left.to_bytes())
    began = store.world.clock.seconds()
    assert store.collect(settle_s=settle_s).blobs == 1
    assert settle_s <= store.world.clock.seconds() - began < settle_s + 3


def test_record_of_an_exited_process_is_deleted_at_once(store, exited_process):
    store.world.blob(b"garbage")
    store.age()
    store.world.write(layout.process_record("dead"), f"some-list {exited_process}".encode())
    began = store.world.clock.seconds()
    assert store.collect().blobs == 1
    assert store.world.clock.seconds() - began < 1
    assert layout.process_record("dead") not in store.world.paths()
