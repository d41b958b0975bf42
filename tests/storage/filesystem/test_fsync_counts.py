"""Numbers of fsync calls, which determine the duration of a push."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.filesystem.counting_oscalls import CountingFiles
from tests.storage.filesystem.kit import InlineThreads
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.interfaces import Move, Put, Remove

result_of = SynchronousTestCase().successResultOf


@pytest.fixture
def files():
    return CountingFiles()


@pytest.fixture
def driver(files, tmp_path):
    driver = FilesystemDriver(str(tmp_path), Clock(), files=files, threads=InlineThreads())
    result_of(driver.put("known/file", b""))
    files.calls.clear()
    return driver


def test_put_in_a_known_folder_syncs_file_and_folder(driver, files):
    result_of(driver.put("known/other", b"content"))
    assert files.calls["fsync"] == 2


def test_put_in_three_new_folders_syncs_those_and_the_one_above(driver, files):
    result_of(driver.put("known/1/2/3/file", b"content"))
    assert files.calls["fsync"] == 5
    result_of(driver.put("known/1/2/3/file", b"content"))
    assert files.calls["fsync"] == 7


def test_put_without_durable_syncs_nothing(driver, files):
    result_of(driver.put("known/1/file", b"content", durable=False))
    assert files.calls["fsync"] == 0


def test_create_makes_as_many_syncs_as_put(driver, files):
    result_of(driver.create("known/other", b"content"))
    assert files.calls["fsync"] == 2


def test_moving_a_blob_into_two_new_folders_makes_three_syncs(driver, files):
    writer = result_of(driver.writer("known/uploads/data", 0))
    writer.write(b"content")
    result_of(writer.commit())
    assert files.calls["fsync"] == 1
    result_of(driver.move("known/uploads/data", "known/ab/abcd/data"))
    result_of(writer.close())
    assert files.calls["fsync"] == 4


def test_finalize_syncs_data_link_and_their_folders(driver, files):
    for expected in (9, 6):
        result_of(driver.put("known/uploads/1/startedat", b"now", durable=False))
        files.calls.clear()
        writer = result_of(driver.writer("known/uploads/1/data", 0))
        writer.write(b"content")
        blob, link = f"known/blobs/ab/abc{expected}", f"known/links/abc{expected}"
        changes = [
            Remove("known/uploads/1/startedat"),
            Move("known/uploads/1/data", f"{blob}/data"),
            Put(f"{link}/link", b"abcd"),
            Remove("known/uploads/1"),
        ]
        result_of(writer.finalize(lambda _, changes=changes: changes))
        # The data, the link, and for each its folder and the parent. The first time, the parents of
        # those as well, before the link is renamed, because the blob must be durable first.
        assert files.calls["fsync"] == expected


def test_closing_an_unfinished_upload_syncs_nothing(driver, files):
    writer = result_of(driver.writer("known/uploads/data", 0))
    writer.write(b"content")
    result_of(writer.close())
    assert files.calls["fsync"] == 0


def test_only_the_first_flush_syncs_the_name(driver, files):
    writer = result_of(driver.writer("known/data", 0))
    writer.write(b"content")
    result_of(writer.flush())
    assert files.calls["fsync"] == 2
    writer.write(b"more")
    result_of(writer.flush())
    assert files.calls["fsync"] == 3
    result_of(writer.close())
    assert files.calls["fsync"] == 3


def test_delete_syncs_the_folder(driver, files):
    result_of(driver.delete("known/file"))
    assert files.calls["fsync"] == 1
    result_of(driver.delete("known"))
    assert files.calls["fsync"] == 2


def test_delete_many_syncs_each_folder_once(driver, files):
    paths = [f"known/{folder}/{name}" for folder in "ab" for name in range(5)]
    for path in paths:
        result_of(driver.put(path, b"", durable=False))
    result_of(driver.delete_many(paths))
    assert files.calls["fsync"] == 2


def test_stat_makes_one_call(driver, files):
    result_of(driver.stat("known/file"))
    assert sum(files.calls.values()) == 1
