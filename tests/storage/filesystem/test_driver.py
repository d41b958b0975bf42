from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from threading import Thread

import pytest
from twisted.logger import globalLogPublisher

from tests.storage.filesystem.counting_oscalls import BROKEN, FaultyFiles
from tests.storage.filesystem.kit import failure_of, make_driver, paths, result_of
from twisted_registry.storage.filesystem.oscalls import OSCalls
from twisted_registry.storage.interfaces import PathExists, PathInvalid, PathNotFound, StorageError


def hidden(root):
    return [path for path in root.rglob("*") if path.name.startswith(".")]


class Meddling(OSCalls):
    """Calls a function just before the first call of one kind."""

    def __init__(self, name, meddle):
        def first(*arguments):
            delattr(self, name)
            meddle()
            return getattr(self, name)(*arguments)

        setattr(self, name, first)


def test_the_root_is_made_when_it_is_written_to(tmp_path):
    driver = make_driver(tmp_path / "not" / "there" / "")
    failure_of(driver.get("file", 10), PathNotFound)
    assert paths(driver.walk("")) == []
    assert not (tmp_path / "not").exists()
    result_of(driver.put("file", b"content"))
    assert (tmp_path / "not" / "there" / "file").read_bytes() == b"content"


def test_files_have_the_permissions_of_the_umask(driver, tmp_path):
    before = os.umask(0o027)
    try:
        result_of(driver.put("folder/file", b""))
        writer = result_of(driver.writer("folder/data"))
        result_of(writer.close())
    finally:
        os.umask(before)
    assert (tmp_path / "folder/file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder/data").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("path", ["file/below", "file/far/below"])
def test_nothing_can_be_stored_below_a_file(driver, tmp_path, path):
    result_of(driver.put("file", b""))
    failure_of(driver.put(path, b""), PathInvalid)
    failure_of(driver.create(path, b""), PathInvalid)
    failure_of(driver.writer(path), PathInvalid)
    failure_of(driver.copy("file", path), PathInvalid)
    assert hidden(tmp_path) == []


def test_a_folder_cannot_become_a_file(driver, tmp_path):
    result_of(driver.put("folder/file", b""))
    result_of(driver.put("other", b""))
    failure_of(driver.put("folder", b""), PathInvalid)
    failure_of(driver.create("folder", b""), PathExists)
    failure_of(driver.writer("folder"), PathInvalid)
    failure_of(driver.copy("other", "folder"), PathInvalid)
    failure_of(driver.move("other", "folder"), PathInvalid)
    failure_of(driver.move("folder", "elsewhere"), PathInvalid)
    failure_of(driver.delete_many(["folder", "other"]), PathInvalid)
    failure_of(driver.list("folder/file"), PathInvalid)
    assert paths(driver.walk("")) == ["folder/file"]
    assert hidden(tmp_path) == []


def test_a_name_too_long_for_the_file_system_is_invalid(driver):
    failure_of(driver.put("x" * 256, b""), PathInvalid)


@pytest.mark.parametrize("call", ["open", "pwrite", "rename", "link"])
def test_a_folder_deleted_during_a_put_is_made_again(tmp_path, call):
    other = make_driver(tmp_path)
    result_of(other.put("folder/old", b""))

    def meddle():
        result_of(other.delete("folder"))

    driver = make_driver(tmp_path, Meddling(call, meddle))
    store = driver.create if call == "link" else driver.put
    result_of(store("folder/new", b"content"))
    assert paths(driver.walk("")) == ["folder/new"]
    assert hidden(tmp_path) == []


def test_a_destination_folder_deleted_during_a_move_is_made_again(tmp_path):
    other = make_driver(tmp_path)
    result_of(other.put("source", b"content"))
    result_of(other.put("folder/old", b""))
    driver = make_driver(tmp_path, Meddling("rename", lambda: result_of(other.delete("folder"))))
    result_of(driver.move("source", "folder/new"))
    assert paths(driver.walk("")) == ["folder/new"]


def test_a_source_deleted_before_its_move_is_not_found(tmp_path):
    other = make_driver(tmp_path)
    result_of(other.put("source", b"content"))
    driver = make_driver(tmp_path, Meddling("rename", lambda: result_of(other.delete("source"))))
    failure_of(driver.move("source", "folder/new"), PathNotFound)


def test_a_put_succeeds_if_its_folder_is_deleted_right_after(tmp_path):
    other = make_driver(tmp_path)

    class Late(OSCalls):
        def rename(self, source, destination):
            super().rename(source, destination)
            result_of(other.delete("folder"))

    result_of(make_driver(tmp_path, Late()).put("folder/new", b"content"))
    assert paths(other.walk("")) == []


def test_a_put_fails_if_its_folder_is_deleted_repeatedly(tmp_path):
    class Hostile(OSCalls):
        def open(self, path, flags, mode=0o666):
            if flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "gone")
            return super().open(path, flags, mode)

    failure_of(make_driver(tmp_path, Hostile()).put("folder/file", b""), StorageError)


def test_threads_can_put_into_and_delete_the_same_folder(driver, tmp_path):
    tree = driver.tree
    put = partial(tree.put, durable=False)
    errors = []

    def run(work, *arguments):
        try:
            for _ in range(200):
                work(*arguments)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    def delete():
        with suppress(PathNotFound, FileNotFoundError):
            tree.delete("a/b")

    threads = [
        Thread(target=run, args=(put, "a/b/c/d", b"content")),
        Thread(target=run, args=(put, "a/b/e", b"content")),
        Thread(target=run, args=(delete,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert hidden(tmp_path) == []


def test_names_that_are_not_valid_in_paths_are_skipped_and_logged_once(driver, tmp_path):
    for name in (b"\xff\xfe", b"new\nline", b".hidden", b"good", b"caf\xc3\xa9"):
        folder = tmp_path / "folder" / os.fsdecode(name)
        folder.mkdir(parents=True)
        (folder / "file").touch()
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        for _ in range(2):
            assert paths(driver.list("folder")) == ["café", "good"]
            assert paths(driver.walk("")) == ["folder/café/file", "folder/good/file"]
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert len([event for event in events if "skipping" in event["log_format"]]) == 1
    result_of(driver.delete("folder"))
    assert list(tmp_path.iterdir()) == []


def test_incomplete_files_are_not_listed(tmp_path):
    class Looking(OSCalls):
        seen = 0

        def rename(self, source, destination):
            driver = make_driver(tmp_path)
            Looking.seen += 1
            assert paths(driver.list("")) == []
            assert paths(driver.walk("")) == []
            super().rename(source, destination)

    result_of(make_driver(tmp_path, Looking()).put("file", b"content"))
    assert Looking.seen == 1


def test_a_folder_disappears_atomically(tmp_path):
    class Looking(OSCalls):
        def rmdir(self, path):
            assert paths(make_driver(tmp_path).list("")) == ["other"]
            super().rmdir(path)

    driver = make_driver(tmp_path, Looking())
    for path in ("folder/a/b/file", "folder/c", "other"):
        result_of(driver.put(path, b""))
    result_of(driver.delete("folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("fault", [errno.ENOTEMPTY, BROKEN])
def test_a_deleted_folder_is_invisible_even_if_its_removal_fails(tmp_path, fault):
    driver = make_driver(tmp_path, FaultyFiles(rmdir=[fault]))
    result_of(driver.put("folder/file", b""))
    deleting = driver.delete("folder")
    if fault == BROKEN:
        failure_of(deleting, StorageError)
    else:
        result_of(deleting)
        assert hidden(tmp_path) == []
    assert paths(driver.list("")) == []


def test_symbolic_links_are_followed(driver, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    root = tmp_path / "root"
    for folder in (elsewhere / "sub", root):
        folder.mkdir(parents=True)
    (elsewhere / "sub" / "file").write_bytes(b"content")
    (root / "folder").symlink_to(elsewhere)
    (root / "link").symlink_to(elsewhere / "sub" / "file")
    (root / "dangling").symlink_to(tmp_path / "nothing")
    driver = make_driver(root)
    assert paths(driver.list("")) == ["folder", "link"]
    assert paths(driver.walk("")) == ["folder/sub/file", "link"]
    assert result_of(driver.get("link", 7)) == b"content"
    assert result_of(driver.stat("folder")).is_folder
    result_of(driver.put("folder/new", b"new"))
    assert (elsewhere / "new").read_bytes() == b"new"
    result_of(driver.delete("folder"))
    assert (elsewhere / "sub" / "file").exists()
    assert paths(driver.walk("")) == ["link"]


def test_cyclic_links_are_skipped(driver, tmp_path):
    result_of(driver.put("a/b/file", b""))
    (tmp_path / "a/b/up").symlink_to("..")
    (tmp_path / "a/b/top").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "a/twin").symlink_to("b")
    assert paths(driver.walk("")) == ["a/b/file", "a/twin/file"]


def test_special_files_are_not_found(driver, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert paths(driver.list("")) == []
    assert paths(driver.walk("")) == []
    failure_of(driver.stat("pipe"), PathNotFound)
    failure_of(driver.get("pipe", 1), StorageError)


def test_a_page_is_full_although_entries_are_deleted(driver, tmp_path):
    for number in range(10):
        result_of(driver.put(f"file{number}", b"", durable=False))

    def meddle():
        result_of(driver.delete_many(["file0", "file2", "file3"]))

    other = make_driver(tmp_path, Meddling("stat", meddle))
    assert paths(other.list("", limit=4)) == ["file1", "file4", "file5", "file6"]


def test_synced_folders_are_remembered_up_to_a_limit(tmp_path):
    driver = make_driver(tmp_path, max_synced_folders=3)
    for number in range(9):
        result_of(driver.put(f"a/{number}/file", b"content"))
    assert driver.tree.dir_syncer.synced_folders <= 3
    assert len(paths(driver.walk(""))) == 9
