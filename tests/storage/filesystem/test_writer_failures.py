"""Writers when the disk or the observer fails."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from tests.storage.filesystem.counting_oscalls import BROKEN, FULL, FaultyFiles
from tests.storage.filesystem.kit import (
    MIB,
    Producer,
    descriptors,
    failure_of,
    make_driver,
    result_of,
)
from twisted_registry.storage.interfaces import StorageError


def test_a_full_disk_fails_the_writer_and_keeps_what_was_stored(tmp_path):
    before = descriptors()
    files = FaultyFiles(pwrite=[None, -10, FULL])
    driver = make_driver(tmp_path, files)
    hasher = hashlib.sha256()
    writer = result_of(driver.writer("file", 0, hasher.update))
    producer = Producer()
    writer.registerProducer(producer, True)
    writer.write(b"x" * MIB)
    assert result_of(writer.flush()) == MIB
    writer.write(b"y" * MIB)
    assert producer.log == ["stop"]
    # The half-written batch is undone; size and observer agree with the file.
    assert writer.size == MIB
    assert (tmp_path / "file").stat().st_size == MIB
    assert hasher.digest() == hashlib.sha256(b"x" * MIB).digest()
    writer.write(b"dropped")
    for ask in (writer.flush, writer.commit, writer.flush):
        error = failure_of(ask(), StorageError).value
        assert error.full
        assert error.path == "file"
    assert result_of(writer.close()) == MIB
    assert descriptors() == before
    again = result_of(driver.writer("file", MIB))
    again.write(b"y" * MIB)
    assert result_of(again.commit()) == 2 * MIB
    result_of(again.close())
    assert descriptors() == before


def test_close_raises_an_error_that_was_not_raised_before(tmp_path):
    before = descriptors()
    driver = make_driver(tmp_path, FaultyFiles(pwrite=[BROKEN]))
    writer = result_of(driver.writer("file", 0))
    writer.write(b"x" * MIB)
    error = failure_of(writer.close(), StorageError).value
    assert not error.full
    assert os.strerror(errno.EIO) in str(error)
    assert result_of(writer.close()) == 0
    assert descriptors() == before


def test_a_producer_that_comes_after_the_failure_is_stopped(tmp_path):
    driver = make_driver(tmp_path, FaultyFiles(pwrite=[BROKEN]))
    writer = result_of(driver.writer("file", 0))
    writer.write(b"x" * MIB)
    producer = Producer()
    writer.registerProducer(producer, True)
    assert producer.log == ["stop"]
    result_of(writer.cancel())
    assert not (tmp_path / "file").exists()


def test_a_failed_sync_truncates_to_what_was_synced(tmp_path):
    driver = make_driver(tmp_path, FaultyFiles(fsync=[None, None, BROKEN]))
    writer = result_of(driver.writer("file", 0))
    writer.write(b"safe")
    assert result_of(writer.flush()) == 4
    writer.write(b" perhaps lost")
    failure_of(writer.flush(), StorageError)
    assert writer.size == 4
    assert result_of(writer.close()) == 4
    assert (tmp_path / "file").read_bytes() == b"safe"


def test_a_failing_observer_fails_the_writer(tmp_path):
    before = descriptors()
    driver = make_driver(tmp_path)

    def observe(_):
        raise ValueError("cannot hash")

    writer = result_of(driver.writer("file", 0, observe))
    writer.write(b"x" * MIB)
    assert "cannot hash" in str(failure_of(writer.commit(), StorageError).value)
    assert writer.size == 0
    result_of(writer.close())
    assert descriptors() == before


def test_close_frees_the_lock_even_if_removing_fails(tmp_path):
    before = descriptors()
    driver = make_driver(tmp_path, FaultyFiles(unlink=[BROKEN]))
    writer = result_of(driver.writer("file", 0))
    failure_of(writer.cancel(), StorageError)
    assert descriptors() == before
    result_of(result_of(driver.writer("file", 0)).close())


@pytest.mark.parametrize("call", ["lock", "fstat", "stat", "open"])
def test_no_descriptor_is_lost_when_opening_fails(tmp_path, call):
    before = descriptors()
    driver = make_driver(tmp_path, FaultyFiles(**{call: [BROKEN]}))
    failure_of(driver.writer("file", 0), StorageError)
    assert descriptors() == before
