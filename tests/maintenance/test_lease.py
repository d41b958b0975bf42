"""Which of several processes on one store runs a task."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tests.repository.worlds import done, result_of
from twisted_registry.maintenance.lease import (
    LEASE_TTL_S,
    RunSkipped,
    TaskLease,
    TaskRun,
    host_and_pid,
)
from twisted_registry.maintenance.task import PeriodicTask
from twisted_registry.repository.liveness import process_identity
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


class LeaseDriver(MemoryDriver):
    """A store that may lack conditional writes, or fail."""

    conditional = True
    broken = False
    held = None

    def delete(self, path, *, durable=True):
        held, self.held = self.held, None
        return held or super().delete(path, durable=durable)

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
    driver = LeaseDriver(clock)
    driver.conditional = request.param
    return driver


class Process:
    """One of several processes, with a task whose runs the test ends."""

    def __init__(self, driver, clock, settings="same"):
        self.begun = []
        self.lease = TaskLease(driver, "sweep", clock, HOUR, settings)
        self.task = PeriodicTask("sweep", self.work, clock, HOUR, lambda: 0.0, self.lease)

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
def there(driver, clock):
    """A second process."""
    return Process(driver, clock)


def test_task_runs_in_one_process_at_a_time(here, there):
    here.run()
    (run,) = there.run()
    assert run.skipped == "another process runs this task"
    assert (there.task.runs, there.task.skipped, there.task.last_run) == (0, 1, None)
    here.ends()
    there.run()
    assert there.task.is_running


def test_lease_is_renewed_during_a_long_run(here, there, clock):
    here.run()
    for _ in range(20):
        clock.advance(LEASE_TTL_S / 4)
    assert there.run()[0].skipped
    here.ends()
    assert clock.getDelayedCalls() == []


def test_lease_that_is_not_renewed_expires(driver, there, clock):
    result_of(driver.put(RUNNING, b"elsewhere 1 it"))
    clock.advance(LEASE_TTL_S * 0.9)
    assert there.run()[0].skipped
    clock.advance(LEASE_TTL_S * 0.2)
    there.run()
    assert there.task.is_running


@pytest.mark.skipif(not process_identity(), reason="needs /proc")
@pytest.mark.parametrize("is_reused", [False, True], ids=["free", "reused"])
def test_lease_of_an_exited_process_is_taken_over_at_once(driver, here, is_reused):
    place, pid, started = process_identity().rsplit("/", 2)
    dead = f"{place}/{pid}/{int(started) - 1}" if is_reused else f"{place}/{2**22 + 1}/{started}"
    result_of(driver.put(RUNNING, f"{host_and_pid()} an-id {dead}".encode()))
    here.run()
    assert here.task.is_running


def test_lease_of_a_live_process_is_not_taken_over(driver, here):
    alive = f"{host_and_pid()} an-id {process_identity()}"
    result_of(driver.put(RUNNING, alive.encode()))
    assert here.run()[0].skipped


def test_current_holder_is_shown_without_its_identity(here):
    assert done(here.lease.current_holder()) is None
    here.run()
    holder = done(here.lease.current_holder())
    assert holder.startswith(f"{host_and_pid()} ")
    assert len(holder.split()) == 3
    here.ends()
    assert done(here.lease.current_holder()) is None


def test_scheduled_run_is_skipped_if_another_process_ran_the_task_recently(here, there, clock):
    here.run()
    clock.advance(60)
    here.ends()
    clock.advance(HOUR / 2 - 61)
    (run,) = there.run(scheduled=True)
    assert run.skipped.endswith(f"did it {HOUR / 2 - 61:.0f} s ago")
    clock.advance(1)
    there.run(scheduled=True)
    assert there.task.is_running


def test_manual_run_is_not_skipped_after_a_recent_run(here, there):
    here.run()
    here.ends()
    there.run()
    assert there.task.is_running


def test_scheduled_run_is_not_skipped_after_a_failure(here, there):
    runs = here.run()
    here.begun[0].errback(OSError("broken"))
    assert runs[0].failure
    there.run(scheduled=True)
    assert there.task.is_running


def test_scheduled_run_is_not_skipped_after_a_run_with_other_settings(here, driver, clock):
    here.run()
    here.ends()
    other = Process(driver, clock, "others")
    other.run(scheduled=True)
    assert other.task.is_running


def test_all_processes_read_the_record_of_the_last_run(driver, here, there, clock):
    here.run()
    clock.advance(3)
    here.ends({"gone": 2})
    last_run = done(there.lease.last_run())
    assert (last_run.seconds, last_run.result, last_run.failure) == (3.0, {"gone": 2}, "")
    assert last_run.by == host_and_pid()
    result_of(driver.put(LAST, b"{"))
    assert done(there.lease.last_run()) is None


@pytest.mark.parametrize("content", [b"", b"7", b"[]", b'{"began": "x", "seconds": 1}', b"{}"])
def test_torn_record_is_ignored(content):
    assert TaskRun.from_bytes(content) is None


def test_record_of_a_later_version_is_read():
    content = b'{"began": 1, "seconds": 2, "novelty": 3}'
    assert TaskRun.from_bytes(content) == TaskRun(1, 2)


def test_lease_that_was_taken_over_is_neither_renewed_nor_released(driver, here, clock):
    here.run()
    result_of(driver.put(RUNNING, b"elsewhere 1 it"))
    clock.advance(LEASE_TTL_S / 4)
    here.ends()
    assert result_of(driver.get(RUNNING, 100)) == b"elsewhere 1 it"
    assert (here.task.runs, here.task.failures) == (1, 0)


def test_run_succeeds_although_the_store_fails_meanwhile(driver, here, clock):
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
        "lease could not be renewed task={task}",
        "run could not be recorded task={task}",
    }


def test_stopping_the_service_releases_the_lease(here, there):
    here.run()
    here.task.startService()
    here.task.stopService()
    there.run()
    assert there.task.is_running


def test_work_is_not_started_while_the_lease_is_held(driver, clock):
    lease = TaskLease(driver, "sweep", clock, HOUR)
    result_of(driver.put(RUNNING, b"elsewhere 1 it"))
    with pytest.raises(RunSkipped):
        done(lease.run_exclusively(None, scheduled=False))
    assert done(lease.current_holder()) == "elsewhere 1 it"


def test_record_has_plain_values_and_is_shown_without_settings():
    run = TaskRun(1.0, 2.0, TaskRun(3.0, 4.0), by="host 1", settings="secret")
    stored = TaskRun.from_bytes(run.to_bytes())
    assert stored.settings == "secret"
    assert stored.result["began"] == 3.0
    assert run.as_dict() == {
        "began": 1.0,
        "seconds": 2.0,
        "result": stored.result,
        "failure": "",
        "by": "host 1",
    }


def test_lease_is_released_when_the_task_is_stopped_during_the_release(
    here, there, driver, log_lines
):
    here.task.startService()
    here.run()
    driver.held = Deferred()
    here.ends()
    assert here.task.is_running
    stopped = []
    here.task.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert not [line for line in log_lines if "lease" in line]
    there.run()
    assert there.task.is_running
