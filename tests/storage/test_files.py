"""Atomic replacement, locks and versions of local files."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from twisted_registry.storage.files import (
    exclusive_lock,
    file_version,
    replace_file,
    temporary_file,
)


def test_replaced_file_has_content_and_mode_and_leaves_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    replace_file(str(path), b"new", 0o640)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [*tmp_path.iterdir()] == [path]


def test_failed_replacement_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_temporary_file_is_deleted_unless_renamed(tmp_path):
    with temporary_file(str(tmp_path / "file"), b"content") as hidden:
        assert [str(path) for path in tmp_path.iterdir()] == [hidden]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["lock", "."])
def test_lock_of_a_file_or_directory_excludes_others(tmp_path, name):
    path = str(tmp_path / name)
    with exclusive_lock(path) as first:
        assert first
        with exclusive_lock(path, wait=False) as second:
            assert not second
    with exclusive_lock(path, wait=False) as third:
        assert third


def test_version_changes_with_the_file(tmp_path):
    path = tmp_path / "file"
    assert file_version(str(path)) == errno.ENOENT
    replace_file(str(path), b"one")
    before = file_version(str(path))
    assert file_version(str(path)) == before
    replace_file(str(path), b"two")
    assert file_version(str(path)) != before
