"""Interfaces, value types and errors of storage drivers.

A driver stores bytes under paths. It knows nothing of registries. :class:`IStorageDriver` has the
methods that every driver needs. What only some stores can do, or do faster, is in small optional
interfaces: :class:`IFastLookup`, :class:`IBulkLookup`, :class:`IFolders`, :class:`ILeftovers`,
:class:`IPresigner`, :class:`IHostLock`, :class:`IReserve` and :class:`IMarkerListing`. Users of a
driver adapt it, ``IBulkLookup(driver, None)``, when they are made;
``twisted_registry.storage.fallbacks`` does that and has a substitute for each. A driver that
wraps another one answers for it by ``__conform__`` (see :data:`OPTIONAL_INTERFACES`).

A path is relative to the driver's root: components joined by ``/``, without a leading or trailing
slash. A component is not empty, has at most 255 bytes of UTF-8 and no control characters, and does
not begin with a dot: such names belong to the drivers and are never listed. The root itself is the
empty string. :class:`~twisted_registry.storage.checked.CheckedDriver` enforces this grammar, so
drivers can rely on it.

Drivers return Deferreds, never block the reactor, and raise only the errors below.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from attrs import field, frozen
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

_T = TypeVar("_T")

_NAME = r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*"
_PATH_PATTERN = re.compile(rf"{_NAME}(?:/{_NAME})*")
_NAME_PATTERN = re.compile(_NAME)
#: Limit of a component on every common file system.
_MAX_NAME_BYTES = 255
_MAX_CACHED_PATHS = 1024


def is_name(name: str) -> bool:
    """Return whether ``name`` can be a component of a path."""
    return _NAME_PATTERN.fullmatch(name) is not None and _is_text(name)


@lru_cache(maxsize=_MAX_CACHED_PATHS)
def is_path(path: str) -> bool:
    """Return whether ``path`` is valid and is not the root."""
    return _PATH_PATTERN.fullmatch(path) is not None and _is_text(path) and not _has_long_name(path)


def _is_text(path: str) -> bool:
    # Surrogates stand for bytes that are not UTF-8. Excluding them in the patterns above would
    # make compiling the patterns slow.
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_long_name(path: str) -> bool:
    # A character takes one to four bytes, so most paths need no second check.
    most = len(path) if path.isascii() else len(path) * 4
    return most > _MAX_NAME_BYTES and any(
        len(name.encode()) > _MAX_NAME_BYTES for name in path.split("/")
    )


@frozen(eq=False)
class StorageError(Exception):
    """The driver failed to do something.

    :ivar path: the path of the call.
    :ivar reason: the cause, for the log.
    :ivar full: whether the store has no space left.
    """

    path: str
    reason: str = ""
    full: bool = False

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.reason}" if self.reason else self.path or "/"


class PathNotFound(StorageError):
    """Nothing is stored under this path."""


class PathExists(StorageError):
    """Something is already stored under this path."""


class PathInvalid(StorageError):
    """The path breaks the grammar, or is a folder where a file is needed, or the reverse."""


class WriterBusy(StorageError):
    """Another writer has locked this path."""


@frozen(eq=False)
class OffsetInvalid(StorageError):
    """The file cannot be read or continued at this offset.

    :ivar size: bytes that are stored.
    """

    size: int = field(default=0, kw_only=True)


class MoveRefused(StorageError):
    """The ``still`` callback vetoed the move."""


class FileTooLarge(StorageError):
    """The file is larger than the driver can store."""


class MethodUnsupported(StorageError):
    """The driver does not support this (``presign`` of a method, ``create`` on some stores)."""


@frozen
class Entry:
    """A file or folder.

    :ivar path: from ``list``: the name inside the folder; otherwise the whole path.
    :ivar size: bytes; None for a folder.
    :ivar modified: nanoseconds since the epoch, or None if the store has no time. The time of a
        folder changes when an entry is added or removed, on drivers that have one for folders.
    """

    path: str
    size: int | None
    modified: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder (on object stores: a common prefix)."""
        return self.size is None

    @property
    def modified_s(self) -> float | None:
        """The time in seconds since the epoch, or None."""
        return None if self.modified is None else self.modified / 1e9


def _validate_path(_: object, __: object, path: str) -> None:
    if not is_path(path):
        raise PathInvalid(path, "is not a path")


@frozen
class Put:
    """A change: store a small file durably, as :meth:`IStorageDriver.put` does.

    :raises PathInvalid: if the path breaks the grammar; the other changes do so too.
    """

    path: str = field(validator=_validate_path)
    content: bytes


@frozen
class Move:
    """A change: move a file, as :meth:`IStorageDriver.move` does.

    :ivar sha256: hexadecimal SHA-256 of the file, if the caller knows it: a driver that sends the
        file somewhere then need not compute it.
    """

    source: str = field(validator=_validate_path)
    destination: str = field(validator=_validate_path)
    sha256: str = ""


@frozen
class Remove:
    """A change: delete a file or folder if it exists. A power cut may bring it back."""

    path: str = field(validator=_validate_path)


Change = Put | Move | Remove


class FileVersion(NamedTuple):
    """The state of a file, from :meth:`IFastLookup.peek`.

    :ivar size: bytes.
    :ivar identity: equal as long as the path names the same, unchanged file.
    """

    size: int
    identity: object


class IReader(Interface):
    """An open range of a file. It stays readable when the path is moved or deleted."""

    size: int = Attribute("Bytes that deliver() writes.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Write the whole range to ``consumer`` as a push producer, and close.

        Cancelling the Deferred stops at once and closes. The Deferred fails with a
        ``StorageError`` if fewer bytes than ``size`` can be read; what can be read is written
        before.
        """

    def feed(observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with the whole range, in order, and close.

        The calls are made on the thread that reads, which is the best place to compute a hash.
        The Deferred fails and can be cancelled like that of :meth:`deliver`.
        """

    def close() -> None:
        """Free all resources and cancel a running delivery. Safe to call twice."""


class ILocalFileReader(IReader):
    """A reader of a file of this machine, which the kernel can copy (``sendfile``)."""

    def fileno() -> int:
        """Return the descriptor of the file.

        It belongs to the reader and is valid until the reader is closed. Its position is not
        used: read at offsets.
        """

    def offset() -> int:
        """Return where in the file the range begins."""


class IWriter(IConsumer):
    """The only writer of a path.

    ``write`` never blocks. The registered producer (push only) is paused while more than a few MiB
    wait to be stored. It is stopped when storing fails. The error is raised by the next ``flush``,
    ``commit`` or ``close``, and by every later ``flush`` and ``commit``; ``size`` then counts the
    bytes that are stored. The path is locked until ``close`` or ``cancel``; both free everything
    even if they fail.
    """

    size: int = Attribute("Bytes under the path, including those that wait to be stored.")
    content_id: str = Attribute(
        "Identifies the stored bytes, once ``flush`` or ``commit`` has fired: a later writer with"
        " the same value continues the same bytes. Empty if no other writer can interfere."
    )

    def flush() -> Deferred[int]:
        """Fire with the size once all bytes written so far are stored, readable and durable."""

    def commit() -> Deferred[int]:
        """Declare the file complete; fire with its size once its bytes are durable.

        Nothing may be written after this. The file can be read, moved or deleted while the writer
        still locks the path. Its name is durable once it is moved (or after ``flush``): a name
        that does not stay need not be synced.
        """

    def finalize(decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Commit, make the changes that ``decide`` returns, close; fire with the size.

        Drivers do this in one step where that saves time. ``decide`` is called with the size, on
        the thread that stores, after all bytes are stored and observed. The changes are made in
        order, while this path is locked, and are durable when the Deferred fires; the changes
        before a ``Remove`` are durable before it is made. The first error stops. If a change or
        ``decide`` fails, the Deferred fails and the writer is still open.
        """

    def close() -> Deferred[int]:
        """Stop writing, keep the stored bytes for a later writer, and unlock.

        All written bytes are stored, but only ``flush`` and ``commit`` make them durable. Safe to
        call after any of them, and twice.
        """

    def cancel() -> Deferred[None]:
        """Stop writing, delete the file, and unlock."""


class IDirectWriter(IWriter):
    """A writer that can read from a source itself, on the thread that stores."""

    append_from: Callable[[object], Deferred[None] | None] | None = Attribute(
        "None while reading directly is not faster than ``write``. Otherwise a function: it"
        " appends what a source has, after all that was written; nothing may be written until"
        " its Deferred fires, which it always does with None. It returns None if the writer"
        " takes nothing more. The source has ``read_into(memoryview)``, which is called on a"
        " thread and returns how many bytes it stored in the buffer, and the attribute"
        " ``finished``: true when the source has no more bytes for now; the writer sets it to"
        " end the reading."
    )


class IStorageDriver(Interface):
    """Bytes under paths: the methods of every driver."""

    name: str = Attribute("The driver's name in the configuration: filesystem, inmemory, s3.")
    min_chunk_bytes: int = Attribute(
        "Minimum bytes of each write of an upload except the last; 0 for no minimum."
    )

    def get(path: str, limit: int) -> Deferred[bytes]:
        """Fire with the whole content of a small file.

        :param limit: bytes; a larger file is a :class:`StorageError`.
        :raises PathNotFound: if there is no such file.
        """

    def put(path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:
        """Store a small file atomically, replacing an existing one.

        A reader never sees a part of it.

        :param durable: whether the file must survive a power cut once the Deferred fires. If
            false, a power cut (but not a crash of this process) may lose or empty it.
        """

    def create(path: str, content: bytes) -> Deferred[None]:
        """Store a small file if the path is free, as durably as ``put``.

        :raises PathExists: if the path is taken; of several concurrent calls, one succeeds.
        :raises MethodUnsupported: if the store cannot do this atomically.
        """

    def stat(path: str) -> Deferred[Entry]:
        """Fire with size and time of a file or folder.

        :raises PathNotFound: if there is nothing.
        """

    def open(path: str, offset: int = 0, length: int | None = None) -> Deferred[IReader]:
        """Open a range of a file for reading.

        The reader may provide :class:`ILocalFileReader`.

        :param offset: where the range begins, at most the size of the file.
        :param length: bytes, truncated at the end of the file; None means up to the end.
        :raises PathNotFound: if there is no such file.
        :raises OffsetInvalid: if the offset is beyond the end.
        """

    def writer(
        path: str,
        offset: int | None = None,
        observe: Callable[[bytes], object] | None = None,
        *,
        destination: str | None = None,
        present: str | None = None,
        absent: str | None = None,
    ) -> Deferred[IWriter]:
        """Begin or continue a file.

        The writer may provide :class:`IDirectWriter`.

        :param offset: the expected size of the file, 0 for a new one; None continues at its end.
        :param observe: called with all written bytes, in order, in pieces of any length, after
            they are stored and on the thread that stores them, which is the best place to compute
            a hash. After a failure the observer is up to date if it has seen as many bytes as
            ``size`` counts, and unusable otherwise.
        :param destination: where the caller will move the file, if it is a new file that is
            written completely by this writer. A store that cannot rename prepares the file there,
            invisible. The file may then be moved nowhere else, and may neither exist nor be
            readable under ``path``; ``flush`` may keep nothing, and fires with the size it kept.
        :param present: the path of a file in the same folder that must exist.
        :param absent: the path of a file in the same folder that must not exist. Both are checked
            after this path is locked.
        :raises PathNotFound: if ``present`` or ``absent`` is not as required. An empty file under
            ``path`` is then deleted: this call may have made it.
        :raises OffsetInvalid: if the size is not ``offset``; a missing file has size 0.
        :raises WriterBusy: while another writer, of any process, has locked the path.
        """

    def copy(source: str, destination: str) -> Deferred[None]:
        """Copy a file atomically and durably, replacing the destination.

        :raises PathNotFound: if there is no source.
        """

    def move(
        source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Move a file atomically, replacing the destination; it stays as durable as it was.

        A committed file is durable under its new name once the Deferred fires. It gets the new
        name before it loses the old one, or at the same moment.

        :param still: called on any thread as the last step that does not take long. If it returns
            false, the source stays and the destination is unchanged.
        :raises PathNotFound: if there is no source.
        :raises MoveRefused: if ``still`` returned false.
        """

    def delete(path: str, *, durable: bool = True) -> Deferred[None]:
        """Delete a file, or a folder with all its content.

        A folder disappears atomically where the store can do that. Parent folders that become
        empty may stay or be deleted.

        :param durable: whether a power cut must not bring it back.
        :raises PathNotFound: if there is nothing.
        """

    def list(path: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the entries of a folder, sorted by name (code points).

        :param after: only names greater than this.
        :param limit: maximum number; fewer mean that there are no more.
        :raises PathNotFound: if there is no such folder; object stores cannot distinguish an empty
            folder from none.
        """

    def walk(prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder, at any depth, sorted by whole path.

        :param prefix: the folder; one that does not exist has no files.
        :param after: only paths greater than this.
        :param limit: maximum number; fewer mean that there are no more.
        """

    def close() -> Deferred[None]:
        """Free threads and connections. Writers and readers must be closed before."""


class IFastLookup(Interface):
    """Optional: synchronous checks of files, on the reactor's thread, that never wait."""

    def peek(path: str) -> FileVersion | None:
        """Return the state of a file.

        None if there is no such file, if it is so new that a later change could go unnoticed, or
        if the driver would have to wait: call ``stat`` or ``get``.
        """

    def validate(versions: Sequence[tuple[str, FileVersion]]) -> bool:
        """Return whether all of some files are unchanged.

        :param versions: paths, and what :meth:`peek` returned for each.
        :returns: false also if the driver would have to wait.
        """

    def open_cached(path: str, version: FileVersion) -> IReader | None:
        """Open a whole file that :meth:`validate` has just found unchanged.

        :returns: None if the driver would have to wait: call ``open``.
        """


class IBulkLookup(Interface):
    """Optional: operations on many paths in one call, and listings of folders."""

    def get_many(paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files, in the order of ``paths``.

        A missing file is None. Meant for some thousands of paths at a time.

        :param limit: bytes of each; a larger file is a :class:`StorageError`.
        """

    def delete_many(paths: Sequence[str]) -> Deferred[None]:
        """Delete files; missing ones are skipped.

        All are tried before an error is raised.
        """

    def list_folders(
        path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> Deferred[Sequence[str]]:
        """Fire with the names of the folders in a folder, sorted (code points).

        A driver may cache the names as long as it can detect changes.

        :param after: only names greater than this.
        :param limit: maximum number; fewer mean that there are no more.
        :param containing: only folders that contain a file of at least one byte under this path
            inside them. A file that is stored is seen by the next call. If it is removed or
            emptied while its folder stays, that may be seen only after a folder is added to or
            removed from ``path``; so remove its folder with it, as the registry does with tags.
        :raises PathNotFound: if there is no such folder; object stores cannot distinguish an empty
            folder from none.
        """

    def list_folders_many(paths: Sequence[str], limit: int) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in each of many folders, in the order of ``paths``.

        A missing folder has none. Meant for about a thousand paths at a time.

        :param limit: maximum number of names of each; fewer mean that there are no more.
        """


class IFolders(Interface):
    """Optional: a store where empty folders exist."""

    def prune(paths: Sequence[str]) -> Deferred[None]:
        """Delete those folders that are empty, in the order given; all other paths are skipped.

        A power cut may bring them back.
        """


class ILeftovers(Interface):
    """Optional: a store in which a crash leaves data under no path."""

    def remove_leftovers(before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Delete what interrupted calls have left where no path leads.

        :param before: seconds since the epoch; what changed later may be in use, and stays.
        :param dry_run: delete nothing.
        :returns: number of files, folders or unfinished transfers that are deleted, or would be.
        """


class IPresigner(Interface):
    """Optional: a store that clients can reach by URL."""

    def presign(path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Fire with a URL that permits ``method`` on the file without further authentication.

        :param expires: seconds.
        :param client: the address of the client, for stores that are reached in several ways;
            empty if it is not known.
        :raises MethodUnsupported: if there is no URL for this method.
        """


class IHostLock(Interface):
    """Optional: locks between the processes of this host."""

    def lock(name: str) -> Deferred[Callable[[], object]]:
        """Wait until no other process of this host has the lock ``name``, and take it.

        Callers of the same process must exclude each other themselves. A caller may hold only one
        lock at a time.

        :param name: any text.
        :returns: fires with a function that releases the lock and does not block.
        :raises StorageError: if another process keeps the lock for too long.
        """


class IReserve(Interface):
    """Optional: a store with reserved space, which only operations that free space use."""

    privileged: IStorageDriver = Attribute(
        "The same store, with methods that use the reserve when the disk is full. For small files"
        " that a deletion needs, never for content. Do not close it."
    )

    def refill(*, create: bool = True) -> Deferred[bool]:
        """Fill the reserve again, as far as there is space.

        :param create: whether to make a reserve if there never was one.
        :returns: fires with whether the reserve is complete.
        """


class IMarkerListing(Interface):
    """Optional: a store that finds folders by marker without walking the tree."""

    def list_marked(
        path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Fire with the folders, at any depth, that contain a marker.

        They are paths relative to ``path``, sorted. The flag says whether there may be more; it
        is reliable only if it is false. Fires with None if the store turns out not to support
        this: walk instead. Callers that must not miss a folder always walk, because this relies
        on a less common feature of the store.

        :param sign: the prefix of the names of all markers. Folders with other names that begin
            with it do not count.
        :param marks: names of folders of which one is enough.
        :param after: only paths greater than this.
        :param limit: maximum number, at least 1.
        """


#: The optional interfaces of drivers. A driver that wraps another one returns, from
#: ``__conform__``, its own implementation of these, or that of the driver inside, or None.
OPTIONAL_INTERFACES = frozenset(
    {
        *(IFastLookup, IBulkLookup, IFolders, ILeftovers, IPresigner, IHostLock, IReserve),
        IMarkerListing,
    }
)


#: Names of driver calls in Distribution's metrics and traces.
DISTRIBUTION_ACTIONS = {
    "get": "GetContent",
    "put": "PutContent",
    "stat": "Stat",
    "list": "List",
    "move": "Move",
    "delete": "Delete",
    "open": "Reader",
    "writer": "Writer",
    "walk": "Walk",
    "presign": "RedirectURL",
}


class IStorageObserver(Interface):
    """Receives the duration of every call to a driver, usually for metrics."""

    def call_ended(driver: str, action: str, seconds: float, failed: bool) -> None:  # noqa: FBT001
        """Record a call that has ended.

        :param driver: the driver's name.
        :param action: a name for the method.
        :param seconds: from the call until its Deferred fired; for ``open`` and ``writer`` until
            the stream was open.
        :param failed: whether the store is broken. That something is missing, exists or is locked
            is a result, not a failure.
        """


class IStorageTracer(Interface):
    """Makes a span of every call to a driver that a traced request causes."""

    def run(
        driver: str,
        action: str,
        path: str,
        call: Callable[[], Deferred[_T]],
        is_breakdown: Callable[[BaseException | None], bool],
    ) -> Deferred[_T]:
        """Make a call, and return its result.

        :param driver: the driver's name.
        :param action: a name for the method.
        :param path: what the call is about; empty for the root or if it is about several.
        :param call: calls the driver; it may raise.
        :param is_breakdown: whether an error means that the store is broken.
        """
