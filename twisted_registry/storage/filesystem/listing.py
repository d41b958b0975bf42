"""Listings of folders and trees, and the search for leftovers. All functions block.

Names are sorted and returned a page at a time. Symbolic links are followed, so that an operator can
move a folder to another disk; one that leads to a folder above it is skipped. Hidden names (files
of the driver that are not complete, snapshots of a file server) and names that are not valid in
paths, such as those that are not UTF-8, are skipped, too.

Leftovers are hidden files and folders of this driver. A new file gets its name when it is complete,
and a folder that is deleted first gets a hidden name. A process that is killed in between leaves
them; only their age shows that no process uses them.
"""

from __future__ import annotations

from heapq import nsmallest
from itertools import islice
from stat import S_ISDIR
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.logger import Logger

from twisted_registry.storage.filesystem.tree import is_temporary_name
from twisted_registry.storage.interfaces import Entry, PathInvalid, PathNotFound, is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import DirEntry, stat_result

    from twisted_registry.storage.filesystem.tree import FileTree

log = Logger()

#: Folders that are scanned per call of a thread: about ten milliseconds with a warm disk cache.
_FOLDERS_PER_CALL = 200


def entry_of(path: str, found: stat_result) -> Entry:
    """Return the entry of a file or folder."""
    return Entry(path, None if S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns)


def list_folder(tree: FileTree, path: str, after: str, limit: int) -> Sequence[Entry]:
    """Return the first ``limit`` entries of a folder with a name greater than ``after``.

    No more than ``limit`` names are in memory, even if the folder has more.

    :raises PathNotFound: if there is no such folder.
    :raises PathInvalid: if it is a file.
    """
    found: list[Entry] = []
    while len(found) < limit:
        missing = limit - len(found)
        names = _names(tree, path, after, missing)
        for name in names:
            entry = _entry_at(tree, f"{path}/{name}" if path else name, name)
            if entry is not None:
                found.append(entry)
        if len(names) < missing:
            break
        # Some were deleted since the scan, but a short page means that there are no more.
        after = names[-1]
    return found


def walk_files(tree: FileTree, prefix: str, after: str, limit: int) -> Sequence[Entry]:
    """Return the first ``limit`` files below a folder with a path greater than ``after``."""
    return list(islice(_walk(tree, prefix, after), limit))


def is_broken_or_cyclic_link(tree: FileTree, entry: DirEntry[str]) -> bool:
    """Return whether an entry is a link to nothing, to itself, or to a folder above it."""
    if not entry.is_symlink():
        return False
    try:
        tree.files.stat(entry.path)
    except OSError:
        return True
    here, name = entry.path.rsplit("/", 1)
    there = tree.files.realpath(entry.path)
    return f"{tree.files.realpath(here)}/{name}".startswith(f"{there}/")


def _names(tree: FileTree, path: str, after: str, limit: int) -> list[str]:
    try:
        with tree.files.scandir(tree.os_path(path)) as entries:
            visible = (entry.name for entry in entries if _is_visible(tree, entry))
            return nsmallest(limit, (name for name in visible if name > after))
    except FileNotFoundError as error:
        raise PathNotFound(path) from error
    except NotADirectoryError as error:
        # It is a file, or (PathNotFound) below a file.
        tree.stat(path)
        raise PathInvalid(path, "is a file") from error


def _walk(tree: FileTree, folder: str, after: str) -> Iterator[Entry]:
    prefix = f"{folder}/" if folder else ""
    try:
        with tree.files.scandir(tree.os_path(folder)) as entries:
            visible = [entry for entry in entries if _is_visible(tree, entry)]
    except (FileNotFoundError, NotADirectoryError):
        return
    straight = (entry for entry in visible if not is_broken_or_cyclic_link(tree, entry))
    for path in sorted(prefix + _sort_key(entry) for entry in straight):
        if not path.endswith("/"):
            entry = _entry_at(tree, path, path) if path > after else None
            if entry is not None and not entry.is_folder:
                yield entry
        elif path > after or after.startswith(path):
            yield from _walk(tree, path[:-1], after)


def _sort_key(entry: DirEntry[str]) -> str:
    """Return the name, with a slash for folders, so that they sort like the paths below them.

    ``a-b`` is before ``a/b``, and that before ``a0``.
    """
    return f"{entry.name}/" if entry.is_dir() else entry.name


def _is_visible(tree: FileTree, entry: DirEntry[str]) -> bool:
    if is_name(entry.name):
        return True
    if not entry.name.startswith(".") and not tree.odd_name_logged:
        tree.odd_name_logged = True
        log.warn("skipping {path!r}: the name is not valid in paths (logged once)", path=entry.path)
    return False


def _entry_at(tree: FileTree, path: str, name: str) -> Entry | None:
    try:
        return entry_of(name, tree.stat(path))
    except PathNotFound:
        return None


@define(eq=False, repr=False)
class LeftoverScan:
    """One search for leftovers, in many short calls, so that no thread is busy for long.

    :ivar before: seconds since the epoch; what changed later stays.
    :ivar dry_run: whether to delete nothing.
    :ivar found: number of files and folders that are deleted, or would be.
    """

    tree: FileTree
    before: float
    dry_run: bool = False
    found: int = field(init=False, default=0)
    _folders: list[str] = field(init=False, factory=lambda: [""])

    def scan_some(self) -> bool:
        """Scan some more folders; return whether there are more."""
        for _ in range(_FOLDERS_PER_CALL):
            if not self._folders:
                break
            self._scan(self._folders.pop())
        return bool(self._folders)

    def _scan(self, folder: str) -> None:
        try:
            with self.tree.files.scandir(self.tree.os_path(folder)) as entries:
                for entry in entries:
                    self._check_entry(entry, f"{folder}/{entry.name}" if folder else entry.name)
        except (FileNotFoundError, NotADirectoryError):
            # It was deleted meanwhile.
            return

    def _check_entry(self, entry: DirEntry[str], path: str) -> None:
        if is_temporary_name(entry.name):
            self._remove_if_old(entry)
        elif not entry.name.startswith(".") and _is_folder_to_enter(self.tree, entry):
            self._folders.append(path)

    def _remove_if_old(self, entry: DirEntry[str]) -> None:
        try:
            # The time of its last rename or write.
            found = entry.stat(follow_symlinks=False)
            if max(found.st_mtime, found.st_ctime) >= self.before:
                return
            if self.dry_run:
                pass
            elif entry.is_dir(follow_symlinks=False):
                self.tree.remove_tree(entry.path)
            else:
                self.tree.files.unlink(entry.path)
        except FileNotFoundError:
            return
        self.found += 1


def _is_folder_to_enter(tree: FileTree, entry: DirEntry[str]) -> bool:
    return entry.is_dir() and not is_broken_or_cyclic_link(tree, entry)
