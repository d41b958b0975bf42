"""Durability: what exists after a power cut at any moment."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.storage.filesystem.power_loss import (
    PowerCut,
    PowerLossFiles,
    Survival,
    at_every_cut,
    driver_on,
)
from twisted_registry.storage.interfaces import PathExists, PathNotFound, StorageError

BIG = b"0123456789abcdef" * 200_000


async def content(driver, path):
    try:
        return await driver.get(path, 10**8)
    except PathNotFound:
        return None


def test_put_is_durable_and_atomic():
    async def scenario(driver, answered):
        for number, path in enumerate(("a/b/c/one", "a/b/c/two", "a/b/other", "top")):
            await driver.put(path, b"content %d" % number * 100)
            answered.append((path, b"content %d" % number * 100))

    async def check(driver, answered):
        for path, stored in answered:
            assert await content(driver, path) == stored
        for entry in await driver.walk(""):
            assert entry.size == 900

    assert at_every_cut(scenario, check) > 20


def test_put_replaces_atomically():
    async def prepare(driver):
        await driver.put("folder/link", b"old")

    async def scenario(driver, answered):
        await driver.put("folder/link", b"brand new")
        answered.append("put")

    async def check(driver, answered):
        found = await content(driver, "folder/link")
        assert found == b"brand new" if answered else found in {b"old", b"brand new"}

    at_every_cut(scenario, check, prepare)


def test_a_folder_made_by_another_process_is_synced():
    async def scenario(driver, answered):
        await driver.put("new/folder/unimportant", b"1", durable=False)
        await driver.put("new/folder/important", b"2")
        answered.append("put")

    async def check(driver, answered):
        if answered:
            assert await content(driver, "new/folder/important") == b"2"

    at_every_cut(scenario, check)


def test_a_folder_made_again_is_synced_again():
    async def prepare(driver):
        await driver.put("tags/latest/link", b"old")

    async def scenario(driver, answered):
        await driver.put("tags/latest/link", b"older")
        await driver.delete("tags/latest")
        answered.append("deleted")
        await driver.put("tags/latest/link", b"new")
        answered.append("put")

    async def check(driver, answered):
        found = await content(driver, "tags/latest/link")
        if answered == ["deleted"]:
            assert found in {None, b"new"}
        elif answered:
            assert found == b"new"

    at_every_cut(scenario, check, prepare)


def test_create_is_durable_and_atomic():
    async def scenario(driver, answered):
        await driver.create("a/b/lease", b"mine")
        answered.append("created")
        with pytest.raises(PathExists):
            await driver.create("a/b/lease", b"other")

    async def check(driver, answered):
        found = await content(driver, "a/b/lease")
        assert found == b"mine" if answered else found in {None, b"mine"}

    at_every_cut(scenario, check)


def test_copy_and_move_are_durable_and_atomic():
    async def prepare(driver):
        await driver.put("a/source", b"whole" * 1000)

    async def scenario(driver, answered):
        await driver.copy("a/source", "b/c/copy")
        answered.append("b/c/copy")
        await driver.move("a/source", "d/e/moved")
        answered.append("d/e/moved")

    async def check(driver, answered):
        for path in answered:
            assert await content(driver, path) == b"whole" * 1000
        for entry in await driver.walk(""):
            assert entry.size == 5000
        # At any time in one place, never in both.
        assert (await content(driver, "a/source") is None) != (
            await content(driver, "d/e/moved") is None
        )

    at_every_cut(scenario, check, prepare)


def test_deletions_are_durable():
    async def prepare(driver):
        for path in ("a/file", "a/folder/one", "a/folder/two", "a/many/1", "b/many/2"):
            await driver.put(path, b"content")

    async def scenario(driver, answered):
        await driver.delete("a/file")
        answered.append("a/file")
        await driver.delete("a/folder")
        answered.extend(("a/folder/one", "a/folder/two"))
        await driver.delete_many(["a/many/1", "b/many/2"])
        answered.extend(("a/many/1", "b/many/2"))

    async def check(driver, answered):
        left = [entry.path for entry in await driver.walk("")]
        assert not set(left) & set(answered)
        # A folder disappears atomically.
        assert ("a/folder/one" in left) == ("a/folder/two" in left)

    at_every_cut(scenario, check, prepare)


def test_a_committed_blob_is_durable_once_it_is_moved():
    async def scenario(driver, answered):
        await driver.put("uploads/1/startedat", b"now", durable=False)
        writer = await driver.writer("uploads/1/data", 0)
        writer.write(BIG)
        await writer.commit()
        await driver.move("uploads/1/data", "blobs/ab/abcd/data")
        await writer.close()
        answered.append("pushed")
        await driver.delete("uploads/1")

    async def check(driver, answered):
        found = await content(driver, "blobs/ab/abcd/data")
        assert found == BIG if answered else found in {None, BIG}

    assert at_every_cut(scenario, check) > 15


def test_flushed_bytes_are_durable_and_the_upload_continues():
    async def scenario(driver, answered):
        writer = await driver.writer("uploads/1/data", 0)
        writer.write(BIG)
        answered.append(await writer.flush())
        writer.write(b"more")
        answered.append(await writer.flush())
        writer.write(b"never flushed")
        await writer.close()

    async def check(driver, answered):
        if not answered:
            return
        found = await content(driver, "uploads/1/data")
        expected = BIG + b"more"
        assert found[: answered[-1]] == expected[: answered[-1]]
        writer = await driver.writer("uploads/1/data", len(found))
        writer.write(b"!")
        assert await writer.close() == len(found) + 1

    at_every_cut(scenario, check)


def test_the_model_loses_what_is_not_synced(monkeypatch):
    """Check the tests above: they fail if an fsync is left out."""

    async def scenario(driver, answered):
        await driver.put("a/file", b"content")
        answered.append("put")

    async def check(driver, answered):
        if answered:
            assert await content(driver, "a/file") == b"content"

    at_every_cut(scenario, check)
    fsync = PowerLossFiles.fsync
    total = 4
    for left_out in range(total):
        seen = []

        def forgetful(files, fd, seen=seen, left_out=left_out):
            seen.append(fd)
            if len(seen) % total != left_out:
                fsync(files, fd)

        monkeypatch.setattr(PowerLossFiles, "fsync", forgetful)
        with pytest.raises(AssertionError) as caught:
            at_every_cut(scenario, check)
        assert "survived" in caught.value.__notes__[0]


def test_every_call_after_the_power_cut_fails():
    files = PowerLossFiles(cut_after=0)
    driver = driver_on(files, Clock())
    for answer in (driver.put("a", b""), driver.stat("a"), driver.list(""), driver.open("a")):
        assert answer.addErrback(lambda failure: failure.check(PowerCut, StorageError)).result
    assert files.remount(Survival.ALL).descriptors == 0
