"""Names that outlast a power cut. All of it blocks: call it on a thread.

An entry is power-cut proof once its folder is synced, and so is the entry of that folder in the
one above, and so on up. Whoever finds a folder present can not know whether its maker, another
thread or process, has synced it yet; so each process syncs every folder once itself and
remembers which ones it need not sync again.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_registry.storage.fileops import OSCalls

#: How many folders are remembered as synced: about 200 bytes each.
_MAX_SYNCED_FOLDERS = 10_000


class DirSyncer:
    """Syncs folders below a root, and none of their entries twice.

    :ivar root: the folder, absolute.
    :ivar files: the operating system.
    """

    def __init__(self, root: str, files: OSCalls) -> None:
        self.root = root
        self.files = files
        self._synced: dict[str, tuple[int, int]] = {}

    def fsync_entries(self, paths: Iterable[str]) -> None:
        """Make the entries of ``paths`` last, and those of the folders above them.

        From the top down: a file must not reach the disk in a folder that has not.
        """
        due: set[str] = set()
        fresh: dict[str, tuple[int, int]] = {}
        for path in paths:
            # If the folder is deleted meanwhile, the entry is gone with it.
            with suppress(FileNotFoundError):
                self._look_up(_folder(path), due, fresh)
        for folder in sorted(due):
            try:
                self.fsync_dir(folder)
            except FileNotFoundError:
                fresh.clear()
        if len(self._synced) + len(fresh) <= _MAX_SYNCED_FOLDERS:
            self._synced.update(fresh)
        else:
            self._synced.clear()

    def fsync_dir(self, folder: str) -> None:
        """Make what was done in a folder last."""
        self.sync(f"{self.root}/{folder}" if folder else self.root)

    def sync(self, full: str) -> None:
        """Sync a folder anywhere in the file system."""
        fd = self.files.open(full, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.files.fsync(fd)
        except OSError as error:
            # Some network file systems can not sync a folder, and say so like this.
            if error.errno != errno.EINVAL:
                raise
        finally:
            self.files.close(fd)

    def forget_folder(self, folder: str) -> None:
        """A folder and all below it are gone: it must be synced when it comes back."""
        # A folder is remembered together with those above it, so not without this one.
        if self._synced.pop(folder, None) is not None:
            for known in list(self._synced):
                if known.startswith(f"{folder}/"):
                    self._synced.pop(known, None)

    def _look_up(self, folder: str, due: set[str], fresh: dict[str, tuple[int, int]]) -> None:
        """Find the folders to sync for an entry in ``folder``."""
        due.add(folder)
        while folder:
            found = self.files.stat(f"{self.root}/{folder}")
            # The number tells a folder from one that was deleted and made anew.
            identity = (found.st_dev, found.st_ino)
            if self._synced.get(folder) == identity:
                break
            fresh[folder] = identity
            folder = folder.rpartition("/")[0]
            due.add(folder)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
