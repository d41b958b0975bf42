"""The gate, step by step, against a collector that the test plays."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.gc.gate_kit import (
    BLOB,
    LIST_TTL_S,
    MANIFEST,
    OTHER,
    Collector,
    hold,
    late_world,
    lease,
    may_report_present,
    refused,
)
from tests.repository.worlds import begin, done, result_of
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.repository.interfaces import IPresenceGate
from twisted_registry.repository.liveness import process_identity
from twisted_registry.storage.interfaces import StorageError


@pytest.fixture
def world():
    return late_world()


@pytest.fixture
def collector(world):
    return Collector(world)


@pytest.fixture
def gate(world):
    gate = CollectorGate(world.driver, world.clock, recent_s=600.0)
    verifyObject(IPresenceGate, gate)
    done(gate.poll())
    return gate


def record(world, gate):
    acknowledged, _, process = world.read(layout.process(gate.id)).decode().partition(" ")
    assert process == process_identity()
    return acknowledged


def test_without_a_list_everything_is_admitted(world, gate):
    assert may_report_present(gate, BLOB)
    assert record(world, gate) == ""
    done(hold(gate, BLOB))
    assert done(gate.find_listed("a", [BLOB])) == []


def test_what_is_proposed_is_leased_before_it_is_called_present(world, gate, collector):
    under_way, ended = Deferred(), []
    storing = begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    assert record(world, gate) == "", "something that was begun before has not ended"
    order = []
    world.driver.before = lambda _n, action, path: order.append((action, path))
    gate.may_report_present("a", BLOB).addCallback(order.append)
    assert order == [("put", layout.lease(collector.list.id, BLOB)), True]
    assert collector.leases() == {lease(BLOB)}
    storing.addCallback(ended.append)
    under_way.callback(None)
    assert ended == [None]
    assert record(world, gate) == collector.list.id


def test_what_is_not_listed_needs_no_lease(gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    assert may_report_present(gate, OTHER)
    assert collector.leases() == set()


def test_after_the_acknowledgement_what_is_listed_is_gone(world, gate, collector):
    collector.propose(BLOB, manifests=[("a", MANIFEST)])
    done(gate.poll())
    assert record(world, gate) == collector.list.id
    assert not may_report_present(gate, BLOB)
    assert not may_report_present(gate, BLOB, None)
    assert not may_report_present(gate, MANIFEST)
    assert may_report_present(gate, MANIFEST, "b")
    assert may_report_present(gate, MANIFEST, None)
    assert collector.leases() == set()
    collector.withdraw()
    done(gate.poll())
    assert may_report_present(gate, BLOB)


def test_what_was_called_present_lately_is_leased(world, gate, collector):
    assert may_report_present(gate, OTHER)
    world.clock.advance(1300)
    done(gate.poll())
    assert may_report_present(gate, BLOB)
    assert may_report_present(gate, MANIFEST)
    world.clock.advance(590)
    collector.propose(BLOB, OTHER, manifests=[("a", MANIFEST)])
    done(gate.poll())
    assert collector.leases() == {lease(BLOB), lease(MANIFEST)}
    assert record(world, gate) == collector.list.id


def test_what_was_called_gone_is_not_remembered_as_present(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    collector.withdraw()
    done(gate.poll())
    collector.propose(BLOB)
    done(gate.poll())
    assert collector.leases() == set()


def test_number_of_recent_digests_is_bounded(world, collector):
    gate = CollectorGate(world.driver, world.clock, max_recent_digests=2)
    done(gate.poll())
    digests = [Digest.of(bytes([number])) for number in range(5)]
    for digest in digests:
        assert may_report_present(gate, digest)
    collector.propose(*digests)
    done(gate.poll())
    assert collector.leases() == {lease(digest) for digest in digests[-3:]}


def test_each_answer_renews_what_is_remembered(world, gate, collector):
    for _ in range(4):
        assert may_report_present(gate, BLOB)
        world.clock.advance(500)
        done(gate.poll())
    collector.propose(BLOB)
    done(gate.poll())
    assert collector.leases() == {lease(BLOB)}


def test_the_acknowledgement_waits_for_a_lease_that_is_being_written(world, gate, collector):
    under_way = Deferred()
    first = begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    held = Deferred()
    world.driver.before = lambda _n, action, path: held if "leases" in path else None
    answers = []
    gate.may_report_present("a", BLOB).addCallback(answers.append)
    # It was begun after the list was seen, and leases by itself: the rest need not wait for it.
    under_way.callback(None)
    result_of(first)
    assert answers == []
    held.callback(None)
    assert answers == [True]


def test_storing_what_is_proposed_takes_a_lease(world, gate, collector):
    under_way = Deferred()
    begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    done(hold(gate, BLOB))
    assert collector.leases() == {lease(BLOB)}


def test_storing_what_is_condemned_waits_for_the_sweep(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    collector.condemn()
    stored = []
    begin(hold(gate, BLOB)).addCallback(stored.append)
    world.clock.advance(5)
    assert stored == []
    collector.withdraw()
    done(gate.poll())
    assert stored == [None]


def test_storing_what_is_condemned_gives_up_in_time(world, gate, collector):
    collector.propose(BLOB, manifests=[("a", MANIFEST)])
    done(gate.poll())
    for digest in (BLOB, MANIFEST):
        refused(world, begin(hold(gate, digest)))
        done(gate.poll())
    done(hold(gate, MANIFEST, repository="b"))


def test_a_list_whose_term_has_passed_is_void(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    collector.condemn()
    world.clock.advance(LIST_TTL_S - 1)
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    assert done(gate.find_listed("a", [BLOB])) == [BLOB]
    world.clock.advance(1)
    done(gate.poll())
    assert may_report_present(gate, BLOB)
    done(hold(gate, BLOB))
    assert done(gate.find_listed("a", [BLOB])) == []


def test_a_push_that_waits_goes_on_when_the_term_has_passed(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    world.clock.advance(LIST_TTL_S - 10)
    done(gate.poll())
    stored = []
    begin(hold(gate, BLOB)).addCallback(stored.append)
    world.clock.pump([1.0] * 12)
    assert stored == [None]


def test_the_list_is_read_afresh_before_a_push_is_answered(gate, collector):
    collector.propose(BLOB, manifests=[("a", MANIFEST)])
    assert done(gate.find_listed("a", [BLOB, MANIFEST])) == [], "it may still be taken off the list"
    collector.condemn()
    assert done(gate.find_listed("a", [BLOB, OTHER, MANIFEST])) == [BLOB, MANIFEST]
    assert done(gate.find_listed("b", [BLOB, OTHER, MANIFEST])) == [BLOB]
    collector.withdraw()
    assert done(gate.find_listed("a", [BLOB])) == []


def test_a_torn_list_counts_for_nothing(world, gate, collector):
    collector.propose(BLOB)
    collector.condemn()
    world.write(layout.DELETE_LIST, collector.list.to_bytes()[:-2])
    done(gate.poll())
    assert may_report_present(gate, BLOB)
    assert done(gate.find_listed("a", [BLOB])) == []


def test_nothing_is_stored_before_others_can_know_of_the_process(world):
    gate = CollectorGate(world.driver, world.clock)
    stored = []
    begin(hold(gate, BLOB)).addCallback(stored.append)
    world.clock.advance(0.5)
    assert stored == []
    done(gate.poll())
    assert stored == [None]


def test_nothing_is_stored_when_the_record_could_not_be_renewed(world, gate):
    world.clock.advance(22)
    done(hold(gate, BLOB))
    world.clock.advance(0.5)
    refused(world, begin(hold(gate, BLOB)))
    done(gate.poll())
    done(hold(gate, BLOB))


def test_the_record_is_written_before_the_list_is_read_and_renewed_in_time(world):
    gate = CollectorGate(world.driver, world.clock)
    done(gate.poll())
    calls = [call for call in world.driver.calls if "collector" in call[1]]
    assert calls == [("put", layout.process(gate.id)), ("get", layout.DELETE_LIST)]
    renewed = []
    for second in range(1, 61):
        world.clock.advance(1)
        before = len(world.driver.calls)
        done(gate.poll())
        if ("put", layout.process(gate.id)) in world.driver.calls[before:]:
            renewed.append(second)
    assert renewed == [8, 16, 24, 32, 40, 48, 56]


def test_a_list_that_is_there_at_the_start_is_obeyed_at_once(world, collector):
    collector.propose(BLOB)
    gate = CollectorGate(world.driver, world.clock)
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    assert record(world, gate) == collector.list.id
    assert collector.leases() == set()


def test_a_condemned_list_that_was_not_seen_before_is_obeyed_without_leases(gate, collector):
    assert may_report_present(gate, BLOB)
    collector.propose(BLOB)
    collector.condemn()
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    assert collector.leases() == set()


def test_a_lease_that_can_not_be_written_is_tried_again_before_the_acknowledgement(
    world, gate, collector
):
    assert may_report_present(gate, BLOB)
    collector.propose(BLOB)

    def before(_number, _action, path):
        if "leases" in path:
            raise StorageError(path, "broken")

    world.driver.before = before
    with pytest.raises(StorageError):
        done(gate.poll())
    assert record(world, gate) == ""
    world.driver.before = lambda *_: None
    done(gate.poll())
    assert collector.leases() == {lease(BLOB)}
    assert record(world, gate) == collector.list.id


def test_each_list_is_acknowledged_by_itself(world, gate, collector):
    under_way = Deferred()
    begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    first = collector.list.id
    collector.propose(OTHER)
    done(gate.poll())
    assert may_report_present(gate, BLOB), "the first list is gone"
    under_way.callback(None)
    assert record(world, gate) == collector.list.id != first
    assert not may_report_present(gate, OTHER)


def test_the_record_goes_when_the_process_leaves(world, gate):
    done(gate.unregister())
    assert layout.process(gate.id) not in world.paths()
    refused(world, begin(hold(gate, BLOB)))
    done(gate.unregister())
