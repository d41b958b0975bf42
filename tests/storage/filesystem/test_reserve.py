"""The reserve of a disk: who may use it, how it is made again, and writes that need no space."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from attrs import define, field

from tests.storage.filesystem.counting_oscalls import FULL, FaultyFiles
from tests.storage.filesystem.kit import descriptors, failure_of, make_driver, paths, result_of
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.fallbacks import with_reserve
from twisted_registry.storage.filesystem.oscalls import OSCalls
from twisted_registry.storage.filesystem.reserve import RESERVE_FOLDER
from twisted_registry.storage.interfaces import IReserve, StorageError
from twisted_registry.storage.memory import MemoryDriver

MIB = 1024 * 1024


@define(eq=False)
class SmallDisk(OSCalls):
    """A disk with a budget of inodes, of which the test says how many are free.

    :ivar free: how many files and folders can be made; the files of the reserve count.
    :ivar blocks: size of the disk in blocks of 4 KiB.
    :ivar inodes: size of the disk in inodes; 0 if the file system has no limit.
    """

    free: int = 10_000
    blocks: int = 1_000_000
    inodes: int = 0
    allocations: list[int] = field(factory=list)

    def open(self, path, flags, mode=0o666):
        if flags & os.O_CREAT:
            self._take(path)
        return super().open(path, flags, mode)

    def mkdir(self, path, mode=0o777):
        self._take(path)
        super().mkdir(path, mode)

    def link(self, source, destination):
        self._take(destination)
        super().link(source, destination)

    def unlink(self, path):
        super().unlink(path)
        self.free += 1

    def allocate(self, fd, size):
        self.allocations.append(size)
        super().allocate(fd, size)

    def statvfs(self, path):
        found = super().statvfs(path)
        parts = list(found)
        parts[1:3] = 4096, self.blocks
        parts[5] = self.inodes
        return os.statvfs_result(parts)

    def _take(self, path):
        if Path(path).exists() or not Path(path).parent.exists():
            return
        if self.free <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free -= 1


@pytest.fixture
def disk():
    return SmallDisk()


@pytest.fixture
def driver(tmp_path, disk):
    return make_driver(tmp_path, disk, reserve_bytes=16 * MIB)


@pytest.fixture
def pieces(tmp_path):
    """The sizes of the files of the reserve."""
    return lambda: [path.stat().st_size for path in (tmp_path / RESERVE_FOLDER).glob("*")]


def test_a_reserve_has_the_configured_size(driver, pieces):
    assert pieces() == []
    assert result_of(driver.refill()) is True
    assert sum(pieces()) == 16 * MIB
    assert len(pieces()) == 128


def test_a_reserve_has_blocks_of_its_own(driver, tmp_path):
    result_of(driver.refill())
    used = [path.stat().st_blocks * 512 for path in (tmp_path / RESERVE_FOLDER).iterdir()]
    assert sum(used) >= 16 * MIB


@pytest.mark.parametrize(
    "refusal", [OSError(errno.EOPNOTSUPP, "no"), OSError(errno.EINVAL, "no"), AttributeError("no")]
)
def test_a_reserve_is_written_where_nothing_can_be_allocated(driver, disk, tmp_path, refusal):
    def refuse(fd, size):
        raise refusal

    disk.allocate = refuse
    assert result_of(driver.refill()) is True
    contents = {path.read_bytes() for path in (tmp_path / RESERVE_FOLDER).iterdir()}
    # All different, so that a file system cannot store them as one, or as none.
    assert (len(contents), {len(content) for content in contents}) == (128, {128 * 1024})


def test_a_reserve_is_written_where_allocating_takes_no_blocks(driver, disk, tmp_path):
    # As on a file system that stores zeros as nothing.
    disk.allocate = os.ftruncate
    assert result_of(driver.refill()) is True
    used = [path.stat().st_blocks * 512 for path in (tmp_path / RESERVE_FOLDER).iterdir()]
    assert sum(used) >= 16 * MIB


def test_a_reserve_takes_at_most_a_fiftieth_of_a_small_disk(driver, disk, pieces):
    disk.blocks, disk.inodes = 16_384, 1000
    assert result_of(driver.refill()) is True
    assert sum(pieces()) <= 16_384 * 4096 / 50
    assert sum(pieces()) > 16_384 * 4096 / 60
    assert len(pieces()) == 20


def test_no_reserve_is_made_without_a_size_or_for_a_command(tmp_path, disk, driver):
    assert result_of(make_driver(tmp_path, disk).refill()) is True
    assert result_of(driver.refill(create=False)) is True
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_gets_as_much_of_a_reserve_as_there_is_space(driver, disk, pieces, tmp_path):
    disk.free = 12
    assert result_of(driver.refill()) is False
    # Two of them are the folders.
    assert len(pieces()) == 10
    disk.free = 1000
    assert result_of(driver.refill(create=False)) is True
    assert len(pieces()) == 128
    assert descriptors(tmp_path) == 0


def test_a_piece_without_blocks_is_not_counted(driver, disk, pieces):
    def allocate(fd, size):
        raise OSError(errno.ENOSPC, "full")

    disk.allocate = allocate
    assert result_of(driver.refill()) is False
    assert pieces() == []


def test_another_error_is_reported(driver, disk):
    def mkdir(path, mode):
        raise OSError(errno.EACCES, "no")

    disk.mkdir = mkdir
    error = failure_of(driver.refill(), StorageError).value
    assert not error.full


CHANGES = {
    "put": lambda driver: driver.put("new/folder/file", b"content"),
    "create": lambda driver: driver.create("new/folder/file", b"content"),
    "copy": lambda driver: driver.copy("old/file", "new/folder/file"),
    "move": lambda driver: driver.move("old/file", "new/folder/file"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_only_privileged_changes_use_the_reserve(driver, disk, pieces, change):
    result_of(driver.put("old/file", b"content"))
    result_of(driver.refill())
    disk.free = 0
    assert failure_of(change(driver), StorageError).value.full
    assert len(pieces()) == 128
    result_of(change(with_reserve(driver)))
    assert result_of(driver.get("new/folder/file", 7)) == b"content"
    assert 120 < len(pieces()) < 128


def test_a_used_up_reserve_is_an_error_of_a_full_disk(driver, disk, pieces):
    result_of(driver.refill())
    disk.free = -1000
    assert failure_of(with_reserve(driver).put("file", b""), StorageError).value.full
    assert pieces() == []
    assert paths(driver.walk("")) == []


def test_any_other_error_leaves_the_reserve(tmp_path):
    driver = make_driver(tmp_path, FaultyFiles(pwrite=[errno.EIO]), reserve_bytes=MIB)
    result_of(driver.refill())
    failure_of(with_reserve(driver).put("file", b"content"), StorageError)
    assert len(list((tmp_path / RESERVE_FOLDER).iterdir())) == 128


def test_a_delete_uses_the_reserve_when_its_rename_finds_no_space(tmp_path):
    result_of(make_driver(tmp_path).put("folder/file", b""))
    driver = make_driver(tmp_path, FaultyFiles(rename=[FULL]), reserve_bytes=MIB)
    result_of(driver.refill())
    result_of(driver.delete("folder"))
    assert paths(driver.walk("")) == []
    assert len(list((tmp_path / RESERVE_FOLDER).iterdir())) == 127


def test_locks_can_be_taken_without_an_inode(driver, disk):
    result_of(driver.refill())
    disk.free = 0
    release = result_of(driver.lock("name"))
    release()


@pytest.mark.parametrize("durable", [True, False])
def test_a_put_of_the_same_content_needs_no_space(tmp_path, disk, driver, durable):
    result_of(driver.put("file", b"same"))
    os.utime(tmp_path / "file", (1, 1))
    disk.free = 0
    result_of(driver.put("file", b"same", durable=durable))
    assert result_of(driver.stat("file")).modified_s > 1_000_000
    assert failure_of(driver.put("file", b"else"), StorageError).value.full
    assert failure_of(driver.put("file", b"samesame"), StorageError).value.full
    assert result_of(driver.get("file", 4)) == b"same"
    assert descriptors(tmp_path) == 0


def test_a_put_of_the_same_content_leaves_the_reserve(driver, disk, pieces):
    result_of(driver.put("file", b"same"))
    result_of(driver.refill())
    disk.free = 0
    result_of(with_reserve(driver).put("file", b"same"))
    assert len(pieces()) == 128


def test_a_copy_on_a_disk_without_blocks_is_a_link_with_a_new_time(tmp_path):
    result_of(make_driver(tmp_path).put("trash/old", b"content"))
    os.utime(tmp_path / "trash/old", (1, 1))
    files = FaultyFiles(copy_range=[FULL])
    driver = make_driver(tmp_path, files)
    result_of(driver.copy("trash/old", "folder/blob"))
    assert (tmp_path / "trash/old").samefile(tmp_path / "folder/blob")
    assert result_of(driver.stat("folder/blob")).modified_s > 1_000_000
    result_of(driver.delete("trash/old"))
    assert result_of(driver.get("folder/blob", 7)) == b"content"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["blob"]


def test_a_full_disk_closes_files_that_may_be_deleted(tmp_path, disk, driver):
    driver.reactor.advance(1_000_000_000)
    result_of(driver.put("file", b"content"))
    os.utime(tmp_path / "file", (1, 1))
    for _ in range(2):
        result_of(driver.open("file")).close()
    assert descriptors(tmp_path) == 1
    disk.free = 0
    failure_of(driver.put("other", b""), StorageError)
    assert descriptors(tmp_path) == 0


def test_the_reserve_is_reached_behind_checks(driver, disk, pieces):
    checked = CheckedDriver(driver, driver.reactor)
    assert result_of(IReserve(checked).refill()) is True
    disk.free = 0
    assert failure_of(checked.put("file", b""), StorageError).value.full
    result_of(with_reserve(checked).put("file", b""))
    assert len(pieces()) < 128


def test_a_store_without_a_reserve_is_used_as_it_is():
    driver = CheckedDriver(MemoryDriver(None), None)
    assert with_reserve(driver) is driver
