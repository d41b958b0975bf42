"""Names of the folders in a folder, cached as long as the folder is unchanged.

Reading a folder with very many entries takes much longer than the rest of a page of its names. The
times of a folder change when an entry is added or removed, by any process, so one ``stat`` of the
folder validates the cached names. It does not validate deeper levels: a file inside a folder that
was missing is looked for again each time; one that was found is assumed to exist as long as the
outer folder is unchanged, which :meth:`.IBulkLookup.list_folders` permits. Symbolic links are
checked each time, because their targets can change without the folder.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from itertools import islice
from stat import S_ISDIR, S_ISREG
from threading import Lock
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.storage.files import version_of
from twisted_registry.storage.filesystem.tree import NOT_FOUND_ERRNOS
from twisted_registry.storage.interfaces import PathInvalid, PathNotFound, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted_registry.storage.filesystem.tree import FileTree

#: Two versions of a file or folder that are made within this time may have the same times and inode
#: number: numbers are reused at once, and the clock of the kernel is coarse.
RACY_WINDOW_NS = 20_000_000
#: The same for file systems whose times are whole seconds, or every other second.
_RACY_WINDOW_COARSE_NS = 2_100_000_000
_NS_PER_S = 1_000_000_000
#: Maximum of cached names, of all folders together: about 80 bytes each.
MAX_CACHED_NAMES = 250_000
#: A cached folder counts as so many names in addition.
_FOLDER_OVERHEAD_NAMES = 8
#: Maximum of paths inside folders for which found files are recorded: one byte per folder.
_MAX_INNER_PATHS = 2


@define(eq=False)
class FolderNames:
    """The names in one folder.

    :ivar names: of folders and symbolic links, sorted.
    :ivar links: those that are symbolic links, to a folder or not.
    """

    names: Sequence[str]
    links: frozenset[str]
    _found: dict[str, bytearray] = field(init=False, factory=dict)

    def found(self, inside: str) -> bytearray:
        """Return a flag for each name: whether a file was found under the path inside it.

        The caller sets the flags.
        """
        flags = self._found.get(inside)
        if flags is None:
            flags = bytearray(len(self.names))
            for oldest in list(self._found)[: 1 - _MAX_INNER_PATHS or None]:
                # Another thread may have removed it.
                self._found.pop(oldest, None)
            self._found[inside] = flags
        return flags


class FolderNameCache:
    """Reads and caches the names of folders. Methods may be called on any thread."""

    def __init__(self, tree: FileTree, seconds: Callable[[], float], max_names: int) -> None:
        """Make an empty cache.

        :param seconds: the time of the clock that stamps files.
        :param max_names: maximum of cached names; a folder counts as some more.
        """
        self._tree = tree
        self._seconds = seconds
        self._max_names = max_names
        self._cache: OrderedDict[str, tuple[tuple[int, ...], FolderNames]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Number of cached names, including those that a folder counts as."""
        return self._size

    def cached(self, path: str, after: str, limit: int) -> Sequence[str] | None:
        """Return the same as :meth:`page` if one ``stat`` is enough, else None."""
        if path not in self._cache:
            return None
        try:
            found = self._tree.stat(path)
        except (PathNotFound, OSError):
            return None
        scan = self._lookup(path, version_of(found))
        return None if scan is None or scan.links else _slice(scan, after, limit)

    def page(self, path: str, after: str, limit: int, containing: str) -> Sequence[str]:
        """Return the first ``limit`` folders in ``path`` with a name greater than ``after``.

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
        """Return the first ``limit`` folders in each of ``paths``."""
        return [self._page_of(path, limit) for path in paths]

    def _page_of(self, path: str, limit: int) -> Sequence[str]:
        try:
            return self.page(path, "", limit, "")
        except (PathNotFound, PathInvalid):
            return ()

    def _page_containing(
        self, path: str, scan: FolderNames, start: int, limit: int, inside: str
    ) -> Sequence[str]:
        """Return the first ``limit`` names from ``start`` on that contain a file."""
        names, flags = scan.names, scan.found(inside)
        end = flags.find(0, start, start + limit)
        if end < 0:
            # All of them have been found before.
            return names[start : start + limit]
        found = list(names[start:end])
        unknown = islice(enumerate(names), end, None)
        for number, name in self._find_containing(path, unknown, flags, inside):
            found.append(name)
            if name not in scan.links:
                flags[number] = 1
            if len(found) == limit:
                break
        return found

    def _find_containing(
        self, path: str, names: Iterator[tuple[int, str]], flags: bytearray, inside: str
    ) -> Iterator[tuple[int, str]]:
        """Yield those of ``names`` that contain a file now, or have a flag."""
        files = self._tree.files
        stat = files.stat
        # Relative to an open folder, the kernel resolves shorter paths.
        try:
            folder = files.open(self._tree.os_path(path), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise PathNotFound(path) from error
        try:
            for number, name in names:
                if flags[number]:
                    yield number, name
                    continue
                try:
                    found = stat(f"{name}/{inside}", dir_fd=folder)
                except OSError as error:
                    if error.errno in NOT_FOUND_ERRNOS:
                        continue
                    raise
                if found.st_size and S_ISREG(found.st_mode):
                    yield number, name
        finally:
            files.close(folder)

    def _is_link_to_folder(self, path: str) -> bool:
        """Return whether a symbolic link leads to a folder."""
        try:
            return S_ISDIR(self._tree.stat(path).st_mode)
        except PathNotFound:
            return False

    def _read(self, path: str) -> FolderNames:
        # Before the stat, so that a change after it has a later time.
        now = self._seconds() * 1e9
        found = self._tree.stat(path)
        if not S_ISDIR(found.st_mode):
            raise PathInvalid(path, "is a file")
        version = version_of(found)
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
            self._size += size
            while self._size > self._max_names:
                self._drop(next(iter(self._cache)))

    def _drop(self, path: str) -> None:
        _, scan = self._cache.pop(path)
        self._size -= len(scan.names) + _FOLDER_OVERHEAD_NAMES


def _slice(scan: FolderNames, after: str, limit: int) -> Sequence[str]:
    start = bisect_right(scan.names, after) if after else 0
    return scan.names[start : start + limit]
