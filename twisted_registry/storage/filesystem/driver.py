"""The filesystem driver: files in a folder of this machine.

Several processes of one host may share the folder. A network file system that is shared by several
hosts is not supported, because writers exclude each other by ``flock``. All calls that may block
run on threads of the driver, except short lookups of files that are likely to be in the cache of
the kernel.

Small files that were read stay open (:class:`OpenFileCache`): opening a file needs a thread,
checking that it is unchanged does not.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from copy import copy
from functools import partial
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.storage.filesystem.folder_names import (
    MAX_CACHED_NAMES,
    RACY_WINDOW_NS,
    FolderNameCache,
)
from twisted_registry.storage.filesystem.listing import (
    LeftoverScan,
    entry_of,
    list_folder,
    walk_files,
)
from twisted_registry.storage.filesystem.locks import HostLocks, open_for_writing
from twisted_registry.storage.filesystem.oscalls import (
    DISK_FULL_ERRNOS,
    OSCalls,
    translate_oserror,
)
from twisted_registry.storage.filesystem.reader import FileReader
from twisted_registry.storage.filesystem.reserve import Reserve
from twisted_registry.storage.filesystem.tree import MAX_SYNCED_FOLDERS, FileTree
from twisted_registry.storage.filesystem.writer import FileWriter, WriteBudget
from twisted_registry.storage.interfaces import (
    Entry,
    FileVersion,
    IBulkLookup,
    IFastLookup,
    IFolders,
    IHostLock,
    ILeftovers,
    IReserve,
    IStorageDriver,
    OffsetInvalid,
    PathInvalid,
    PathNotFound,
    StorageError,
)
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from twisted.internet.base import ReactorBase

    from twisted_registry.storage.interfaces import IReader, IWriter

_T = TypeVar("_T")

#: Maximum size of a file that stays open. Opening takes little time compared with sending a larger
#: file, and a deleted file uses disk space as long as it is open.
MAX_CACHED_FILE_BYTES = 1024 * 1024
#: Maximum of files that stay open, and the divisor of the limit of the process.
_MAX_OPEN_FILES = 512
_DESCRIPTOR_DIVISOR = 8


def open_file_limit() -> int:
    """Return how many files may stay open, considering the limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        _MAX_OPEN_FILES
        if soft == resource.RLIM_INFINITY
        else min(_MAX_OPEN_FILES, soft // _DESCRIPTOR_DIVISOR)
    )


def _identity_of(found: os.stat_result) -> tuple[int, int, int]:
    # peek() and validate() inline this: a cached pull consists of little else.
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


@define(eq=False)
class CachedFile:
    """A descriptor with several readers, which read at offsets.

    :ivar version: the state of the file.
    :ivar users: number of readers, plus one for the cache.
    """

    _files: OSCalls
    version: FileVersion
    fd: int
    users: int = field(init=False, default=1)

    def release(self) -> None:
        """Close the descriptor if this was the last user."""
        self.users -= 1
        if not self.users:
            self._files.close(self.fd)


@define(eq=False)
class OpenFileCache:
    """A bounded number of open files, by path.

    :ivar max_files: maximum number; the one that was unused longest is closed.
    """

    _files: OSCalls
    _max_files: int
    _cache: OrderedDict[str, CachedFile] = field(init=False, factory=OrderedDict)

    def acquire(self, path: str, version: FileVersion | None) -> CachedFile | None:
        """Return the file if its version is ``version``, else None. The caller releases it."""
        cached = self._cache.get(path)
        if cached is None:
            return None
        if cached.version != version:
            self._drop(path)
            return None
        self._cache.move_to_end(path)
        cached.users += 1
        return cached

    def add(self, path: str, version: FileVersion, fd: int) -> None:
        """Cache a duplicate of ``fd``.

        The file was opened after :meth:`FilesystemDriver.peek` returned ``version``. It is not
        cached if it has changed in between.
        """
        if version.size > MAX_CACHED_FILE_BYTES or path in self._cache:
            return
        if _identity_of(self._files.fstat(fd)) != version.identity:
            return
        self._cache[path] = CachedFile(self._files, version, self._files.dup(fd))
        if len(self._cache) > self._max_files:
            self._drop(next(iter(self._cache)))

    def discard(self, path: str) -> None:
        """Drop the file of a path."""
        if path in self._cache:
            self._drop(path)

    def close(self) -> None:
        """Drop all files."""
        while self._cache:
            self._drop(next(iter(self._cache)))

    def _drop(self, path: str) -> None:
        self._cache.pop(path).release()


@implementer(IStorageDriver, IFastLookup, IBulkLookup, IFolders, ILeftovers, IHostLock, IReserve)
class FilesystemDriver:
    """Files below a root folder.

    :ivar root: the absolute path of the folder, which is made when it is first written to.
    :ivar reactor: runs callbacks, and is the clock.
    :ivar max_threads: maximum of calls that block at a time.
    :ivar max_open_files: maximum of small files that stay open for the next reader.
    :ivar files: the operating system.
    :ivar threads: where calls block.
    :ivar tree: the files, for calls that block.
    :ivar budget: what all writers may buffer.
    :ivar folder_names: the cached names of folders.
    :ivar reserve: space for what frees space; None without one.
    :ivar privileged: the same files; all changes may use the reserve.
    """

    name: ClassVar[str] = "filesystem"
    min_chunk_bytes: ClassVar[int] = 0

    def __init__(
        self,
        root: str,
        reactor: ReactorBase,
        max_threads: int = 100,
        max_open_files: int | None = None,
        max_cached_names: int = MAX_CACHED_NAMES,
        files: OSCalls | None = None,
        threads: Threads | None = None,
        max_synced_folders: int = MAX_SYNCED_FOLDERS,
        budget: WriteBudget | None = None,
        reserve_bytes: int = 0,
    ) -> None:
        """Make a driver; nothing is read or written yet.

        :param max_open_files: None for a share of the limit of the process.
        :param max_cached_names: maximum of names of folders that are cached.
        :param files: a replacement of the operating system, for tests.
        :param threads: a replacement of the threads, for tests.
        :param max_synced_folders: maximum of folders that are remembered as synced.
        :param budget: what all writers may buffer.
        :param reserve_bytes: size of the reserve, which :meth:`refill` makes; 0 for none.
        """
        self.root = root
        self.reactor = reactor
        self.max_threads = max_threads
        self.max_open_files = open_file_limit() if max_open_files is None else max_open_files
        self.files = OSCalls() if files is None else files
        self.threads = (
            Threads(self.reactor, self.max_threads, "storage") if threads is None else threads
        )
        top = root.rstrip("/")
        self.reserve = Reserve(top, self.files, reserve_bytes) if reserve_bytes else None
        self.tree = FileTree(top, self.files, max_synced_folders, self.reserve)
        self.budget = WriteBudget() if budget is None else budget
        self._open_files = OpenFileCache(self.files, self.max_open_files)
        self.folder_names = FolderNameCache(self.tree, reactor.seconds, max_cached_names)
        # There are at most 256 empty files, which deletes need.
        self._host_locks = HostLocks(self.tree.privileged(), reactor, self.threads)
        self.privileged = self
        if self.reserve is not None:
            self.privileged = copy(self)
            self.privileged.tree = self.tree.privileged()
            self.privileged.privileged = self.privileged

    def get(self, path: str, limit: int) -> Deferred[bytes]:
        """Read the file on a thread."""
        return self._run(path, _read_small, self.tree, path, limit)

    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Read all files in one call of a thread."""
        return self._run("", _read_many, self.tree, tuple(paths), limit)

    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:
        """Write a hidden file, fsync, rename, fsync of the folders."""
        return self._run(path, partial(self.tree.put, durable=durable), path, content)

    def create(self, path: str, content: bytes) -> Deferred[None]:
        """Do the same as ``put``, with a hard link in place of the rename."""
        return self._run(path, self.tree.create, path, content)

    def stat(self, path: str) -> Deferred[Entry]:
        """Stat the file on a thread."""
        return self._run(path, lambda: entry_of(path, self.tree.stat(path)))

    def peek(self, path: str) -> FileVersion | None:
        """Stat the file, which the kernel has in memory if it was used recently."""
        try:
            found = self.files.stat(f"{self.tree.root}/{path}")
        except OSError:
            return None
        written = found.st_mtime_ns
        if not S_ISREG(found.st_mode) or self.reactor.seconds() * 1e9 - written < RACY_WINDOW_NS:
            return None
        identity = (found.st_ino, written, found.st_ctime_ns)
        # Faster than a call of FileVersion.
        return tuple.__new__(FileVersion, (found.st_size, identity))

    def validate(self, versions: Sequence[tuple[str, FileVersion]]) -> bool:
        """Stat the files. A version that :meth:`peek` returned was old enough to be reliable."""
        stat, root = self.files.stat, self.tree.root
        for path, (size, identity) in versions:
            try:
                found = stat(f"{root}/{path}")
            except OSError:
                return False
            if (
                found.st_size != size
                or (found.st_ino, found.st_mtime_ns, found.st_ctime_ns) != identity
            ):
                return False
        return True

    def open_cached(self, path: str, version: FileVersion) -> IReader | None:
        """Return a reader of a file that stayed open."""
        cached = self._open_files.acquire(path, version)
        if cached is None:
            return None
        return FileReader(
            self.files, self.threads, path, cached.fd, 0, version.size, cached.release
        )

    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Copy within the kernel, where that is supported."""
        return self._run(destination, self.tree.copy, source, destination)

    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Rename the file, or copy it if the destination is on another disk."""
        return self._run(destination, self.tree.move, source, destination, still)

    def delete(self, path: str, *, durable: bool = True) -> Deferred[None]:
        """Delete a file, or a folder, which gets a hidden name first and so disappears at once."""
        return self._run(path, partial(self.tree.delete, durable=durable), path)

    def prune(self, paths: Sequence[str]) -> Deferred[None]:
        """Delete empty folders, in one call of a thread."""
        return self._run("", self.tree.prune, tuple(paths))

    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Delete the files, in one call of a thread."""
        return self._run("", self.tree.delete_many, tuple(paths))

    def open(self, path: str, offset: int = 0, length: int | None = None) -> Deferred[IReader]:
        """Open a range of a file; a small file that stayed open needs no thread."""
        version = self.peek(path) if self.max_open_files else None
        cached = self._open_files.acquire(path, version)
        if cached is not None and version is not None:
            rest = version.size - offset
            if rest >= 0:
                size = rest if length is None else min(length, rest)
                return succeed(
                    FileReader(
                        self.files, self.threads, path, cached.fd, offset, size, cached.release
                    )
                )
            cached.release()

        def reader(opened: tuple[int, int]) -> IReader:
            fd, size = opened
            if version is not None:
                self._open_files.add(path, version, fd)
            release = partial(self.files.close, fd)
            return FileReader(self.files, self.threads, path, fd, offset, size, release)

        opening = self._run(
            path, _open_range, self.tree, path, offset, length, undo=self._close_opened
        )
        return opening.addCallback(reader)

    def writer(
        self,
        path: str,
        offset: int | None = None,
        observe: Callable[[bytes], object] | None = None,
        *,
        destination: str | None = None,  # noqa: ARG002 - a rename costs nothing here
        present: str | None = None,
        absent: str | None = None,
    ) -> Deferred[IWriter]:
        """Open and lock the file on a thread."""

        def writer(opened: tuple[int, int]) -> IWriter:
            fd, size = opened
            return FileWriter(
                self.tree,
                self.threads,
                self.reactor,
                self.budget,
                path,
                fd,
                size,
                observe,
                # The file has changed, or has another name.
                lambda: self._open_files.discard(path),
            )

        opening = self._run(
            path,
            open_for_writing,
            self.tree,
            path,
            offset,
            present,
            absent,
            undo=self._close_opened,
        )
        return opening.addCallback(writer)

    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Delete old hidden files and folders, in many short calls of a thread."""
        scan = LeftoverScan(self.tree, before, dry_run)
        return Deferred.fromCoroutine(self._run_scan(scan))

    def list(self, path: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Read the folder on a thread."""
        return self._run(path, list_folder, self.tree, path, after, limit)

    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> Deferred[Sequence[str]]:
        """Return cached names if the folder is unchanged, else read it on a thread."""
        cached = None if containing else self.folder_names.cached(path, after, limit)
        if cached is not None:
            return succeed(cached)
        return self._run(path, self.folder_names.page, path, after, limit, containing)

    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """Read all folders in one call of a thread."""
        return self._run("", self.folder_names.pages, tuple(paths), limit)

    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Read as much of the tree as the page needs, on a thread."""
        return self._run(prefix, walk_files, self.tree, prefix, after, limit)

    def lock(self, name: str) -> Deferred[Callable[[], object]]:
        """Lock one of a fixed number of files."""
        return self._host_locks.acquire(name)

    def refill(self, *, create: bool = True) -> Deferred[bool]:
        """Make the missing files of the reserve on a thread."""
        if self.reserve is None:
            return succeed(True)
        refilling = self._run("", partial(self.reserve.refill, create=create))
        return refilling.addCallback(self._refilled)

    def close(self) -> Deferred[None]:
        """Close open files; wait for running calls and end the threads."""
        self._open_files.close()
        return self.threads.close()

    def _run(
        self,
        path: str,
        work: Callable[..., _T],
        *arguments: Any,
        undo: Callable[[_T], object] | None = None,
    ) -> Deferred[_T]:
        def translated() -> _T:
            try:
                return work(*arguments)
            except OSError as error:
                if error.errno in DISK_FULL_ERRNOS:
                    self.threads.call_from_thread(self._open_files.close)
                raise translate_oserror(error, path) from error

        return self.threads.run_blocking(translated, undo=undo)

    def _refilled(self, is_complete: bool) -> bool:  # noqa: FBT001
        if not is_complete:
            # Deleted files that are open still use space.
            self._open_files.close()
        return is_complete

    async def _run_scan(self, scan: LeftoverScan) -> int:
        while await self._run("", scan.scan_some):
            pass
        return scan.found

    def _close_opened(self, opened: tuple[int, int]) -> None:
        self.files.close(opened[0])


def _read_small(tree: FileTree, path: str, limit: int) -> bytes:
    fd, size = tree.open_file(path)
    try:
        if size > limit:
            raise StorageError(path, f"has {size} bytes, more than {limit}")
        pieces = []
        read = 0
        while read < size and (piece := tree.files.pread(fd, size - read, read)):
            pieces.append(piece)
            read += len(piece)
        return b"".join(pieces)
    finally:
        tree.files.close(fd)


def _read_many(tree: FileTree, paths: Sequence[str], limit: int) -> Sequence[bytes | None]:
    contents: list[bytes | None] = []
    for path in paths:
        try:
            contents.append(_read_small(tree, path, limit))
        except (PathNotFound, PathInvalid):
            contents.append(None)
        except OSError as error:
            raise translate_oserror(error, path) from error
    return contents


def _open_range(tree: FileTree, path: str, offset: int, length: int | None) -> tuple[int, int]:
    """Open a file; return the descriptor and the bytes of the range."""
    fd, size = tree.open_file(path)
    if offset > size:
        tree.files.close(fd)
        raise OffsetInvalid(path, f"ends at {size}", size=size)
    rest = size - offset
    return fd, rest if length is None else min(length, rest)
