"""Errors of the filesystem driver, and what it leaves, when a system call fails."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.storage.filesystem.counting_oscalls import BROKEN, FULL, FaultyFiles
from tests.storage.filesystem.kit import descriptors, failure_of, make_driver, paths, result_of
from twisted_registry.storage.filesystem.oscalls import OSCalls
from twisted_registry.storage.interfaces import MoveRefused, OffsetInvalid, StorageError
from twisted_registry.testing.stream_contract import RecordingConsumer


@pytest.mark.parametrize(
    ("call", "fault", "full"),
    [
        ("pwrite", FULL, True),
        ("pwrite", errno.EDQUOT, True),
        ("fsync", BROKEN, False),
        ("rename", errno.EACCES, False),
        ("open", errno.EMFILE, False),
    ],
)
def test_a_failed_put_leaves_no_file(tmp_path, call, fault, full):
    before = descriptors()
    driver = make_driver(tmp_path, FaultyFiles(**{call: [fault]}))
    error = failure_of(driver.put("file", b"content"), StorageError).value
    assert (type(error), error.path, error.full) == (StorageError, "file", full)
    assert os.strerror(fault) in str(error)
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


@pytest.mark.parametrize("call", ["link", "fsync", "pwrite"])
def test_a_failed_create_leaves_no_file(tmp_path, call):
    driver = make_driver(tmp_path, FaultyFiles(**{call: [BROKEN]}))
    failure_of(driver.create("file", b"content"), StorageError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["copy_range", "fsync", "rename"])
def test_a_failed_copy_leaves_no_file(tmp_path, call):
    before = descriptors()
    result_of(make_driver(tmp_path).put("source", b"content"))
    driver = make_driver(tmp_path, FaultyFiles(**{call: [BROKEN]}))
    failure_of(driver.copy("source", "copy"), StorageError)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert descriptors() == before


def test_short_writes_are_continued(tmp_path):
    driver = make_driver(tmp_path, FaultyFiles(pwrite=[-1, -2]))
    result_of(driver.put("file", b"content"))
    assert result_of(driver.get("file", 7)) == b"content"


@pytest.mark.parametrize("fault", [errno.EINVAL, None])
def test_a_file_system_without_folder_sync_is_supported(tmp_path, fault):
    driver = make_driver(tmp_path, FaultyFiles(fsync=[None, fault]))
    result_of(driver.put("file", b"content"))


def test_copy_works_without_copy_file_range(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    driver = make_driver(tmp_path)
    result_of(driver.put("source", b"content" * 10_000))
    result_of(driver.copy("source", "copy"))
    assert result_of(driver.get("copy", 70_000)) == b"content" * 10_000


def test_a_move_to_another_disk_copies(tmp_path):
    driver = make_driver(tmp_path, FaultyFiles(rename=[None, errno.EXDEV]))
    result_of(driver.put("source", b"content"))
    result_of(driver.move("source", "folder/moved"))
    assert paths(driver.walk("")) == ["folder/moved"]
    assert result_of(driver.get("folder/moved", 7)) == b"content"


def test_a_move_to_another_disk_calls_still_after_copying(tmp_path):
    driver = make_driver(tmp_path, FaultyFiles(rename=[None, errno.EXDEV, None, errno.EXDEV, None]))
    result_of(driver.put("source", b"content"))
    answers = [True, False]
    failure_of(driver.move("source", "moved", still=lambda: answers.pop(0)), MoveRefused)
    assert answers == []
    assert paths(driver.walk("")) == ["source"]


@pytest.mark.parametrize("call", ["fstat", "pread", "open"])
def test_no_descriptor_is_lost_when_reading_fails(tmp_path, call):
    result_of(make_driver(tmp_path).put("file", b"content"))
    before = descriptors()
    failure_of(make_driver(tmp_path, FaultyFiles(**{call: [BROKEN]})).get("file", 9), StorageError)
    failure_of(make_driver(tmp_path).get("file", 3), StorageError)
    failure_of(make_driver(tmp_path).get("", 3), StorageError)
    failure_of(make_driver(tmp_path).open("file", 8), OffsetInvalid)
    assert descriptors() == before


def test_a_file_that_shrinks_fails_the_delivery(driver, tmp_path):
    result_of(driver.put("file", b"0123456789"))
    reader = result_of(driver.open("file"))
    os.truncate(tmp_path / "file", 4)
    sink = RecordingConsumer()
    assert "ends after 4 of 10 bytes" in str(failure_of(reader.deliver(sink), StorageError).value)
    assert sink.content == b"0123"
    assert not sink.has_producer
    reader = result_of(driver.open("file"))
    os.truncate(tmp_path / "file", 2)
    failure_of(reader.feed(lambda _: None), StorageError)


def test_a_disk_error_fails_the_delivery(tmp_path):
    before = descriptors()
    driver = make_driver(tmp_path, FaultyFiles(pread=[BROKEN, BROKEN]))
    result_of(driver.put("file", b"content"))
    for ask in (
        lambda reader: reader.deliver(RecordingConsumer()),
        lambda reader: reader.feed(print),
    ):
        failure_of(ask(result_of(driver.open("file"))), StorageError)
    assert descriptors() == before


class PruningFiles(OSCalls):
    """Files of which another process deletes the folder as soon as one is deleted."""

    def unlink(self, path):
        super().unlink(path)
        shutil.rmtree(Path(path).parents[1])


@pytest.mark.parametrize("way", ["delete", "delete_many"])
def test_a_folder_that_another_process_deletes_at_once_does_not_fail_a_delete(tmp_path, way):
    driver = make_driver(tmp_path, PruningFiles())
    result_of(driver.put("a/b/c/file", b"content"))
    deleting = (
        driver.delete_many(["a/b/c/file"]) if way == "delete_many" else driver.delete("a/b/c/file")
    )
    result_of(deleting)
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
