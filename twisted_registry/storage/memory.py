"""The memory driver: files in the memory of this process, for tests and demonstrations.

Only one process can use it, and everything is lost when it ends. Within that it keeps the whole
contract of drivers. All its Deferreds have fired when they are returned.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import wraps
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from twisted_registry.storage.interfaces import (
    Entry,
    FileVersion,
    IBulkLookup,
    IFastLookup,
    IFolders,
    IReader,
    IStorageDriver,
    IWriter,
    MoveRefused,
    OffsetInvalid,
    PathExists,
    PathInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)
from twisted_registry.storage.writers import finalize_in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted.internet.interfaces import IProducer, IReactorTime

    from twisted_registry.storage.interfaces import Change

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Bytes that a reader writes at a time.
_PIECE_BYTES = 256 * 1024


class MemoryFile:
    """The bytes of a file, which only grow; a replaced file is another object.

    :ivar modified: time of the last change, in nanoseconds since the epoch.
    :ivar locked: whether a writer has locked it.
    """

    def __init__(self, content: bytes, modified: int) -> None:
        self._content: bytes | bytearray = content
        self.modified = modified
        self.locked = False

    @property
    def size(self) -> int:
        """Number of stored bytes."""
        return len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of a range."""
        return bytes(memoryview(self._content)[offset : offset + length])

    def append(self, data: bytes, modified: int) -> None:
        """Append bytes."""
        if isinstance(self._content, bytes):
            self._content = bytearray(self._content)
        self._content += data
        self.modified = modified


@implementer(IReader, IPushProducer)
@define(eq=False, repr=False)
class MemoryReader:
    """A range of a file, whose end is fixed when it is opened."""

    _file: MemoryFile
    _offset: int
    size: int
    _consumer: IConsumer | None = field(init=False, default=None)
    _done: Deferred[None] | None = field(init=False, default=None)
    _sent: int = field(init=False, default=0)
    _paused: bool = field(init=False, default=False)
    _running: bool = field(init=False, default=False)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the range to ``consumer`` as a push producer, and close."""
        done: Deferred[None] = Deferred(lambda _: self._free())
        self._consumer, self._done = consumer, done
        consumer.registerProducer(self, True)
        self._write_pieces()
        return done

    def feed(self, observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with the range, in one piece."""
        return execute(observe, self._file.read(self._offset, self.size)).addCallback(
            lambda _: self.close()
        )

    def close(self) -> None:
        """End a running delivery as if it were cancelled."""
        self._free()
        self.stopProducing()

    def pauseProducing(self) -> None:
        """Write no more until resumed."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Continue."""
        self._paused = False
        self._write_pieces()

    def stopProducing(self) -> None:
        """End as if cancelled."""
        if self._done is not None and not self._done.called:
            self._done.cancel()

    def _free(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def _write_pieces(self) -> None:
        # The consumer may pause and resume inside its write().
        if self._running:
            return
        self._running = True
        try:
            while self._consumer is not None and not self._paused and self._sent < self.size:
                piece = self._file.read(
                    self._offset + self._sent, min(_PIECE_BYTES, self.size - self._sent)
                )
                self._sent += len(piece)
                self._consumer.write(piece)
        finally:
            self._running = False
        if self._consumer is not None and self._sent >= self.size:
            self._free()
            assert self._done is not None
            self._done.callback(None)


@implementer(IWriter)
@define(eq=False, repr=False)
class MemoryWriter:
    """The writer of a file, which stores bytes immediately.

    :ivar driver: makes the changes of ``finalize``.
    :ivar now: returns the time of a change, in nanoseconds since the epoch.
    :ivar discard: deletes the file.
    """

    _driver: IStorageDriver
    _file: MemoryFile
    _now: Callable[[], int]
    _discard: Callable[[], None]
    _observe: Callable[[bytes], object] | None = None
    content_id: ClassVar[str] = ""
    _open: bool = field(init=False, default=True)

    def __attrs_post_init__(self) -> None:
        """Lock the file."""
        self._file.locked = True

    @property
    def size(self) -> int:
        """Bytes under the path."""
        return self._file.size

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Accept a producer; it is never paused."""

    def unregisterProducer(self) -> None:
        """Do nothing."""

    def write(self, data: bytes) -> None:
        """Store the bytes; after ``close`` or ``cancel`` they are dropped."""
        if self._open and data:
            self._file.append(data, self._now())
            if self._observe is not None:
                self._observe(data)

    def flush(self) -> Deferred[int]:
        """Fire with the size."""
        return succeed(self.size)

    def commit(self) -> Deferred[int]:
        """Fire with the size."""
        return succeed(self.size)

    def finalize(self, decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Make the changes that ``decide`` returns, and close."""
        return finalize_in_steps(self._driver, self, decide)

    def close(self) -> Deferred[int]:
        """Unlock the file."""
        if self._open:
            self._open = self._file.locked = False
        return succeed(self.size)

    def cancel(self) -> Deferred[None]:
        """Delete the file and unlock it."""
        if self._open:
            self._open = self._file.locked = False
            self._discard()
        return succeed(None)


@define(eq=False, repr=False)
class _Folder:
    """A folder.

    :ivar modified: when an entry was added or removed last, in nanoseconds since the epoch.
    :ivar entries: its content by name.
    """

    modified: int
    entries: dict[str, _Folder | MemoryFile] = field(factory=dict)
    _folders: list[str] | None = field(init=False, default=None)

    def list_folders(self) -> list[str]:
        """Return the sorted names of the folders in it, cached until its entries change."""
        if self._folders is None:
            entries = self.entries.items()
            self._folders = sorted(name for name, node in entries if isinstance(node, _Folder))
        return self._folders

    def changed(self, modified: int) -> None:
        """Note that an entry was added or removed."""
        self.modified = modified
        self._folders = None


def _fires_at_once(method: Callable[_P, _T]) -> Callable[_P, Deferred[_T]]:
    """Make a method return its result, or its error, in a Deferred that has fired."""

    @wraps(method)
    def call(*arguments: _P.args, **options: _P.kwargs) -> Deferred[_T]:
        return execute(method, *arguments, **options)

    return call


@implementer(IStorageDriver, IFastLookup, IBulkLookup, IFolders)
@define(eq=False, repr=False)
class MemoryDriver:
    """A tree of folders and files in memory.

    :ivar clock: provides the times of files and folders.
    """

    clock: IReactorTime
    name: str = "inmemory"
    min_chunk_bytes: int = 0
    _root: _Folder = field(init=False, factory=lambda: _Folder(0))
    _last_time_ns: int = field(init=False, default=0)

    @_fires_at_once
    def get(self, path: str, limit: int) -> bytes:
        """Return the content."""
        return self._content(path, limit)

    @_fires_at_once
    def get_many(self, paths: Sequence[str], limit: int) -> Sequence[bytes | None]:
        """Return the contents."""
        return [
            self._content(path, limit) if isinstance(self._find(path), MemoryFile) else None
            for path in paths
        ]

    @_fires_at_once
    def put(self, path: str, content: bytes, *, durable: bool = True) -> None:  # noqa: ARG002
        """Store the file; nothing survives a power cut."""
        self._attach(path, MemoryFile(content, self._now()))

    @_fires_at_once
    def create(self, path: str, content: bytes) -> None:
        """Store the file if the path is free."""
        if self._find(path) is not None:
            raise PathExists(path)
        self._attach(path, MemoryFile(content, self._now()))

    @_fires_at_once
    def stat(self, path: str) -> Entry:
        """Return the entry."""
        return _entry(path, self._node(path))

    def peek(self, path: str) -> FileVersion | None:
        """Return the version of the file."""
        node = self._find(path)
        return (
            FileVersion(node.size, (id(node), node.modified))
            if isinstance(node, MemoryFile)
            else None
        )

    def validate(self, versions: Sequence[tuple[str, FileVersion]]) -> bool:
        """Compare the versions of the files."""
        return all(self.peek(path) == version for path, version in versions)

    def open_cached(self, path: str, version: FileVersion) -> IReader | None:
        """Open the file."""
        return MemoryReader(self._file(path), 0, version.size)

    @_fires_at_once
    def copy(self, source: str, destination: str) -> None:
        """Copy the bytes."""
        file = self._file(source)
        self._attach(destination, MemoryFile(file.read(0, file.size), self._now()))

    @_fires_at_once
    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> None:
        """Move the file."""
        file = self._file(source)
        if still is not None and not still():
            raise MoveRefused(source)
        if source != destination:
            self._attach(destination, file)
            self._detach(source)

    @_fires_at_once
    def delete(self, path: str, *, durable: bool = True) -> None:  # noqa: ARG002
        """Delete the file or folder."""
        self._node(path)
        self._detach(path)

    @_fires_at_once
    def prune(self, paths: Sequence[str]) -> None:
        """Delete the empty folders."""
        for path in paths:
            node = self._find(path)
            if isinstance(node, _Folder) and not node.entries:
                self._detach(path)

    @_fires_at_once
    def delete_many(self, paths: Sequence[str]) -> None:
        """Delete the files."""
        folders = []
        for path in paths:
            node = self._find(path)
            if isinstance(node, _Folder):
                folders.append(path)
            elif node is not None:
                self._detach(path)
        if folders:
            raise PathInvalid(folders[0], "is a folder")

    @_fires_at_once
    def open(self, path: str, offset: int = 0, length: int | None = None) -> IReader:
        """Open a range of the file."""
        file = self._file(path)
        if offset > file.size:
            raise OffsetInvalid(path, f"ends at {file.size}", size=file.size)
        rest = file.size - offset
        return MemoryReader(file, offset, rest if length is None else min(length, rest))

    @_fires_at_once
    def writer(
        self,
        path: str,
        offset: int | None = None,
        observe: Callable[[bytes], object] | None = None,
        *,
        destination: str | None = None,  # noqa: ARG002 - a rename costs nothing here
        present: str | None = None,
        absent: str | None = None,
    ) -> IWriter:
        """Lock the file, and make it if it is missing."""
        node = self._find(path)
        if isinstance(node, _Folder):
            raise PathInvalid(path, "is a folder")
        if node is not None and node.locked:
            raise WriterBusy(path)
        size = 0 if node is None else node.size
        if offset is not None and offset != size:
            raise OffsetInvalid(path, f"ends at {size}", size=size)
        if (present is not None and self._find(present) is None) or (
            absent is not None and self._find(absent) is not None
        ):
            if node is not None and not size:
                self._detach(path)
            raise PathNotFound(path, "must not be written because of the files beside it")
        if node is None:
            node = MemoryFile(b"", self._now())
            self._attach(path, node)
        return MemoryWriter(self, node, self._now, lambda: self._discard(path, node), observe)

    @_fires_at_once
    def list(self, path: str, after: str = "", limit: int = 1000) -> Sequence[Entry]:
        """Return a page of entries."""
        entries = self._folder(path).entries
        names = nsmallest(limit, (name for name in entries if name > after))
        return [_entry(name, entries[name]) for name in names]

    @_fires_at_once
    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> Sequence[str]:
        """Return a page of cached names."""
        names = self._folder(path).list_folders()
        start = bisect_right(names, after)
        if not containing:
            return names[start : start + limit]
        base = f"{path}/" if path else ""
        later = islice(names, start, None)
        having = (name for name in later if self._has_file(f"{base}{name}/{containing}"))
        return [*islice(having, limit)]

    @_fires_at_once
    def list_folders_many(self, paths: Sequence[str], limit: int) -> Sequence[Sequence[str]]:
        """Return the cached names of each folder."""
        nodes = (self._find(path) for path in paths)
        return [node.list_folders()[:limit] if isinstance(node, _Folder) else () for node in nodes]

    @_fires_at_once
    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[Entry]:
        """Return a page of files."""
        node = self._find(prefix)
        if not isinstance(node, _Folder):
            return []
        return [*islice(_files(node, f"{prefix}/" if prefix else "", after), limit)]

    @_fires_at_once
    def close(self) -> None:
        """Do nothing."""

    def _now(self) -> int:
        # Two changes within one tick of the clock need different times.
        self._last_time_ns = max(int(self.clock.seconds() * 1e9), self._last_time_ns + 1)
        return self._last_time_ns

    def _find(self, path: str) -> _Folder | MemoryFile | None:
        node: _Folder | MemoryFile | None = self._root
        for component in path.split("/") if path else ():
            if not isinstance(node, _Folder):
                return None
            node = node.entries.get(component)
        return node

    def _node(self, path: str) -> _Folder | MemoryFile:
        node = self._find(path)
        if node is None:
            raise PathNotFound(path)
        return node

    def _file(self, path: str) -> MemoryFile:
        node = self._node(path)
        if isinstance(node, _Folder):
            raise PathInvalid(path, "is a folder")
        return node

    def _folder(self, path: str) -> _Folder:
        node = self._node(path)
        if isinstance(node, MemoryFile):
            raise PathInvalid(path, "is a file")
        return node

    def _content(self, path: str, limit: int) -> bytes:
        file = self._file(path)
        if file.size > limit:
            raise StorageError(path, f"has {file.size} bytes, more than {limit}")
        return file.read(0, file.size)

    def _has_file(self, path: str) -> bool:
        node = self._find(path)
        return isinstance(node, MemoryFile) and node.size > 0

    def _folder_for(self, path: str) -> tuple[_Folder, str]:
        """Make the parent folders of ``path``; return the last of them and the name in it."""
        *above, name = path.split("/")
        folder = self._root
        for component in above:
            below = folder.entries.get(component)
            if below is None:
                below = folder.entries[component] = _Folder(self._now())
                folder.changed(below.modified)
            if isinstance(below, MemoryFile):
                raise PathInvalid(path, f"{component} is a file")
            folder = below
        return folder, name

    def _attach(self, path: str, file: MemoryFile) -> None:
        folder, name = self._folder_for(path)
        if isinstance(folder.entries.get(name), _Folder):
            raise PathInvalid(path, "is a folder")
        folder.entries[name] = file
        folder.changed(self._now())

    def _detach(self, path: str) -> None:
        folder, name = self._folder_for(path)
        del folder.entries[name]
        folder.changed(self._now())

    def _discard(self, path: str, file: MemoryFile) -> None:
        """Delete the file of a cancelled writer, unless it was moved or replaced."""
        if self._find(path) is file:
            self._detach(path)


def _entry(path: str, node: _Folder | MemoryFile) -> Entry:
    size = node.size if isinstance(node, MemoryFile) else None
    return Entry(path, size, node.modified)


def _files(folder: _Folder, prefix: str, after: str) -> Iterator[Entry]:
    """Yield the files below ``folder`` whose path is greater than ``after``, in order."""
    keys = (
        f"{name}/" if isinstance(node, _Folder) else name for name, node in folder.entries.items()
    )
    # With a slash, a folder sorts like the paths below it: a-b, then a/b, then a0.
    for key in sorted(keys):
        path = prefix + key
        node = folder.entries[key.rstrip("/")]
        if isinstance(node, MemoryFile):
            if path > after:
                yield _entry(path, node)
        elif path > after or after.startswith(path):
            yield from _files(node, path, after)
