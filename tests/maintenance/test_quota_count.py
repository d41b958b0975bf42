"""The count of what is in use of quotas, and when it is made."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred

from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import Body, begin, done, result_of
from twisted_registry.maintenance.lease import TaskLease
from twisted_registry.maintenance.quota_count import (
    MIN_RECOUNT_INTERVAL_S,
    QuotaCount,
    QuotaSynchronizer,
)
from twisted_registry.maintenance.task import PeriodicTask
from twisted_registry.oci.patterns import GlobSet
from twisted_registry.repository import layout
from twisted_registry.repository.quotas import (
    LimitExceeded,
    Quota,
    Quotas,
    QuotaTotals,
    hash_name,
)

SETTLE_S = 3.0
NOW = 1_800_000_000.0
A = ("a/**", "")


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request):
    world = request.param()
    world.clock.advance(NOW)
    return world


def make_count(world, *patterns):
    areas = {pattern: GlobSet.parse([pattern]) for pattern in patterns or ("a/**",)}
    return QuotaCount(world.driver, areas, world.clock, SETTLE_S)


def run(world, counter):
    running = begin(counter.run())
    world.clock.advance(SETTLE_S)
    return result_of(running)


def totals(world):
    return QuotaTotals.from_bytes(world.read(layout.QUOTA_COUNT)).totals


def test_each_repository_counts_its_blobs_and_manifests_once(world):
    image = len(b"{}") + len(b"layer") + len(world.read(layout.blob_data(world.image("one"))))
    world.image("two")
    world.image("one", "a/c")
    world.image("one", "other")
    world.blob(b"not part of an image", "a/b")
    result = run(world, make_count(world, "a/**", "other", "nowhere/*"))
    expected = {"a/**": 2 * image + 20, "other": image, "nowhere/*": 0}
    assert (result.repositories, result.used) == (3, expected)
    assert {area: totals(world)[area, ""] for area in expected} == expected


def test_unfinished_uploads_count_as_long_as_they_exist(world):
    upload = done(world.repo().uploads.start())
    done(upload.append(Body(b"x" * 100)))
    done(world.repo("a/c").uploads.start())
    counter = make_count(world)
    assert run(world, counter).used == {"a/**": 100}
    done(upload.discard())
    assert run(world, counter).used == {"a/**": 0}


def test_deleted_content_no_longer_counts(world):
    digest = world.blob(b"x" * 100)
    world.blob(b"y" * 10, "a/c")
    counter = make_count(world)
    assert run(world, counter).used == {"a/**": 110}
    done(world.repo().blobs.delete(digest))
    assert run(world, counter).used == {"a/**": 10}


def quotas_of(world, *quotas):
    made = Quotas(world.driver, quotas)
    done(made.synchronize())
    return made


def push(world, quotas, user, content, name="a/b"):
    account = quotas.account(name, user)
    digest = world.blob(content, name)
    done(account.record_content(digest))
    return digest


def test_users_are_counted_by_what_they_have_pushed_and_is_still_there(world):
    quotas = quotas_of(world, Quota.parse(["a/**"], 1000, ["ada", "bob"]))
    push(world, quotas, "ada", b"x" * 100)
    gone = push(world, quotas, "ada", b"y" * 10)
    push(world, quotas, "ada", b"x" * 100, "a/c")
    push(world, quotas, "bob", b"z")
    world.blob(b"of nobody")
    done(quotas.account("a/d", "bob").record_content(gone))
    upload = done(world.repo().uploads.start())
    done(upload.append(Body(b"u" * 7)))
    done(quotas.account("a/b", "bob").record_upload(upload.id))
    counter = make_count(world)
    run(world, counter)
    ada, bob = ("a/**", hash_name("ada")), ("a/**", hash_name("bob"))
    assert totals(world) == {A: 227, ada: 210, bob: 8}
    done(world.repo().blobs.delete(gone))
    run(world, counter)
    assert totals(world) == {A: 217, ada: 200, bob: 8}


def test_records_of_pushes_are_deleted_a_day_after_the_content_is_gone(world):
    quotas = quotas_of(world, Quota.parse(["a/**"], 1000, ["ada"]))
    for name in ("a/b", "a/vanishes"):
        digest = push(world, quotas, "ada", b"x" * 100, name)
        done(world.repo(name).blobs.delete(digest))
    kept = push(world, quotas, "ada", b"kept")
    if done(world.repo("a/vanishes").exists()):
        done(world.repo("a/vanishes").delete())
    counter = make_count(world)
    run(world, counter)
    # A push writes the record first: it may be under way.
    assert len(world.paths(layout.PUSHED)) == 3
    world.clock.advance(25 * 3600)
    run(world, counter)
    (path,) = world.paths(layout.PUSHED)
    assert layout.parse_pushed(path) == kept


def test_pushes_while_a_count_walks_are_not_missed(world):
    quotas = quotas_of(world, Quota.parse(["a/**"], 1000))

    def push_counted(content):
        world.blob(content)
        done(quotas.account("a/b", "").reserve(len(content))).settle(len(content))

    push_counted(b"x" * 100)
    running = begin(make_count(world).run())
    push_counted(b"y" * 10)
    done(quotas.synchronize())
    world.clock.advance(SETTLE_S)
    assert result_of(running).used == {"a/**": 110}
    push_counted(b"z" * 5)
    done(quotas.synchronize())
    assert quotas.used(A) == 115


def test_files_of_ended_processes_are_deleted_when_they_no_longer_count(world):
    quotas = quotas_of(world, Quota.parse(["a/**"], 1000))
    done(quotas.account("a/b", "").reserve(5)).settle(5)
    done(quotas.synchronize())
    counter = make_count(world)
    run(world, counter)
    assert len(world.paths(layout.QUOTA_CHANGES)) == 1
    run(world, counter)
    assert world.paths(layout.QUOTA_CHANGES) == []


def test_without_quotas_nothing_is_counted(world):
    world.image("one")
    counter = QuotaCount(world.driver, {}, world.clock, SETTLE_S)
    assert done(counter.run()).used == {}
    assert not world.exists(layout.QUOTA_COUNT)


class Synchronized:
    """A service over a world that counts on request."""

    def __init__(self, world, limit=1000, lease=None):
        self.world = world
        self.quotas = Quotas(world.driver, [Quota.parse(["a/**"], limit)])
        self.lease = TaskLease(world.driver, "quotas", world.clock, 86_400.0)
        self.task = PeriodicTask(
            "quotas", make_count(world).run, world.clock, None, lambda: 0.5, self.lease
        )
        self.service = QuotaSynchronizer(
            self.quotas, self.task, lease or self.lease, world.clock, 1.0
        )
        self.service.startService()

    def wait(self, seconds):
        self.world.clock.pump([1.0] * int(seconds))

    def refuse(self):
        with pytest.raises(LimitExceeded):
            done(self.quotas.account("a/b", "").reserve(10**6))


@pytest.fixture
def served(world):
    world.blob(b"x" * 100)
    made = Synchronized(world)
    yield made
    result_of(made.service.stopService())


def test_a_registry_counts_when_it_starts_without_a_count(served):
    served.wait(10)
    assert served.task.runs == 1
    assert served.quotas.is_counted
    assert served.quotas.used(A) == 100
    served.wait(2 * MIN_RECOUNT_INTERVAL_S)
    assert served.task.runs == 1


def test_a_stop_during_the_first_exchange_stops_the_count_too(world):
    last_run = Deferred()
    made = Synchronized(world, lease=SimpleNamespace(last_run=lambda: last_run))
    stopping = made.service.stopService()
    last_run.callback(None)
    result_of(stopping)
    made.wait(10)
    assert made.task.last_run.failure == "it was stopped"
    assert not world.exists(layout.task_running("quotas"))


def test_a_refusal_leads_to_a_count_when_the_last_one_is_not_recent(served, world):
    served.wait(10)
    world.blob(b"y")
    served.refuse()
    served.wait(MIN_RECOUNT_INTERVAL_S / 2)
    assert served.task.runs == 1
    served.wait(MIN_RECOUNT_INTERVAL_S / 2 + 10)
    assert served.task.runs == 2
    assert served.quotas.used(A) == 101
    served.wait(3 * MIN_RECOUNT_INTERVAL_S)
    assert served.task.runs == 2
    served.refuse()
    served.wait(10)
    assert served.task.runs == 3


def test_a_count_of_another_process_is_recent_too(served, world):
    served.wait(10)
    served.wait(2 * MIN_RECOUNT_INTERVAL_S)
    other = Synchronized(world)
    other.refuse()
    other.wait(10)
    assert other.task.runs == 1
    served.refuse()
    served.wait(MIN_RECOUNT_INTERVAL_S / 2)
    assert served.task.runs == 1
    result_of(other.service.stopService())


def test_a_stop_stores_what_was_pushed(world):
    served = Synchronized(world)
    served.wait(10)
    done(served.quotas.account("a/b", "").reserve(5)).settle(5)
    result_of(served.service.stopService())
    (path,) = world.paths(layout.QUOTA_CHANGES)
    assert list(json.loads(world.read(path)).values()) == [[], [["a/**", "", 5]]]


def test_a_store_that_fails_is_asked_again(served, world, monkeypatch):
    calls = []

    async def fail():
        calls.append(None)
        raise OSError("broken")

    monkeypatch.setattr(served.quotas, "synchronize", fail)
    served.wait(5)
    assert len(calls) >= 4
    monkeypatch.undo()
    served.wait(10)
    assert served.quotas.is_counted
