"""The gate, step by step, with lists that the test publishes."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from tests.gc.gate_kit import (
    BLOB,
    LIST_TTL_S,
    MANIFEST,
    OTHER,
    ListPublisher,
    hold,
    late_world,
    lease,
    may_report_present,
    refused,
)
from tests.repository.worlds import begin, done, result_of
from twisted_registry.gc import gate as gate_module
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
    return ListPublisher(world)


@pytest.fixture
def gate(world):
    gate = CollectorGate(world.driver, world.clock, recent_s=600.0)
    verifyObject(IPresenceGate, gate)
    done(gate.poll())
    return gate


def record(world, gate):
    acknowledged, _, process = world.read(layout.process_record(gate.id)).decode().partition(" ")
    assert process == process_identity()
    return acknowledged


def test_without_a_list_all_content_is_present(world, gate):
    assert may_report_present(gate, BLOB)
    assert record(world, gate) == ""
    done(hold(gate, BLOB))
    assert done(gate.find_listed("a", [BLOB])) == []


def test_proposed_digest_is_leased_before_it_is_reported_as_present(world, gate, collector):
    under_way, ended = Deferred(), []
    storing = begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    assert record(world, gate) == "", "something that was begun before has not ended"
    order = []
    world.driver.before = lambda _n, action, path: order.append((action, path))
    gate.may_report_present("a", BLOB).addCallback(order.append)
    assert order == [("put", layout.lease_file(collector.list.id, BLOB)), True]
    assert collector.leases() == {lease(BLOB)}
    storing.addCallback(ended.append)
    under_way.callback(None)
    assert ended == [None]
    assert record(world, gate) == collector.list.id


def test_unlisted_digest_is_reported_without_a_lease(gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    assert may_report_present(gate, OTHER)
    assert collector.leases() == set()


def test_listed_digest_is_absent_after_the_acknowledgement(world, gate, collector):
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


def test_recently_reported_digests_are_leased(world, gate, collector):
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


def test_digest_reported_as_absent_is_not_leased_later(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    collector.withdraw()
    done(gate.poll())
    collector.propose(BLOB)
    done(gate.poll())
    assert collector.leases() == set()


def test_number_of_recent_digests_is_bounded(world, gate, collector, monkeypatch):
    monkeypatch.setattr(gate_module, "_MAX_RECENT_DIGESTS", 2)
    digests = [Digest.of(bytes([number])) for number in range(5)]
    for digest in digests:
        assert may_report_present(gate, digest)
    collector.propose(*digests)
    done(gate.poll())
    assert collector.leases() == {lease(digest) for digest in digests[-3:]}


def test_each_report_renews_a_recent_digest(world, gate, collector):
    for _ in range(4):
        assert may_report_present(gate, BLOB)
        world.clock.advance(500)
        done(gate.poll())
    collector.propose(BLOB)
    done(gate.poll())
    assert collector.leases() == {lease(BLOB)}


def test_lease_begun_after_the_list_was_seen_does_not_delay_the_acknowledgement(
    world, gate, collector
):
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


def test_recently_stored_digests_are_leased(world, gate, collector):
    done(hold(gate, BLOB))
    collector.propose(BLOB, OTHER)
    done(gate.poll())
    assert collector.leases() == {lease(BLOB)}


def test_storing_a_proposed_digest_writes_a_lease(world, gate, collector):
    under_way = Deferred()
    begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    done(hold(gate, BLOB))
    assert collector.leases() == {lease(BLOB)}


def test_storing_a_condemned_digest_waits_for_the_withdrawal(world, gate, collector):
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


def test_storing_a_condemned_digest_is_refused_after_20_seconds(world, gate, collector):
    collector.propose(BLOB, manifests=[("a", MANIFEST)])
    done(gate.poll())
    for digest in (BLOB, MANIFEST):
        refused(world, begin(hold(gate, digest)))
        done(gate.poll())
    done(hold(gate, MANIFEST, repository="b"))


def test_expired_list_is_ignored(world, gate, collector):
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


def test_waiting_push_continues_when_the_list_expires(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    world.clock.advance(LIST_TTL_S - 10)
    done(gate.poll())
    stored = []
    begin(hold(gate, BLOB)).addCallback(stored.append)
    world.clock.pump([1.0] * 12)
    assert stored == [None]


def test_find_listed_reads_the_published_list(gate, collector):
    collector.propose(BLOB, manifests=[("a", MANIFEST)])
    assert done(gate.find_listed("a", [BLOB, MANIFEST])) == [], "it may still be taken off the list"
    collector.condemn()
    assert done(gate.find_listed("a", [BLOB, OTHER, MANIFEST])) == [BLOB, MANIFEST]
    assert done(gate.find_listed("b", [BLOB, OTHER, MANIFEST])) == [BLOB]
    collector.withdraw()
    assert done(gate.find_listed("a", [BLOB])) == []


def test_torn_list_is_ignored(world, gate, collector):
    collector.propose(BLOB)
    collector.condemn()
    world.write(layout.DELETE_LIST, collector.list.to_bytes()[:-2])
    done(gate.poll())
    assert may_report_present(gate, BLOB)
    assert done(gate.find_listed("a", [BLOB])) == []


def test_nothing_is_stored_before_the_process_is_registered(world):
    gate = CollectorGate(world.driver, world.clock)
    stored = []
    begin(hold(gate, BLOB)).addCallback(stored.append)
    world.clock.advance(0.5)
    assert stored == []
    done(gate.poll())
    assert stored == [None]


def test_nothing_is_stored_while_the_record_is_overdue(world, gate):
    world.clock.advance(22)
    done(hold(gate, BLOB))
    world.clock.advance(0.5)
    refused(world, begin(hold(gate, BLOB)))
    done(gate.poll())
    done(hold(gate, BLOB))


def test_record_is_written_before_the_list_is_read_and_renewed(world):
    gate = CollectorGate(world.driver, world.clock)
    done(gate.poll())
    calls = [call for call in world.driver.calls if "collector" in call[1]]
    assert calls == [("put", layout.process_record(gate.id)), ("get", layout.DELETE_LIST)]
    renewed = []
    for second in range(1, 61):
        world.clock.advance(1)
        before = len(world.driver.calls)
        done(gate.poll())
        if ("put", layout.process_record(gate.id)) in world.driver.calls[before:]:
            renewed.append(second)
    assert renewed == [8, 16, 24, 32, 40, 48, 56]


def test_list_published_before_registration_is_obeyed_at_once(world, collector):
    collector.propose(BLOB)
    gate = CollectorGate(world.driver, world.clock)
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    assert record(world, gate) == collector.list.id
    assert collector.leases() == set()


def test_list_first_seen_as_condemned_is_obeyed_without_leases(gate, collector):
    assert may_report_present(gate, BLOB)
    collector.propose(BLOB)
    collector.condemn()
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    assert collector.leases() == set()


def test_failed_lease_is_retried_before_the_acknowledgement(world, gate, collector):
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


def test_each_list_is_acknowledged_separately(world, gate, collector):
    under_way = Deferred()
    begin(hold(gate, MANIFEST, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    first = collector.list.id
    collector.propose(OTHER)
    done(gate.poll())
    assert may_report_present(gate, BLOB), "the first list is gone"
    under_way.callback(None)
    assert record(world, gate) == collector.list.id != first
    assert not may_report_present(gate, OTHER)


def test_unregister_deletes_the_record(world, gate):
    done(gate.unregister())
    assert layout.process_record(gate.id) not in world.paths()
    refused(world, begin(hold(gate, BLOB)))
    done(gate.unregister())


def test_digest_that_another_process_has_leased_is_not_hidden(world, gate, collector):
    other = CollectorGate(world.driver, world.clock)
    done(other.poll())
    assert may_report_present(other, BLOB)
    done(hold(other, MANIFEST))
    collector.propose(BLOB, OTHER, manifests=[("a", MANIFEST)])
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    done(other.poll())
    assert collector.leases() == {lease(BLOB), lease(MANIFEST)}
    for _ in range(2):
        for obeying in (gate, other):
            assert may_report_present(obeying, BLOB)
            assert may_report_present(obeying, MANIFEST)
            assert not may_report_present(obeying, OTHER)
            done(hold(obeying, BLOB))
            done(obeying.wait_until_unlisted("a", [BLOB, MANIFEST]))
        assert collector.leases() == {lease(BLOB), lease(MANIFEST)}
        # The condemned list does not name them.
        collector.condemn()
        done(gate.poll())
        done(other.poll())


def test_lease_that_came_too_late_does_not_count(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    collector.condemn()
    world.write(layout.lease_file(collector.list.id, BLOB), b"")
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    refused(world, begin(hold(gate, BLOB)))


def test_busy_process_acknowledges_a_list_of_400_digests_that_it_has_to_lease(
    world, gate, collector
):
    """Four clients push without a break. Each lease takes longer than a push."""
    blobs = [Digest.of(bytes([number // 256, number % 256])) for number in range(400)]
    for digest in blobs:
        assert may_report_present(gate, digest)

    def before(_number, _action, path):
        return deferLater(world.clock, 0.05, lambda: None) if "leases" in path else None

    pushes = []

    async def push(number):
        while True:
            pushes.append(number)
            await hold(gate, OTHER, deferLater(world.clock, 0.03, lambda: None))

    world.driver.before = before
    for number in range(4):
        begin(push(number))
        world.clock.advance(0.01)
    collector.propose(*blobs)
    begin(gate.poll())
    seconds = 0.0
    while record(world, gate) != collector.list.id:
        seconds += 0.01
        assert seconds < 5
        world.clock.advance(0.01)
    assert len(collector.leases()) == 400
    assert set(pushes) == set(range(4))
    assert len(pushes) > 100


def test_list_of_an_exited_collector_is_ignored(world, gate, collector, exited_process):
    collector.propose(BLOB, owner=process_identity())
    done(gate.poll())
    collector.condemn()
    done(gate.poll())
    assert not may_report_present(gate, BLOB)
    assert done(gate.find_listed("a", [BLOB])) == [BLOB]
    stored = []
    begin(hold(gate, BLOB)).addCallback(stored.append)
    collector.propose(BLOB, owner=exited_process)
    collector.condemn()
    assert done(gate.find_listed("a", [BLOB])) == []
    assert stored == []
    done(gate.poll())
    assert stored == [None]
    assert may_report_present(gate, BLOB)
    assert not gate.has_list


def test_last_request_of_an_exited_collector_is_waited_for(world, collector, exited_process):
    gate = CollectorGate(world.driver, world.clock, settle_s=15.0)
    done(gate.poll())
    collector.propose(BLOB, owner=exited_process)
    collector.condemn()
    for _ in range(15):
        done(gate.poll())
        assert not may_report_present(gate, BLOB)
        assert done(gate.find_listed("a", [BLOB])) == [BLOB]
        world.clock.advance(1)
    done(gate.poll())
    assert may_report_present(gate, BLOB)
    assert done(gate.find_listed("a", [BLOB])) == []


def test_overdue_process_leases_nothing(world, gate, collector):
    under_way = Deferred()
    begin(hold(gate, OTHER, under_way))
    collector.propose(BLOB)
    done(gate.poll())
    world.clock.advance(22.5)
    assert not may_report_present(gate, BLOB)
    assert may_report_present(gate, MANIFEST), "it is not listed"
    assert collector.leases() == set()
    done(gate.poll())
    assert may_report_present(gate, BLOB)
    assert collector.leases() == {lease(BLOB)}


def test_lease_for_a_list_that_was_replaced_meanwhile_does_not_count(world, gate, collector):
    collector.propose(BLOB)
    done(gate.poll())
    world.write(layout.lease_file(collector.list.id, BLOB), b"")
    looks = [Deferred() for _ in range(2)]

    def before(_number, action, path):
        return looks.pop() if looks and action == "stat" and "leases" in path else None

    world.driver.before = before
    first, second = looks
    answers, stored = [], []
    gate.may_report_present("a", BLOB).addCallback(answers.append)
    begin(hold(gate, BLOB)).addCallback(stored.append)
    world.clock.advance(10)
    collector.propose(BLOB)
    done(gate.poll())
    assert record(world, gate) == collector.list.id
    for look in (first, second):
        look.callback(None)
    assert (answers, stored) == ([False], [])
    collector.withdraw()
    done(gate.poll())
    assert stored == [None]
