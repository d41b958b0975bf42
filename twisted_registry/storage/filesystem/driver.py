"""Descriptors of small files that were read lately, kept open for the next reader.

Opening a file costs a thread; looking at it does not. So a reader of a file that is still the one
that was opened before gets its descriptor at once, and it is closed when nobody has it any more.

The filesystem driver: a folder of this machine.

Workers of one host may share it; a network file system shared by several is not supported,
because writers keep each other away with flock. All calls run on threads of the driver's own.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from functools import partial
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.storage.filesystem.listing import (
    MAX_CACHED_NAMES,
    RACY_WINDOW_NS,
    FolderNameCache,
    entry_of,
    list_folder,
    walk_files,
)
from twisted_registry.storage.filesystem.locks import HostLocks, open_for_writing
from twisted_registry.storage.filesystem.oscalls import OSCalls, translate_oserror
from twisted_registry.storage.filesystem.reader import FileReader
from twisted_registry.storage.filesystem.tree import FileTree
from twisted_registry.storage.filesystem.writer import FileWriter, WriteBudget
from twisted_registry.storage.interfaces import (
    Entry,
    FileVersion,
    IBulkLookup,
    IFastLookup,
    IFolders,
    IHostLock,
    ILeftovers,
    IStorageDriver,
    OffsetInvalid,
    PathInvalid,
    PathNotFound,
    StorageError,
)
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.base import ReactorBase

    from twisted_registry.storage.filesystem.listing import LeftoverScan
    from twisted_registry.storage.interfaces import IReader, IWriter

#: Bytes: opening a larger file is nothing beside sending it, and a deleted file keeps its place on
#: the disk as long as it is open.
MAX_CACHED_FILE_BYTES = 1024 * 1024
#: Descriptors kept at most, and no more than this share of what the process may have.
_MAX_OPEN_FILES = 512
_DESCRIPTOR_DIVISOR = 8


def open_file_limit() -> int:
    """How many descriptors may be kept, seen from what the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        _MAX_OPEN_FILES
        if soft == resource.RLIM_INFINITY
        else min(_MAX_OPEN_FILES, soft // _DESCRIPTOR_DIVISOR)
    )


class CachedFile:
    """A descriptor that several may read from, at offsets of their own.

    :ivar seen: how the file looked.
    :ivar users: who has it.
    """

    __slots__ = ("_files", "fd", "users", "version")

    def __init__(self, files: OSCalls, version: FileVersion, fd: int) -> None:
        self._files = files
        self.version = version
        self.fd = fd
        self.users = 1

    def release(self) -> None:
        """Be told that one of them needs it no more."""
        self.users -= 1
        if not self.users:
            self._files.close(self.fd)


class OpenFileCache:
    """A bounded number of descriptors, by path."""

    def __init__(self, files: OSCalls, max_files: int) -> None:
        self._files = files
        self._max_files = max_files
        self._cache: OrderedDict[str, CachedFile] = OrderedDict()

    def acquire(self, path: str, version: FileVersion | None) -> CachedFile | None:
        """The file that was ``version``, for the caller to release; or None."""
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
        """Keep a duplicate of ``fd``, which was opened after the file was ``version``.

        Only if it is that file: another may have taken its place in between.
        """
        if version.size > MAX_CACHED_FILE_BYTES or path in self._cache:
            return
        found = self._files.fstat(fd)
        if (found.st_ino, found.st_mtime_ns, found.st_ctime_ns) != version.identity:
            return
        self._cache[path] = CachedFile(self._files, version, self._files.dup(fd))
        if len(self._cache) > self._max_files:
            self._drop(next(iter(self._cache)))

    def discard(self, path: str) -> None:
        """Keep none of this path."""
        if path in self._cache:
            self._drop(path)

    def close(self) -> None:
        """Close them all."""
        while self._cache:
            self._drop(next(iter(self._cache)))

    def _drop(self, path: str) -> None:
        self._cache.pop(path).release()


_T = TypeVar("_T")


@implementer(IStorageDriver, IFastLookup, IBulkLookup, IFolders, ILeftovers, IHostLock)
class FilesystemDriver:
    """Files below a root folder.

    :ivar root: the folder, absolute; made when it is first written to.
    :ivar reactor: where answers arrive.
    :ivar max_threads: how many calls to the operating system may block at a time.
    :ivar kept_open: how many small files that were read stay open for the next reader.
    :ivar kept_names: how many names of folders that were read are kept.
    :ivar files: the operating system, for tests to replace.
    :ivar threads: the pool, for tests to replace.
    """

    def __init__(
        self,
        root: str,
        reactor: ReactorBase,
        max_threads: int = 100,
        max_open_files: int | None = None,
        max_cached_names: int = MAX_CACHED_NAMES,
        files: OSCalls | None = None,
        threads: Threads | None = None,
    ) -> None:
        self.root = root
        self.reactor = reactor
        self.max_threads = max_threads
        self.max_open_files = open_file_limit() if max_open_files is None else max_open_files
        self.max_cached_names = max_cached_names
        self.files = OSCalls() if files is None else files
        self.threads = (
            Threads(self.reactor, self.max_threads, "storage") if threads is None else threads
        )
        self.name = "filesystem"
        self.min_chunk_bytes = 0
        self._tree = FileTree(self.root.rstrip("/"), self.files)
        self._budget = WriteBudget()
        self._open_files = OpenFileCache(self.files, self.max_open_files)
        self._folder_names = FolderNameCache(
            self._tree, self.reactor.seconds, self.max_cached_names
        )
        self._host_locks = HostLocks(self._tree, self.reactor, self._run)

    def get(self, path: str, limit: int) -> Deferred[bytes]:
        """Fire with the whole content of a small file."""
        return self._run(path, _read_small, self._tree, path, limit)

    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files, all read in one call of a thread."""
        return self._run("", _read_many, self._tree, tuple(paths), limit)

    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:
        """Store a small file: a hidden name, fsync, rename, fsync of the folders."""
        return self._run(path, self._tree.put, path, content, durable)

    def create(self, path: str, content: bytes) -> Deferred[None]:
        """Store a small file where there is none: as ``put``, with a hard link."""
        return self._run(path, self._tree.create, path, content)

    def stat(self, path: str) -> Deferred[Entry]:
        """Fire with size and time of a file or folder."""
        return self._run(path, lambda: entry_of(path, self._tree.stat(path)))

    def peek(self, path: str) -> FileVersion | None:
        """Look at a file, whose name and node the kernel has in memory if it was used lately."""
        # Done several times for each pull, so with as few calls as can be.
        try:
            found = self.files.stat(f"{self._tree.root}/{path}")
        except OSError:
            return None
        written = found.st_mtime_ns
        if not S_ISREG(found.st_mode) or self.reactor.seconds() * 1e9 - written < RACY_WINDOW_NS:
            return None
        identity = (found.st_ino, written, found.st_ctime_ns)
        return tuple.__new__(FileVersion, (found.st_size, identity))

    def validate(self, versions: Sequence[tuple[str, FileVersion]]) -> bool:
        """Look at files again. What was old enough to be believed is so as long as it looks so."""
        stat, root = self.files.stat, self._tree.root
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
        """Open a small file that is kept open."""
        cached = self._open_files.acquire(path, version)
        if cached is None:
            return None
        return FileReader(
            self.files, self.threads, path, cached.fd, 0, version.size, cached.release
        )

    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Copy a file within the kernel, where it can."""
        return self._run(destination, self._tree.copy, source, destination)

    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Move a file; to another disk, behind a symbolic link, by copying it."""
        return self._run(destination, self._tree.move, source, destination, still)

    def delete(self, path: str, *, durable: bool = True) -> Deferred[None]:
        """Remove a file, or a folder: it takes a hidden name first, so it vanishes at once."""
        return self._run(path, self._tree.delete, path, durable)

    def prune(self, paths: Sequence[str]) -> Deferred[None]:
        """Remove folders that are empty."""
        return self._run("", self._tree.prune, tuple(paths))

    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Remove files, passing over those that are not there."""
        return self._run("", self._tree.delete_many, tuple(paths))

    def open(self, path: str, offset: int = 0, length: int | None = None) -> Deferred[IReader]:
        """Open a stretch of a file for reading; of a small one that was read lately, at once."""
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
            path, _open_stretch, self._tree, path, offset, length, undo=self._close_opened
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
        """Begin or continue a file, under its lock."""

        def writer(opened: tuple[int, int]) -> IWriter:
            fd, size = opened
            return FileWriter(
                self._tree,
                self.threads,
                self.reactor,
                self._budget,
                path,
                fd,
                size,
                observe,
                # It is another file by now, or has another name.
                lambda: self._open_files.discard(path),
            )

        opening = self._run(
            path,
            open_for_writing,
            self._tree,
            path,
            offset,
            present,
            absent,
            undo=self._close_opened,
        )
        return opening.addCallback(writer)

    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Remove old hidden files and folders, a bit of the tree at a time."""
        # First done minutes after the start.
        from twisted_registry.storage.filesystem.listing import LeftoverScan  # noqa: PLC0415

        return Deferred.fromCoroutine(self._sweep(LeftoverScan(self._tree, before, dry_run)))

    def list(self, path: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with what lies directly in a folder."""
        return self._run(path, list_folder, self._tree, path, after, limit)

    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> Deferred[Sequence[str]]:
        """Fire with the names of the folders directly in a folder; at once, if that can be."""
        cached = None if containing else self._folder_names.cached(path, after, limit)
        if cached is not None:
            return succeed(cached)
        return self._run(path, self._folder_names.page, path, after, limit, containing)

    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in each of many, read in one call of a thread."""
        return self._run("", self._folder_names.pages, tuple(paths), limit)

    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder."""
        return self._run(prefix, walk_files, self._tree, prefix, after, limit)

    def lock(self, name: str) -> Deferred[Callable[[], object]]:
        """Keep other processes waiting by a lock on a file, one of a few."""
        return self._host_locks.acquire(name)

    def close(self) -> Deferred[None]:
        """Wait for the calls under way and end the threads."""
        self._open_files.close()
        return self.threads.close()

    def _run(
        self,
        path: str,
        work: Callable[..., _T],
        *arguments: Any,
        undo: Callable[[_T], object] | None = None,
    ) -> Deferred[_T]:
        def explained() -> _T:
            try:
                return work(*arguments)
            except OSError as error:
                raise translate_oserror(error, path) from error

        return self.threads.run_blocking(explained, undo=undo)

    async def _sweep(self, remove_leftovers: LeftoverScan) -> int:
        while await self._run("", remove_leftovers.scan_some):
            pass
        return remove_leftovers.found

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


def _open_stretch(tree: FileTree, path: str, offset: int, length: int | None) -> tuple[int, int]:
    """Open a file; answer its descriptor and how many bytes to deliver."""
    fd, size = tree.open_file(path)
    if offset > size:
        tree.files.close(fd)
        raise OffsetInvalid(path, f"ends at {size}", size=size)
    rest = size - offset
    return fd, rest if length is None else min(length, rest)
