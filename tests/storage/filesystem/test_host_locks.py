from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from tests.storage.filesystem.kit import descriptors, make_driver
from twisted_registry.storage.interfaces import StorageError


def made(root, clock, files=None):
    """The driver of another process."""
    return make_driver(root, files, clock=clock, max_open_files=0)


@pytest.fixture
def clock():
    return Clock()


def held(driver, name="a:latest"):
    """Take a lock; return lists that receive the release function or the failure."""
    got, failed = [], []
    waiting = driver.lock(name).addCallbacks(got.append, failed.append)
    return got, failed, waiting


def test_a_lock_has_one_holder_at_a_time(tmp_path, clock):
    drivers = [made(tmp_path, clock) for _ in range(3)]
    before = descriptors()
    order = []
    for number, driver in enumerate(drivers):
        driver.lock("a:latest").addCallback(
            lambda release, number=number: order.append((number, release))
        )
    assert [number for number, _ in order] == [0]
    for count in (1, 2, 3):
        clock.pump([0.02] * 50)
        assert len(order) == count
        order[-1][1]()
    assert {number for number, _ in order} == {0, 1, 2}
    assert descriptors() == before
    assert not clock.getDelayedCalls()


def test_other_names_do_not_wait(tmp_path, clock):
    one, other = made(tmp_path, clock), made(tmp_path, clock)
    (first,), _, _ = held(one, "a:latest")
    (second,), _, _ = held(other, "b:latest")
    first()
    second()


def test_lock_files_are_empty_and_bounded(tmp_path, clock):
    driver = made(tmp_path, clock)
    for number in range(2000):
        (release,), _, _ = held(driver, f"a:{number}")
        release()
    found = list((tmp_path / "twisted-registry" / ".locks").iterdir())
    assert 100 < len(found) <= 256
    assert all(each.stat().st_size == 0 for each in found)
    assert [each.name for each in tmp_path.iterdir()] == ["twisted-registry"]


def test_waiting_can_be_cancelled(tmp_path, clock):
    one, other = made(tmp_path, clock), made(tmp_path, clock)
    (release,), _, _ = held(one)
    before = descriptors()
    got, failed, waiting = held(other)
    waiting.cancel()
    assert got == []
    assert failed[0].check(CancelledError)
    assert descriptors() == before
    assert not clock.getDelayedCalls()
    release()
    (again,), _, _ = held(other)
    again()


def test_waiting_fails_after_a_timeout(tmp_path, clock):
    one, other = made(tmp_path, clock), made(tmp_path, clock)
    (release,), _, _ = held(one)
    before = descriptors()
    got, failed, _ = held(other)
    clock.pump([0.1] * 299)
    assert (got, failed) == ([], [])
    clock.pump([0.1] * 5)
    assert failed[0].check(StorageError)
    assert descriptors() == before
    release()


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path, clock):
    driver = made(tmp_path, clock)
    (release,), _, _ = held(driver)
    release()
    (path,) = (tmp_path / "twisted-registry" / ".locks").iterdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        got, _, _ = held(driver)
        clock.pump([0.02] * 10)
        assert got == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    clock.pump([0.02])
    (release,) = got
    release()


def test_system_errors_become_storage_errors(tmp_path, clock):
    (tmp_path / "twisted-registry").write_text("")
    _, failed, _ = held(made(tmp_path, clock))
    assert failed[0].check(StorageError)
