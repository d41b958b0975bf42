from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_registry.storage.interfaces import PathInvalid, StorageError
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.stream_contract import RecordingConsumer

case = SynchronousTestCase()
result_of, failure_of = case.successResultOf, case.failureResultOf


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1000)
    return clock


@pytest.fixture
def driver(clock):
    return MemoryDriver(clock)


def modified(driver, path):
    return result_of(driver.stat(path)).modified


def test_times_come_from_the_clock(driver, clock):
    result_of(driver.put("folder/file", b""))
    made = modified(driver, "folder/file")
    assert 0 <= made - 1000 * 10**9 < 1000
    clock.advance(5)
    writer = result_of(driver.writer("folder/file", 0))
    writer.write(b"more")
    assert 0 <= modified(driver, "folder/file") - 1005 * 10**9 < 1000
    assert modified(driver, "folder") < 1001 * 10**9
    result_of(driver.put("folder/other", b""))
    assert modified(driver, "folder") >= 1005 * 10**9


def test_two_changes_in_one_tick_have_different_times(driver):
    result_of(driver.put("file", b"1"))
    first = modified(driver, "file")
    result_of(driver.put("file", b"2"))
    assert modified(driver, "file") > first


def test_files_and_folders_cannot_replace_each_other(driver):
    result_of(driver.put("folder/file", b""))
    failure_of(driver.put("folder", b""), PathInvalid)
    failure_of(driver.put("folder/file/below", b""), PathInvalid)
    failure_of(driver.writer("folder"), PathInvalid)
    failure_of(driver.list("folder/file"), PathInvalid)
    failure_of(driver.move("folder/file", "folder"), PathInvalid)
    failure_of(driver.delete_many(["folder", "folder/file"]), PathInvalid)
    assert result_of(driver.walk("")) == []


def test_cancel_keeps_a_file_that_replaced_its_own(driver):
    writer = result_of(driver.writer("file", 0))
    result_of(driver.move("file", "moved"))
    result_of(driver.put("file", b"another"))
    result_of(writer.cancel())
    assert result_of(driver.get("file", 100)) == b"another"
    assert result_of(driver.get("moved", 100)) == b""


def test_a_consumer_can_pause_and_resume_inside_write(driver):
    result_of(driver.put("file", b"x" * 1_000_000))

    class Nervous(RecordingConsumer):
        def write(self, data):
            super().write(data)
            self.producer.pauseProducing()
            self.producer.resumeProducing()

    sink = Nervous()
    result_of(result_of(driver.open("file")).deliver(sink))
    assert len(sink.content) == 1_000_000
    assert len(sink.received) == 4


def test_appending_does_not_copy_the_whole_file(driver):
    writer = result_of(driver.writer("file", 0))
    # If each write copied the file, this would take minutes.
    for _ in range(40_000):
        writer.write(b"x" * 1000)
    assert result_of(writer.close()) == 40_000_000


def test_a_producer_can_register_and_unregister(driver):
    writer = result_of(driver.writer("file", 0))
    writer.registerProducer(object(), True)
    writer.unregisterProducer()
    result_of(writer.close())


def test_an_observer_that_fails_fails_the_feed(driver):
    result_of(driver.put("file", b"x"))

    def observe(_):
        raise StorageError("file")

    failure_of(result_of(driver.open("file")).feed(observe), StorageError)
