"""The cache of the names of folders: one read for each version of a folder."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from tests.storage.filesystem.counting_oscalls import CountingFiles, FaultyFiles
from tests.storage.filesystem.kit import InlineThreads, failure_of, make_driver, result_of
from twisted_registry.storage.interfaces import PathInvalid, PathNotFound, StorageError

#: Nanoseconds.
SECOND = 1_000_000_000


class NoThreads(InlineThreads):
    """Fails a test that uses a thread."""

    def run_blocking(self, work, *arguments, undo=None):
        raise AssertionError("asked for a thread")


@pytest.fixture
def files():
    return CountingFiles()


@pytest.fixture
def driver(tmp_path, files):
    return driver_on(tmp_path, files)


def driver_on(root, files=None, **options):
    """A driver whose clock is ahead, so that all files are old enough to be cached."""
    clock = Clock()
    clock.advance(time.time_ns() / SECOND + 10)
    return make_driver(root, files or CountingFiles(), clock=clock, **options)


def make(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)


def folders(driver, path="x", **options):
    return list(result_of(driver.list_folders(path, **options)))


def scans(files):
    return files.calls["scandir"]


def test_an_unchanged_folder_is_read_once(driver, files, tmp_path):
    make(tmp_path, "x/c", "x/a", "x/b/d")
    (tmp_path / "x/file").touch()
    for _ in range(3):
        assert folders(driver) == ["a", "b", "c"]
        assert folders(driver, after="a", limit=1) == ["b"]
        assert [list(names) for names in result_of(driver.list_folders_many(["x"], 2))] == [
            ["a", "b"]
        ]
    assert scans(files) == 1


def test_cached_names_need_no_thread(driver, tmp_path):
    make(tmp_path, "x/a", "x/b")
    assert folders(driver) == ["a", "b"]
    driver.threads = NoThreads()
    assert folders(driver) == ["a", "b"]
    assert folders(driver, after="a") == ["b"]
    make(tmp_path, "x/c")
    for options in ({}, {"containing": "file"}):
        with pytest.raises(AssertionError, match="asked for a thread"):
            folders(driver, **options)


@pytest.mark.parametrize("change", ["make", "remove", "rename", "swap"])
def test_a_change_by_another_process_is_seen_by_the_next_call(driver, files, tmp_path, change):
    make(tmp_path, "x/a", "x/b", "y/a", "y/z")
    assert folders(driver) == ["a", "b"]
    if change == "make":
        make(tmp_path, "x/c")
        expected = ["a", "b", "c"]
    elif change == "remove":
        (tmp_path / "x/a").rmdir()
        expected = ["b"]
    elif change == "rename":
        (tmp_path / "x/a").rename(tmp_path / "x/c")
        expected = ["b", "c"]
    else:
        (tmp_path / "x").rename(tmp_path / "old")
        (tmp_path / "y").rename(tmp_path / "x")
        expected = ["a", "z"]
    assert folders(driver) == expected
    assert scans(files) == 2


def test_a_deleted_folder_is_not_found(driver, tmp_path):
    make(tmp_path, "x/a")
    assert folders(driver) == ["a"]
    (tmp_path / "x/a").rmdir()
    (tmp_path / "x").rmdir()
    failure_of(driver.list_folders("x"), PathNotFound)
    (tmp_path / "x").touch()
    failure_of(driver.list_folders("x"), PathInvalid)


def test_concurrent_reads_of_a_folder_are_cached_once(tmp_path):
    make(tmp_path, "x/a", "x/b")

    class Meeting(CountingFiles):
        met = False

        def scandir(self, path):
            if not self.met:
                self.met = True
                assert folders(driver) == ["a", "b"]
            return super().scandir(path)

    files = Meeting()
    driver = driver_on(tmp_path, files)
    for _ in range(2):
        assert folders(driver) == ["a", "b"]
    assert scans(files) == 2
    assert driver.folder_names.size == 10


def test_a_folder_deleted_while_it_is_read_is_not_found(tmp_path):
    make(tmp_path, "x/a")
    driver = driver_on(tmp_path, FaultyFiles(scandir=[errno.ENOENT]))
    failure_of(driver.list_folders("x"), PathNotFound)
    assert folders(driver) == ["a"]


def test_a_folder_changed_just_now_is_not_cached(driver, files, tmp_path):
    make(tmp_path, "x/a")
    changed = (tmp_path / "x").stat().st_mtime_ns
    for age, expected in ((0, 1), (19_000_000, 2), (25_000_000, 3), (30_000_000, 3)):
        driver.reactor.rightNow = (changed + age) / SECOND
        assert folders(driver) == ["a"]
        assert scans(files) == expected


def test_whole_second_times_are_trusted_later(tmp_path):
    class Coarse(CountingFiles):
        def stat(self, path):
            found = Path(path).stat()
            whole = int(found.st_mtime) * SECOND
            return SimpleNamespace(
                st_mode=found.st_mode,
                st_size=found.st_size,
                st_dev=1,
                st_ino=2,
                st_mtime_ns=whole,
                st_ctime_ns=whole,
            )

    files = Coarse()
    driver = driver_on(tmp_path, files)
    make(tmp_path, "x/a")
    changed = int((tmp_path / "x").stat().st_mtime)
    for age, expected in ((0.5, 1), (1.9, 2), (2.2, 3), (2.3, 3)):
        driver.reactor.rightNow = changed + age
        assert folders(driver) == ["a"]
        assert scans(files) == expected


def test_a_time_in_the_future_is_not_trusted(driver, files, tmp_path):
    make(tmp_path, "x/a")
    later = time.time_ns() + 60 * SECOND
    os.utime(tmp_path / "x", ns=(later, later))
    for expected in (1, 2):
        assert folders(driver) == ["a"]
        assert scans(files) == expected


def test_the_number_of_cached_names_is_bounded(tmp_path, files):
    driver = driver_on(tmp_path, files, max_cached_names=40)
    make(tmp_path, *(f"x{folder}/n{name}" for folder in range(4) for name in range(5)))
    make(tmp_path, *(f"large/n{name:02}" for name in range(40)))

    def reads(path):
        before = scans(files)
        folders(driver, path)
        return scans(files) - before

    assert [reads(f"x{number}") for number in (0, 1, 2, 0, 1, 2)] == [1, 1, 1, 0, 0, 0]
    # The least recently used folder is dropped.
    assert [reads(f"x{number}") for number in (0, 3, 0, 2, 1)] == [0, 1, 0, 0, 1]
    assert [reads("large"), reads("large"), reads("x1")] == [1, 1, 0]
    assert driver.folder_names.size <= 40


def test_symbolic_links_are_checked_each_time(driver, files, tmp_path):
    make(tmp_path, "x/a", "x/c", "elsewhere/d")
    (tmp_path / "x/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x/dangling").symlink_to(tmp_path / "later")
    (tmp_path / "x/self").symlink_to(tmp_path / "x/self")
    (tmp_path / "elsewhere/d/file").write_bytes(b"1")
    assert folders(driver) == ["a", "b", "c"]
    assert folders(driver, limit=2) == ["a", "b"]
    assert folders(driver, containing="d/file") == ["b"]
    make(tmp_path, "later")
    (tmp_path / "elsewhere").rename(tmp_path / "moved")
    assert folders(driver) == ["a", "c", "dangling"]
    assert folders(driver, containing="d/file") == []
    assert scans(files) == 1


def test_names_that_are_not_valid_in_paths_are_skipped(driver, tmp_path):
    for name in (b"\xff\xfe", b"new\nline", b".hidden", b"good", b"caf\xc3\xa9"):
        (tmp_path / "x" / os.fsdecode(name)).mkdir(parents=True)
    (tmp_path / "x" / os.fsdecode(b"\xfe")).symlink_to(tmp_path)
    assert folders(driver) == ["café", "good"]


def test_a_disk_error_fails_the_listing(tmp_path):
    make(tmp_path, "x/a")
    (tmp_path / "x/a/file").write_bytes(b"1")
    asked = [
        lambda driver: driver.list_folders("x"),
        lambda driver: driver.list_folders_many(["x"], 10),
        lambda driver: driver.list_folders("x", containing="a/file"),
    ]
    for ask in asked:
        for call in ("stat", "scandir"):
            driver = driver_on(tmp_path, FaultyFiles(**{call: [errno.EIO]}))
            assert type(failure_of(ask(driver), StorageError).value) is StorageError
    driver = driver_on(tmp_path, FaultyFiles(stat=[None, errno.EIO]))
    assert type(failure_of(asked[2](driver), StorageError).value) is StorageError
    driver = driver_on(tmp_path, FaultyFiles(pread=[errno.EIO]))
    error = failure_of(driver.get_many(["x/a/file"], 10), StorageError).value
    assert (type(error), error.path) == (StorageError, "x/a/file")


def test_a_folder_deleted_before_its_folders_are_checked_is_not_found(tmp_path):
    make(tmp_path, "x/a")
    driver = driver_on(tmp_path, FaultyFiles(open=[errno.ENOENT]))
    failure_of(driver.list_folders("x", containing="file"), PathNotFound)


def test_no_descriptor_is_lost(tmp_path):
    make(tmp_path, "x/a", "x/b")
    for name in "ab":
        (tmp_path / "x" / name / "file").write_bytes(b"1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    driver = driver_on(tmp_path, FaultyFiles(stat=[None, errno.EIO]))
    failure_of(driver.list_folders("x", containing="file"), StorageError)
    assert folders(driver, containing="file", limit=1) == ["a"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_names_are_read_on_a_thread_if_a_stat_fails(tmp_path):
    make(tmp_path, "x/a")
    driver = driver_on(tmp_path, FaultyFiles(stat=[None, errno.EIO]))
    assert folders(driver) == ["a"]
    assert folders(driver) == ["a"]


def test_a_file_found_inside_a_folder_is_not_checked_again(driver, files, tmp_path):
    for name in ("a", "b", "c", "d"):
        result_of(driver.put(f"x/{name}/link", b"1"))
    result_of(driver.put("x/bb/other", b"1"))
    held = ["a", "b", "c", "d"]
    assert folders(driver, containing="link") == held
    looks = files.calls["stat"]
    assert folders(driver, containing="link") == held
    # One stat of the folder itself, and one inside the folder without a file.
    assert files.calls["stat"] - looks == 2
    assert folders(driver, containing="link", after="bb", limit=1) == ["c"]
    assert folders(driver, containing="link", after="b") == ["c", "d"]
    result_of(driver.put("x/bb/link", b"1"))
    assert folders(driver, containing="link", limit=3) == ["a", "b", "bb"]
    assert folders(driver, containing="link") == ["a", "b", "bb", "c", "d"]
    assert folders(driver, containing="other") == ["bb"]


def test_files_found_inside_are_forgotten_when_the_folder_changes(driver, tmp_path):
    for name in ("a", "b"):
        result_of(driver.put(f"x/{name}/link", b"1"))
    assert folders(driver, containing="link") == ["a", "b"]
    (tmp_path / "x/a/link").unlink()
    result_of(driver.put("x/c/link", b"1"))
    os.utime(tmp_path / "x")
    assert folders(driver, containing="link") == ["b", "c"]


def test_found_files_are_recorded_for_few_inner_paths(driver, files, tmp_path):
    for inside in ("one", "two", "three"):
        result_of(driver.put(f"x/a/{inside}", b"1"))
        assert folders(driver, containing=inside) == ["a"]
    looks = files.calls["stat"]
    assert folders(driver, containing="three") == folders(driver, containing="two") == ["a"]
    assert files.calls["stat"] - looks == 2
    assert folders(driver, containing="one") == ["a"]
    assert files.calls["stat"] - looks == 4


def test_files_behind_symbolic_links_are_checked_each_time(driver, tmp_path):
    result_of(driver.put("y/link", b"1"))
    make(tmp_path, "x")
    (tmp_path / "x/a").symlink_to(tmp_path / "y")
    assert folders(driver, containing="link") == ["a"]
    (tmp_path / "y/link").unlink()
    assert folders(driver, containing="link") == []
