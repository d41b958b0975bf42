"""Who runs a task, of several processes on one store."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tests.repository.worlds import done, result_of
from twisted_registry.maintenance import lease as module
from twisted_registry.maintenance.lease import (
    LEASE_TTL_S,
    RunRecord,
    RunSkipped,
    TaskLease,
    TaskLeases,
)
from twisted_registry.maintenance.task import PeriodicTask
from twisted_registry.storage.interfaces import MethodUnsupported, StorageError
from twisted_registry.storage.memory import MemoryDriver

HOUR = 3600.0
RUNNING = "twisted-registry/tasks/sweep/running"
LAST = "twisted-registry/tasks/sweep/last"


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


class Simple(MemoryDriver):
    """A store that can be like one without conditional writes, or break."""

    conditional = True
    broken = False

    def create(self, path, content):
        if not self.conditional:
            return fail(MethodUnsupported(path))
        return super().create(path, content)

    def put(self, path, content, *, durable=True):
        if self.broken:
            return fail(StorageError(path, "it broke"))
        return super().put(path, content, durable=durable)


@pytest.fixture(params=[True, False], ids=["conditional", "unconditional"])
def driver(clock, request):
    driver = Simple(clock)
    driver.conditional = request.param
    return driver


class Process:
    """One of several, with a task whose runs end when the test says so."""

    def __init__(self, driver, clock, settings="same"):
        self.begun = []
        turn = TaskLease(TaskLeases(driver), "sweep", clock, HOUR, settings)
        self.task = PeriodicTask("sweep", self.work, clock, HOUR, lambda: 0.0, turn)

    async def work(self):
        waiting = Deferred()
        self.begun.append(waiting)
        return await waiting

    def run(self, **how):
        runs = []
        self.task.run(**how).addCallback(runs.append)
        return runs

    def ends(self, result=None):
        self.begun[-1].callback(result)


@pytest.fixture
def here(driver, clock):
    return Process(driver, clock)


@pytest.fixture
def there(driver, clock, monkeypatch):
    """A process of another host, as the records tell."""
    monkeypatch.setattr(module, "_is_alive", lambda _: True)
    return Process(driver, clock)


def test_one_at_a_time(here, there):
    here.run()
    (run,) = there.run()
    assert run.skipped == "another process is at it"
    assert (there.task.runs, there.task.skipped, there.task.last_run) == (0, 1, None)
    here.ends()
    there.run()
    assert there.task.is_running


def test_a_long_run_keeps_its_turn(here, there, clock):
    here.run()
    for _ in range(20):
        clock.advance(LEASE_TTL_S / 4)
    assert there.run()[0].skipped
    here.ends()
    assert clock.getDelayedCalls() == []


def test_a_process_that_is_gone_is_waited_for_no_longer_than_a_term(driver, there, clock):
    result_of(driver.put(RUNNING, b"elsewhere 1 it"))
    clock.advance(LEASE_TTL_S * 0.9)
    assert there.run()[0].skipped
    clock.advance(LEASE_TTL_S * 0.2)
    there.run()
    assert there.task.is_running


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["reused", "free"])
def test_a_dead_process_of_this_host_is_not_waited_for(driver, here, pid):
    host = module.host_and_pid().split()[0]
    result_of(driver.put(RUNNING, f"{host} {pid} dead".encode()))
    here.run()
    assert here.task.is_running


def test_a_living_process_of_this_host_is(driver, here):
    host = module.host_and_pid().split()[0]
    result_of(driver.put(RUNNING, f"{host} {os.getppid()} lives".encode()))
    assert here.run()[0].skipped


def test_what_others_did_lately_is_not_done_again_for_the_schedule_alone(here, there, clock):
    here.run()
    clock.advance(60)
    here.ends()
    clock.advance(HOUR / 2 - 61)
    (run,) = there.run(scheduled=True)
    assert run.skipped.endswith(f"did it {HOUR / 2 - 61:.0f} s ago")
    clock.advance(1)
    there.run(scheduled=True)
    assert there.task.is_running


def test_by_hand_it_is(here, there):
    here.run()
    here.ends()
    there.run()
    assert there.task.is_running


def test_what_failed_is_done_again(here, there):
    runs = here.run()
    here.begun[0].errback(OSError("broken"))
    assert runs[0].failure
    there.run(scheduled=True)
    assert there.task.is_running


def test_so_is_what_was_done_under_other_settings(here, driver, clock):
    here.run()
    here.ends()
    other = Process(driver, clock, "others")
    other.run(scheduled=True)
    assert other.task.is_running


def test_all_know_how_it_went(driver, here, there, clock):
    here.run()
    clock.advance(3)
    here.ends({"gone": 2})
    last_run = done(there.task._lease.leases.last_run("sweep"))
    assert (last_run.seconds, last_run.result, last_run.failure) == (3.0, {"gone": 2}, "")
    assert last_run.by == module.host_and_pid()
    result_of(driver.put(LAST, b"{"))
    assert done(there.task._lease.leases.last_run("sweep")) is None


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b'{"began": "x", "seconds": 1}', b"{}"])
def test_a_torn_record_is_none(content):
    assert RunRecord.from_bytes(content) is None


def test_a_record_of_a_later_version_is_read():
    content = b'{"began": 1, "seconds": 2, "novelty": 3}'
    assert RunRecord.from_bytes(content) == RunRecord(1, 2)


def test_a_turn_that_was_taken_over_is_neither_renewed_nor_given_back(driver, here, clock):
    here.run()
    result_of(driver.put(RUNNING, b"elsewhere 1 it"))
    clock.advance(LEASE_TTL_S / 4)
    here.ends()
    assert result_of(driver.get(RUNNING, 100)) == b"elsewhere 1 it"
    assert (here.task.runs, here.task.failures) == (1, 0)


def test_a_store_that_breaks_meanwhile_does_not_fail_the_run(driver, here, clock):
    failures = []
    globalLogPublisher.addObserver(failures.append)
    try:
        (ended,) = [here.run()]
        driver.broken = True
        clock.advance(LEASE_TTL_S / 4)
        here.ends(5)
    finally:
        globalLogPublisher.removeObserver(failures.append)
    assert [run.result for run in ended] == [5]
    said = {event["log_format"] for event in failures if "log_failure" in event}
    assert said == {
        "the turn of {task} could not be renewed",
        "the end of {task} could not be noted",
    }


def test_whoever_stops_gives_the_turn_back(here, there):
    here.run()
    here.task.startService()
    here.task.stopService()
    there.run()
    assert there.task.is_running


def test_what_is_asked_for_without_a_task(driver, clock):
    turn = TaskLease(TaskLeases(driver), "sweep", clock, HOUR)
    result_of(driver.put(RUNNING, b"elsewhere 1 it"))
    with pytest.raises(RunSkipped):
        done(turn.run_exclusively(None, scheduled=False))
    assert done(turn.leases.current_holder("sweep")) == "elsewhere 1 it"
