"""The deletion of leftovers: old hidden files and folders of the driver, and nothing else."""

from __future__ import annotations

import os

import pytest

from tests.storage.filesystem.kit import make_driver, result_of
from twisted_registry.storage.filesystem import listing
from twisted_registry.storage.filesystem.oscalls import OSCalls
from twisted_registry.storage.filesystem.tree import is_temporary_name, temporary_name

#: Seconds since the epoch, long after and long before any test.
LATER, EARLIER = 2**33, 10**9


@pytest.fixture
def folder(tmp_path, driver):
    result_of(driver.put("a/b/kept", b"1"))
    return tmp_path / "a" / "b"


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_old_leftovers_are_deleted_and_counted(tmp_path, driver, folder):
    for where in (tmp_path, folder):
        (where / temporary_name()).write_bytes(b"half")
        doomed = where / temporary_name()
        (doomed / "below").mkdir(parents=True)
        (doomed / "below" / "file").write_bytes(b"")
    before = everything(tmp_path)
    assert result_of(driver.remove_leftovers(LATER, dry_run=True)) == 4
    assert everything(tmp_path) == before
    assert result_of(driver.remove_leftovers(LATER)) == 4
    assert everything(tmp_path) == ["a", "a/b", "a/b/kept"]
    assert result_of(driver.remove_leftovers(LATER)) == 0


def test_leftovers_that_changed_later_stay(tmp_path, driver, folder):
    (folder / temporary_name()).write_bytes(b"being written")
    (folder / temporary_name()).mkdir()
    # An old modification time that was copied does not make the file old.
    copied = folder / temporary_name()
    copied.write_bytes(b"")
    os.utime(copied, (0, 0))
    before = everything(tmp_path)
    assert result_of(driver.remove_leftovers(EARLIER)) == 0
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    [".snapshot", ".nfs0001", ".0123456789abcde.tmp", ".0123456789ABCDEF.tmp", "x.tmp", ".tmp"],
)
def test_hidden_files_of_other_programs_stay(driver, folder, name):
    (folder / name).write_bytes(b"")
    assert result_of(driver.remove_leftovers(LATER)) == 0
    assert (folder / name).exists()


def test_hidden_folders_of_other_programs_are_not_searched(driver, folder):
    (folder / ".snapshot").mkdir()
    other = folder / ".snapshot" / temporary_name()
    other.write_bytes(b"")
    assert result_of(driver.remove_leftovers(LATER)) == 0
    assert other.exists()


def test_links_are_followed_but_cycles_are_not(tmp_path, driver, folder):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / temporary_name()).write_bytes(b"")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "circle").symlink_to(tmp_path)
    (folder / "dangling").symlink_to(tmp_path / "none")
    assert result_of(driver.remove_leftovers(LATER)) == 1
    assert list(elsewhere.iterdir()) == []


def test_a_hidden_link_is_deleted_and_not_its_target(tmp_path, driver, folder):
    (folder / temporary_name()).symlink_to(tmp_path / "a")
    assert result_of(driver.remove_leftovers(LATER)) == 1
    assert (folder / "kept").exists()


def test_a_large_tree_is_searched_in_several_calls(tmp_path, driver, monkeypatch):
    monkeypatch.setattr(listing, "_FOLDERS_PER_CALL", 3)
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / temporary_name()).write_bytes(b"")
    scan = listing.LeftoverScan(driver.tree, LATER)
    turns = 1
    while scan.scan_some():
        turns += 1
    assert (turns, scan.found) == (4, 10)
    result_of(driver.put("a/b", b""))
    assert result_of(driver.remove_leftovers(LATER)) == 0


class Vanishing(OSCalls):
    """Deletes each file just before it is used."""

    def unlink(self, path):
        super().unlink(path)
        super().unlink(path)

    def scandir(self, path):
        if path.endswith("gone"):
            os.rmdir(path)  # noqa: PTH106 - the layer mirrors os
        return super().scandir(path)


def test_files_deleted_by_others_meanwhile_are_no_error(tmp_path):
    (tmp_path / temporary_name()).write_bytes(b"")
    (tmp_path / "gone").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / temporary_name()).write_bytes(b"")
    assert result_of(make_driver(tmp_path, Vanishing()).remove_leftovers(LATER)) == 0
    assert everything(tmp_path) == ["there"]


def test_a_missing_root_has_no_leftovers(tmp_path):
    assert result_of(make_driver(tmp_path / "none").remove_leftovers(LATER)) == 0


def test_temporary_names_are_recognized():
    assert is_temporary_name(temporary_name())
    assert not is_temporary_name(f"{temporary_name()}x")
