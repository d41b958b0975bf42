"""What a store of files needs of its file system."""

from __future__ import annotations

import errno
import fcntl
import os
from types import SimpleNamespace

import pytest

from tests.doctor.conftest import as_nobody
from twisted_registry.doctor.store import (
    check_file_system,
    check_space,
    check_store,
    file_system_type,
)

KEY = "storage.filesystem.rootdirectory"


def test_a_store_that_works_is_fine_and_left_as_it_was(tmp_path):
    (tmp_path / "docker/registry/v2/blobs").mkdir(parents=True)
    assert check_store(KEY, str(tmp_path)) == []
    assert [each.name for each in tmp_path.iterdir()] == ["docker"]
    assert check_store(KEY, f"{tmp_path}/new") == []


@pytest.mark.parametrize(
    ("module", "name", "step"),
    [
        (os, "fsync", "fsync"),
        (fcntl, "flock", "flock"),
        (os, "rename", "rename"),
    ],
)
def test_the_step_that_fails_is_named(tmp_path, monkeypatch, module, name, step):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, name, fail)
    (found,) = check_store(KEY, str(tmp_path))
    assert found.evidence == f"{step}: Input/output error"
    assert f"files in {tmp_path} cannot be stored" in found.problem


def test_entries_of_another_user_are_found(shared):
    folder = shared / "docker/registry"
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    shared.chmod(0o777)
    (shared / "docker").chmod(0o777)
    (found,) = as_nobody(lambda: check_store(KEY, str(shared)))
    assert f"may not use {folder}, and perhaps more" in found.problem
    assert found.advice.startswith("chown -R ")
    assert as_nobody(lambda: check_store(KEY, str(shared), is_written=False)) == []


def test_a_folder_on_another_file_system_is_found(tmp_path):
    (tmp_path / "docker/registry").mkdir(parents=True)
    (tmp_path / "docker/registry/v2").symlink_to("/proc/self/fdinfo")
    found = check_store(KEY, str(tmp_path), is_written=False)
    assert [each.evidence for each in found] == ["st_dev of stat"]
    assert "docker/registry/v2 is on another file system" in found[0].problem


MOUNTS = """\
20 1 0:1 / / rw - ext4 /dev/sda rw
21 20 0:2 / {0}/nfs rw,relatime shared:1 - nfs4 server:/x rw
22 20 0:3 / {0}/with\\040space rw - tmpfs none rw
23 20 0:4 / {0}/fuse rw - fuse.sshfs a: rw
24 20 0:5 / {0}/layer rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("nfs/deep", "nfs4", "not on a disk of this machine"),
        ("with space", "tmpfs", "lost with the next boot"),
        ("fuse", "fuse.sshfs", "not on a disk of this machine"),
        ("layer", "overlay", "in the layer of a container"),
    ],
)
def test_file_systems_that_are_not_for_a_store_are_warnings(tmp_path, name, kind, problem):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path))
    assert file_system_type(str(tmp_path / name), str(mounts)) == kind
    (found,) = check_file_system(KEY, str(tmp_path / name), str(mounts))
    assert found.is_warning
    assert problem in found.problem
    assert check_file_system(KEY, str(tmp_path / "disk"), str(mounts)) == []
    assert check_file_system(KEY, str(tmp_path / name), f"{tmp_path}/none") == []


def disk(free=50, inodes=50):
    status = SimpleNamespace(f_bavail=free, f_blocks=100, f_favail=inodes, f_files=100)
    return lambda _: status


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (disk(), []),
        (disk(free=4), [("little space", True)]),
        (disk(free=0), [("no space", False)]),
        (disk(inodes=3), [("little inodes", True)]),
        (disk(inodes=0), [("no inodes", False)]),
    ],
)
def test_space_and_inodes(tmp_path, status, expected):
    found = check_space(KEY, f"{tmp_path}/new", statvfs=status)
    assert len(found) == len(expected)
    for each, (problem, is_warning) in zip(found, expected, strict=True):
        assert problem in each.problem
        assert each.is_warning is is_warning
        assert f"statvfs of {tmp_path}: " in each.evidence


def test_the_space_of_a_path_that_cannot_be_looked_at_is_that_of_a_folder_above(tmp_path):
    too_long = tmp_path / ("x" * 300) / "store"
    assert check_space(KEY, str(too_long), statvfs=disk(free=50)) == []


def test_the_watermark_counts(tmp_path):
    assert check_space(KEY, str(tmp_path), 0.6, disk(free=50)) == []
    (found,) = check_space(KEY, str(tmp_path), 0.4, disk(free=50, inodes=90))
    assert "pushes are refused" in found.problem
