"""Checks of a store of files: rights, what the file system can do, and space. They block."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_registry.doctor.files import check_folder, describe_rights, user_name
from twisted_registry.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOUNTS = "/proc/self/mountinfo"
#: Spaces in the names of mount points.
_OCTAL = re.compile(r"\\([0-7]{3})")
#: Entries of the store whose rights are looked at.
_MAX_ENTRIES = 2000
_PERCENT_WARNING = 5
_PERCENT_PROBLEM = 1
_CONTENT = b"written and deleted by twisted-registry doctor\n"
#: Types of file systems of other machines. Their locks, and what is durable, differ.
_NETWORK_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs"})
_ADVICE_BY_TYPE = {
    "tmpfs": ("is in memory, and lost with the next boot", "use a directory on a disk"),
    "ramfs": ("is in memory, and lost with the next boot", "use a directory on a disk"),
    "overlay": ("is in the layer of a container, and lost with it", "mount a volume"),
}


def check_store(key: str, root: str, *, is_written: bool = True) -> list[Finding]:
    """Check that the registry can use its root directory.

    What is written for this is deleted again.

    :param root: an absolute path.
    :param is_written: whether the registry stores anything.
    """
    found = check_folder(key, root, is_written=is_written)
    if found or not Path(root).exists():
        return found
    found = [*_check_devices(key, root), *_check_owners(key, root, is_written=is_written)]
    return [*found, *(_try_files(key, root) if is_written else [])]


def check_file_system(key: str, root: str, mounts: str = MOUNTS) -> list[Finding]:
    """Warn of file systems that are not for a store.

    :param mounts: a file such as ``/proc/self/mountinfo``, see proc_pid_mountinfo(5).
    """
    kind = file_system_type(root, mounts)
    evidence = f"file system {kind} in {mounts}"
    if kind in _NETWORK_TYPES or kind.startswith("fuse."):
        problem = f"{root} is not on a disk of this machine"
        advice = "use a local disk, or storage.s3: locks and fsync of network file systems differ"
    elif kind in _ADVICE_BY_TYPE:
        what, advice = _ADVICE_BY_TYPE[kind]
        problem = f"{root} {what}"
    else:
        return []
    return [Finding(key, problem, evidence, advice, is_warning=True)]


def file_system_type(path: str, mounts: str = MOUNTS) -> str:
    """Return the type of the file system that has a path; empty if it is not known."""
    resolved = Path(path).resolve()
    found, length = "", -1
    try:
        lines = Path(mounts).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), left.split()[4])
        # Of several mounts on one point the last one is visible.
        if resolved.is_relative_to(point) and len(point) >= length:
            found, length = right.split()[0], len(point)
    return found


def check_space(
    key: str, root: str, refuse: float = 0.0, statvfs: Callable[[str], Any] = os.statvfs
) -> list[Finding]:
    """Check the free blocks and inodes of the file system of a store.

    :param refuse: the part from which the registry refuses pushes; 0 for none.
    :param statvfs: :func:`os.statvfs`.
    """
    # Path.exists() raises errors, such as those of folders that may not be entered.
    above = (Path(root), *Path(root).parents)
    folder = next((each for each in above if os.path.exists(each)), Path("/"))  # noqa: PTH110
    status = statvfs(str(folder))
    found = []
    for what, free, total in (
        ("space", status.f_bavail, status.f_blocks),
        ("inodes", status.f_favail, status.f_files),
    ):
        if not total:  # a file system that makes inodes as they are needed
            continue
        percent = 100 * free / total
        evidence = f"statvfs of {folder}: {percent:.1f}% free"
        advice = "free some: twisted-registry garbage-collect -m, and trash empty"
        if percent < _PERCENT_PROBLEM or (refuse and 100 - percent >= 100 * refuse):
            problem = f"{root} has no {what} left: pushes are refused"
            found.append(Finding(key, problem, evidence, advice))
        elif percent < _PERCENT_WARNING:
            problem = f"{root} has little {what} left"
            found.append(Finding(key, problem, evidence, advice, is_warning=True))
    return found


def _check_devices(key: str, root: str) -> Iterator[Finding]:
    """Find folders on another file system, into which files cannot be renamed."""
    device = Path(root).stat().st_dev
    tree = "docker/registry/v2"
    for name in (tree, f"{tree}/blobs", f"{tree}/repositories", "twisted-registry"):
        folder = Path(root, name)
        if folder.exists() and folder.stat().st_dev != device:
            yield Finding(
                key,
                f"{folder} is on another file system than {root}, so that files cannot be renamed",
                "st_dev of stat",
                f"mount one file system at {root}",
            )


def _check_owners(key: str, root: str, *, is_written: bool) -> Iterator[Finding]:
    """Find the first entry of the store that this user may not use, as after a change of users."""
    for path in islice(_entries(root), _MAX_ENTRIES):
        is_folder = path.is_dir()
        needed = os.R_OK | (os.X_OK if is_folder else 0)
        needed |= os.W_OK if is_folder and is_written else 0
        if not os.access(path, needed):
            yield Finding(
                key,
                f"{user_name()} may not {'use' if is_folder else 'read'} {path}, and perhaps more",
                describe_rights(path),
                f"chown -R {user_name()}: {root}",
            )
            return


def _entries(root: str) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files))


def _try_files(key: str, root: str) -> list[Finding]:
    """Write, lock, rename, read and delete a file, as pushes do."""
    step, probe = "mkdir", ""
    try:
        probe = tempfile.mkdtemp(prefix=".doctor-", dir=root)
        first, second = Path(probe, "first"), Path(probe, "second")
        with first.open("xb") as file:
            step = "write"
            file.write(_CONTENT)
            file.flush()
            step = "fsync"
            os.fsync(file.fileno())
            step = "flock"
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        step = "rename"
        first.rename(second)
        step = "fsync of a directory"
        descriptor = os.open(probe, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        step = "read"
        if second.read_bytes() != _CONTENT:
            return [
                Finding(
                    key, f"{root} returns other bytes than were written", step, "check the disk"
                )
            ]
        step = "unlink"
        second.unlink()
    except OSError as error:
        problem = f"files in {root} cannot be stored"
        advice = "check the disk, its mount options, and the restrictions of the service"
        return [Finding(key, problem, f"{step}: {error.strerror}", advice)]
    finally:
        if probe:
            shutil.rmtree(probe, ignore_errors=True)
    return []
