"""Names of folders are read once for each version of a folder, and never believed for longer."""

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
    """Fails the test that needs a thread."""

    def run_blocking(self, work, *arguments, undo=None):
        raise AssertionError("asked for a thread")


@pytest.fixture
def files():
    return CountingFiles()


@pytest.fixture
def driver(tmp_path, files):
    return driver_on(tmp_path, files)


def driver_on(root, files=None, **options):
    """A driver for which all that is stored now is old."""
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


def test_a_folder_is_read_once(driver, files, tmp_path):
    make(tmp_path, "x/c", "x/a", "x/b/d")
    (tmp_path / "x/file").touch()
    for _ in range(3):
        assert folders(driver) == ["a", "b", "c"]
        assert folders(driver, after="a", limit=1) == ["b"]
        assert [list(names) for names in result_of(driver.list_folders_many(["x"], 2))] == [
            ["a", "b"]
        ]
    assert scans(files) == 1


def test_what_is_known_is_answered_without_a_thread(driver, tmp_path):
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
def test_a_change_by_anybody_is_seen_by_the_next_question(driver, files, tmp_path, change):
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


def test_a_folder_that_goes_is_gone(driver, tmp_path):
    make(tmp_path, "x/a")
    assert folders(driver) == ["a"]
    (tmp_path / "x/a").rmdir()
    (tmp_path / "x").rmdir()
    failure_of(driver.list_folders("x"), PathNotFound)
    (tmp_path / "x").touch()
    failure_of(driver.list_folders("x"), PathInvalid)


def test_two_that_read_a_folder_at_once(tmp_path):
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


def test_a_folder_that_goes_while_it_is_read(tmp_path):
    make(tmp_path, "x/a")
    driver = driver_on(tmp_path, FaultyFiles(scandir=[errno.ENOENT]))
    failure_of(driver.list_folders("x"), PathNotFound)
    assert folders(driver) == ["a"]


def test_what_changed_just_now_is_not_kept(driver, files, tmp_path):
    make(tmp_path, "x/a")
    changed = (tmp_path / "x").stat().st_mtime_ns
    for age, expected in ((0, 1), (19_000_000, 2), (25_000_000, 3), (30_000_000, 3)):
        driver.reactor.rightNow = (changed + age) / SECOND
        assert folders(driver) == ["a"]
        assert scans(files) == expected


def test_times_that_are_whole_seconds_are_believed_later(tmp_path):
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


def test_a_time_in_the_future_is_not_believed(driver, files, tmp_path):
    make(tmp_path, "x/a")
    later = time.time_ns() + 60 * SECOND
    os.utime(tmp_path / "x", ns=(later, later))
    for expected in (1, 2):
        assert folders(driver) == ["a"]
        assert scans(files) == expected


def test_no_more_names_are_kept_than_allowed(tmp_path, files):
    driver = driver_on(tmp_path, files, max_cached_names=40)
    make(tmp_path, *(f"x{folder}/n{name}" for folder in range(4) for name in range(5)))
    make(tmp_path, *(f"large/n{name:02}" for name in range(40)))

    def reads(path):
        before = scans(files)
        folders(driver, path)
        return scans(files) - before

    assert [reads(f"x{number}") for number in (0, 1, 2, 0, 1, 2)] == [1, 1, 1, 0, 0, 0]
    # The one that was asked for least lately goes.
    assert [reads(f"x{number}") for number in (0, 3, 0, 2, 1)] == [0, 1, 0, 0, 1]
    assert [reads("large"), reads("large"), reads("x1")] == [1, 1, 0]
    assert driver.folder_names.size <= 40


def test_symbolic_links_are_looked_at_each_time(driver, files, tmp_path):
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


def test_names_that_no_path_can_spell_are_passed_over(driver, tmp_path):
    for name in (b"\xff\xfe", b"new\nline", b".hidden", b"good", b"caf\xc3\xa9"):
        (tmp_path / "x" / os.fsdecode(name)).mkdir(parents=True)
    (tmp_path / "x" / os.fsdecode(b"\xfe")).symlink_to(tmp_path)
    assert folders(driver) == ["café", "good"]


def test_a_disk_that_fails_is_no_empty_folder(tmp_path):
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


def test_a_folder_that_goes_before_its_folders_are_looked_at(tmp_path):
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


def test_a_disk_that_fails_at_a_look_is_asked_on_a_thread(tmp_path):
    make(tmp_path, "x/a")
    driver = driver_on(tmp_path, FaultyFiles(stat=[None, errno.EIO]))
    assert folders(driver) == ["a"]
    assert folders(driver) == ["a"]


def test_what_was_found_in_a_folder_is_not_looked_for_again(driver, files, tmp_path):
    for name in ("a", "b", "c", "d"):
        result_of(driver.put(f"x/{name}/link", b"1"))
    result_of(driver.put("x/bb/other", b"1"))
    held = ["a", "b", "c", "d"]
    assert folders(driver, containing="link") == held
    looks = files.calls["stat"]
    assert folders(driver, containing="link") == held
    # At the folder itself, and at the one that had none.
    assert files.calls["stat"] - looks == 2
    assert folders(driver, containing="link", after="bb", limit=1) == ["c"]
    assert folders(driver, containing="link", after="b") == ["c", "d"]
    result_of(driver.put("x/bb/link", b"1"))
    assert folders(driver, containing="link", limit=3) == ["a", "b", "bb"]
    assert folders(driver, containing="link") == ["a", "b", "bb", "c", "d"]
    assert folders(driver, containing="other") == ["bb"]


def test_what_was_found_is_forgotten_with_the_version_of_the_folder(driver, tmp_path):
    for name in ("a", "b"):
        result_of(driver.put(f"x/{name}/link", b"1"))
    assert folders(driver, containing="link") == ["a", "b"]
    (tmp_path / "x/a/link").unlink()
    result_of(driver.put("x/c/link", b"1"))
    os.utime(tmp_path / "x")
    assert folders(driver, containing="link") == ["b", "c"]


def test_of_few_paths_it_is_kept_where_they_were_found(driver, files, tmp_path):
    for inside in ("one", "two", "three"):
        result_of(driver.put(f"x/a/{inside}", b"1"))
        assert folders(driver, containing=inside) == ["a"]
    looks = files.calls["stat"]
    assert folders(driver, containing="three") == folders(driver, containing="two") == ["a"]
    assert files.calls["stat"] - looks == 2
    assert folders(driver, containing="one") == ["a"]
    assert files.calls["stat"] - looks == 4


def test_what_a_symbolic_link_leads_to_is_looked_at_each_time(driver, tmp_path):
    result_of(driver.put("y/link", b"1"))
    make(tmp_path, "x")
    (tmp_path / "x/a").symlink_to(tmp_path / "y")
    assert folders(driver, containing="link") == ["a"]
    (tmp_path / "y/link").unlink()
    assert folders(driver, containing="link") == []
