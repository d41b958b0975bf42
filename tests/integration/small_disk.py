"""A filesystem of a few MiB, or of a few thousand inodes, that a test can fill.

It is a tmpfs in a separate mount namespace, which a process keeps open. The test and the registry
reach it through ``/proc``, so the test does not need root.
"""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from attrs import define

from tests.integration.servers import program

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024


@define(eq=False)
class Disk:
    """A small filesystem.

    :ivar root: its path for every process.
    :ivar enter: the beginning of a command that runs where it is mounted. There its path is that
        of the test's folder; :attr:`root` is a symbolic link of the kernel that no program can
        resolve.
    """

    root: Path
    enter: tuple[str, ...]

    def fill(self, leave: int = 0) -> None:
        """Use the free space, except for ``leave`` bytes."""
        with (self.root / "filler").open("ab", buffering=0) as filler, suppress_full():
            while (left := self.free_bytes - leave) > 0:
                filler.write(bytes(min(MIB, left)))

    def fill_inodes(self) -> None:
        """Use all inodes."""
        folder = self.root / "inodes"
        with suppress_full():
            folder.mkdir(exist_ok=True)
            while True:
                (folder / uuid4().hex).touch()

    def free(self) -> None:
        """Release what was used."""
        (self.root / "filler").unlink(missing_ok=True)
        for path in (self.root / "inodes").glob("*"):
            path.unlink()

    @property
    def free_bytes(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    @property
    def free_inodes(self) -> int:
        """Inodes that are free."""
        return os.statvfs(self.root).f_favail


@contextmanager
def suppress_full() -> Iterator[None]:
    """Suppress the error of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def mounted_disk(folder: Path, options: str) -> Iterator[Disk]:
    """Mount a filesystem for the block. Without the right to do that, the test is skipped.

    In CI it fails instead.

    :param options: of the mount, such as ``size=64m``.
    """
    place = folder / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o {options},mode=777 tmpfs {place} && echo mounted && exec cat"
    holder = subprocess.Popen(
        [program("unshare"), "-rm", "sh", "-c", mount],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = holder.stdout.readline()
        if "mounted" not in output:
            if os.environ.get("CI") == "true":
                pytest.fail(f"cannot create a mount namespace: {output}")
            pytest.skip(f"cannot create a mount namespace: {output}")
        enter = (program("nsenter"), "--preserve-credentials", "-U", "-m", "-t", str(holder.pid))
        yield Disk(Path(f"/proc/{holder.pid}/root{place}"), enter)
    finally:
        with suppress(BrokenPipeError):
            holder.stdin.close()
        holder.wait()
        holder.stdout.close()
