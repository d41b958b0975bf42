"""The names of the folders in a folder, kept as long as it is the same.

Reading a folder of very many entries costs more than all else of a page of it. A folder's times
move when an entry is made or removed in it, by whatever process; so one look at the folder tells
whether the names that were read before are still those that are there. They tell nothing of what
lies deeper: a file inside that was not there is looked for each time. One that was found is taken
for there as long as the folder is the same, which :meth:`IStorageDriver.folders` allows. Symbolic
links are the exception: what they lead to comes and goes without the folder, so each is looked at
whenever its name would be answered.

What lies in a folder, and below it, in the order of names and a page at a time.

Symbolic links are followed, so that an operator can put a folder on another disk; one that
leads back to a folder above is passed over. So are hidden names (the driver's own unfinished
files, a file server's snapshots) and names that no path can spell, such as those that are not
UTF-8.

What a crash leaves in a tree of files: unfinished ones under hidden names.

A file gets its name when it is whole, and a folder that is deleted takes a hidden one first. A
process that is killed in between leaves them where no path leads. Nobody but a sweep by age can
know that they are nobody's any more.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections import OrderedDict
from heapq import nsmallest
from itertools import islice
from stat import S_ISDIR, S_ISREG
from threading import Lock
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.logger import Logger

from twisted_registry.storage.filesystem.tree import NOT_FOUND_ERRNOS, is_temporary_name
from twisted_registry.storage.interfaces import Entry, PathInvalid, PathNotFound, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import DirEntry, stat_result

    from twisted_registry.storage.filesystem.tree import FileTree

#: Nanoseconds. Node numbers are used again at once, and kernels stamp coarsely: two versions of a
#: file or folder made within this time may look the same.
RACY_WINDOW_NS = 20_000_000
#: The same where times are whole seconds, or every other one: on some file systems they all are.
_RACY_WINDOW_COARSE_NS = 2_100_000_000
_NS_PER_S = 1_000_000_000
#: Names that are kept at most, of all folders together: about 80 bytes each.
MAX_CACHED_NAMES = 250_000
#: A folder that is kept takes the room of so many names besides.
_FOLDER_OVERHEAD_NAMES = 8
#: For how many paths inside its folders it is kept which of them hold a file there: one byte each.
_MAX_INNER_PATHS = 2


class FolderNames:
    """What was in a folder.

    :ivar names: of folders and symbolic links, in order.
    :ivar links: those that are symbolic links, to a folder or not.
    """

    def __init__(self, names: Sequence[str], links: frozenset[str]) -> None:
        self.names = names
        self.links = links
        self._found: dict[str, bytearray] = {}

    def found(self, inside: str) -> bytearray:
        """For each name 1 if a file was found under a path inside it, else 0; to be filled in."""
        marks = self._found.get(inside)
        if marks is None:
            marks = bytearray(len(self.names))
            for oldest in list(self._found)[: 1 - _MAX_INNER_PATHS or None]:
                # Another thread may have been faster.
                self._found.pop(oldest, None)
            self._found[inside] = marks
        return marks


class FolderNameCache:
    """Reads the names of folders, and keeps a bounded number. Any thread may call.

    :ivar seconds: the time, by the clock that stamps files.
    :ivar most: how many names are kept.
    """

    def __init__(self, tree: FileTree, seconds: Callable[[], float], max_names: int) -> None:
        self._tree = tree
        self._seconds = seconds
        self._max_names = max_names
        self._cache: OrderedDict[str, tuple[tuple[int, ...], FolderNames]] = OrderedDict()
        self._names = 0
        self._lock = Lock()

    def cached(self, path: str, after: str, limit: int) -> Sequence[str] | None:
        """What :meth:`page` answers, if one look at the folder is enough to know it."""
        if path not in self._cache:
            return None
        try:
            found = self._tree.stat(path)
        except (PathNotFound, OSError):
            return None
        scan = self._lookup(path, _version(found))
        return None if scan is None or scan.links else _slice(scan, after, limit)

    def page(self, path: str, after: str, limit: int, containing: str) -> Sequence[str]:
        """The first ``limit`` folders in ``path`` whose name is greater than ``after``.

        :param containing: only those with a file of at least one byte under this path inside them.
        :raises PathNotFound: if there is no such folder.
        :raises PathInvalid: if it is a file.
        """
        scan = self._read(path)
        if not containing and not scan.links:
            return _slice(scan, after, limit)
        start = bisect_right(scan.names, after)
        if containing:
            return self._page_containing(path, scan, start, limit, containing)
        later = islice(scan.names, start, None)
        base = f"{path}/" if path else ""
        straight = (
            name for name in later if name not in scan.links or self._is_link_to_folder(base + name)
        )
        return list(islice(straight, limit))

    def pages(self, paths: Sequence[str], limit: int) -> Sequence[Sequence[str]]:
        """The first ``limit`` folders in each of ``paths``."""
        return [self._page_of(path, limit) for path in paths]

    def _page_of(self, path: str, limit: int) -> Sequence[str]:
        try:
            return self.page(path, "", limit, "")
        except (PathNotFound, PathInvalid):
            return ()

    def _page_containing(
        self, path: str, scan: FolderNames, start: int, limit: int, inside: str
    ) -> Sequence[str]:
        """The first ``limit`` names from ``start`` on with a file in them."""
        names, marks = scan.names, scan.found(inside)
        end = marks.find(0, start, start + limit)
        if end < 0:
            # All of them were found before.
            return names[start : start + limit]
        held = list(names[start:end])
        looked_for = islice(enumerate(names), end, None)
        for number, name in self._find_containing(path, looked_for, marks, inside):
            held.append(name)
            if name not in scan.links:
                marks[number] = 1
            if len(held) == limit:
                break
        return held

    def _find_containing(
        self, path: str, names: Iterator[tuple[int, str]], marks: bytearray, inside: str
    ) -> Iterator[tuple[int, str]]:
        """Those of ``names`` with a file in them that is marked or can be seen now."""
        files = self._tree.files
        look = files.stat
        # From the open folder on the way to each is shorter.
        try:
            folder = files.open(self._tree.os_path(path), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise PathNotFound(path) from error
        try:
            for number, name in names:
                if marks[number]:
                    yield number, name
                    continue
                try:
                    found = look(f"{name}/{inside}", dir_fd=folder)
                except OSError as error:
                    if error.errno in NOT_FOUND_ERRNOS:
                        continue
                    raise
                if found.st_size and S_ISREG(found.st_mode):
                    yield number, name
        finally:
            files.close(folder)

    def _is_link_to_folder(self, path: str) -> bool:
        """Whether a symbolic link leads to a folder."""
        try:
            return S_ISDIR(self._tree.stat(path).st_mode)
        except PathNotFound:
            return False

    def _read(self, path: str) -> FolderNames:
        # Before the look: what is changed after it has a later time than what we see.
        now = self._seconds() * 1e9
        found = self._tree.stat(path)
        if not S_ISDIR(found.st_mode):
            raise PathInvalid(path, "is a file")
        version = _version(found)
        scan = self._lookup(path, version)
        if scan is None:
            scan = self._scan(path)
            changed = max(found.st_mtime_ns, found.st_ctime_ns)
            if now - changed > (RACY_WINDOW_NS if changed % _NS_PER_S else _RACY_WINDOW_COARSE_NS):
                self._keep(path, version, scan)
        return scan

    def _scan(self, path: str) -> FolderNames:
        names, links = [], []
        try:
            with self._tree.files.scandir(self._tree.os_path(path)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                    elif entry.is_symlink():
                        links.append(entry.name)
        except FileNotFoundError as error:
            raise PathNotFound(path) from error
        visible = [name for name in names if is_name(name)]
        links = [name for name in links if is_name(name)]
        return FolderNames(sorted(visible + links), frozenset(links))

    def _lookup(self, path: str, version: tuple[int, ...]) -> FolderNames | None:
        with self._lock:
            cached = self._cache.get(path)
            if cached is None:
                return None
            if cached[0] != version:
                self._drop(path)
                return None
            self._cache.move_to_end(path)
            return cached[1]

    def _keep(self, path: str, version: tuple[int, ...], scan: FolderNames) -> None:
        size = len(scan.names) + _FOLDER_OVERHEAD_NAMES
        if size > self._max_names:
            return
        with self._lock:
            if path in self._cache:
                self._drop(path)
            self._cache[path] = version, scan
            self._names += size
            while self._names > self._max_names:
                self._drop(next(iter(self._cache)))

    def _drop(self, path: str) -> None:
        _, scan = self._cache.pop(path)
        self._names -= len(scan.names) + _FOLDER_OVERHEAD_NAMES


def _version(found: stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _slice(scan: FolderNames, after: str, limit: int) -> Sequence[str]:
    start = bisect_right(scan.names, after) if after else 0
    return scan.names[start : start + limit]


log = Logger()


def entry_of(path: str, found: stat_result) -> Entry:
    """Describe a file or folder."""
    return Entry(path, None if stat.S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns)


def list_folder(tree: FileTree, path: str, after: str, limit: int) -> Sequence[Entry]:
    """Answer the first ``limit`` entries of a folder whose name is greater than ``after``.

    However many entries the folder has, no more than ``limit`` of them are kept in memory.
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
        # Some may have gone since the scan: a short page would mean that the folder ends.
        after = names[-1]
    return found


def walk_files(tree: FileTree, prefix: str, after: str, limit: int) -> Sequence[Entry]:
    """Answer the first ``limit`` files below a folder whose path is greater than ``after``."""
    return list(islice(_walk(tree, prefix, after), limit))


def is_broken_or_cyclic_link(tree: FileTree, entry: DirEntry[str]) -> bool:
    """Whether an entry is a link to nothing, to itself, or to a folder that it lies in."""
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
        # The path of a file, or one that leads through a file.
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
    """Answer the name; a folder's with a slash, to sort where the paths below it do.

    ``a-b`` comes before ``a/b``, and that before ``a0``.
    """
    return f"{entry.name}/" if entry.is_dir() else entry.name


def _is_visible(tree: FileTree, entry: DirEntry[str]) -> bool:
    if is_name(entry.name):
        return True
    if not entry.name.startswith(".") and not tree.odd_name_logged:
        tree.odd_name_logged = True
        log.warn("passing over {path!r} and other names that no path can spell", path=entry.path)
    return False


def _entry_at(tree: FileTree, path: str, name: str) -> Entry | None:
    try:
        return entry_of(name, tree.stat(path))
    except PathNotFound:
        return None


#: Folders that are looked at in one go: about ten milliseconds when the disk is warm.
_FOLDERS_PER_TURN = 200


@define(eq=False, repr=False)
class LeftoverScan:
    """One pass over a tree, a bit at a time, so that no thread is taken for long.

    :ivar before: seconds since the epoch; what changed later is left alone.
    :ivar dry_run: whether to remove nothing.
    :ivar found: files and folders that are gone, or would be.
    """

    tree: FileTree
    before: float
    dry_run: bool = False
    found: int = field(init=False, default=0)
    _folders: list[str] = field(init=False, factory=lambda: [""])

    def scan_some(self) -> bool:
        """Look at some more folders, on a thread, and return whether there are more to come."""
        for _ in range(_FOLDERS_PER_TURN):
            if not self._folders:
                break
            self._look_into(self._folders.pop())
        return bool(self._folders)

    def _look_into(self, folder: str) -> None:
        try:
            with self.tree.files.scandir(self.tree.os_path(folder)) as entries:
                for entry in entries:
                    self._look_at(entry, f"{folder}/{entry.name}" if folder else entry.name)
        except (FileNotFoundError, NotADirectoryError):
            # Deleted meanwhile.
            return

    def _look_at(self, entry: DirEntry[str], path: str) -> None:
        if is_temporary_name(entry.name):
            self._remove_if_old(entry)
        elif not entry.name.startswith(".") and _is_folder_to_enter(self.tree, entry):
            self._folders.append(path)

    def _remove_if_old(self, entry: DirEntry[str]) -> None:
        try:
            # When it got its name, or was written to last.
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
