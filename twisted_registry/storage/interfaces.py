"""What a storage driver promises.

A driver keeps bytes under paths and knows nothing of registries. A path is relative to the
driver's root: components joined by ``/``, no leading or trailing slash, none of them empty,
longer than 255 bytes of UTF-8 or with control characters, and none that begins with a dot:
such names are the drivers' own and are never listed. The root itself is the empty string.
:mod:`twisted_registry.storage.checked` keeps that grammar, so that a driver may rely on it.

Drivers answer with Deferreds, never block the reactor, and raise the errors below and no
others. Bytes stream through the readers and writers of :mod:`~twisted_registry.storage.interfaces`.

The grammar of storage paths.

What readers and writers promise: how the bytes of a driver's files stream.

See :mod:`twisted_registry.storage.interfaces` for drivers, paths and errors.

Who is told how long storage takes: metrics, usually.

What drivers whose folders are near do alike.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    # @@EMPTY

#: Names that begin with a dot are the drivers' own.
_NAME = r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*"
_PATH_PATTERN = re.compile(rf"{_NAME}(?:/{_NAME})*")
_NAME_PATTERN = re.compile(_NAME)
#: Bytes of a component, on every common file system.
_MAX_NAME_BYTES = 255


def is_name(name: str) -> bool:
    """Whether ``name`` can be a component of a path."""
    return _NAME_PATTERN.fullmatch(name) is not None and _is_text(name)


def is_path_uncached(path: str) -> bool:
    """Whether ``path`` names something below the root of a driver: for one of very many."""
    return _PATH_PATTERN.fullmatch(path) is not None and _is_text(path) and not _has_long_name(path)


#: The same for paths that are asked for again and again.
is_path = lru_cache(maxsize=16384)(is_path_uncached)


def _is_text(path: str) -> bool:
    # Surrogates stand for bytes that are no UTF-8. To look for them by the patterns above would
    # take 1 to 2 ms at each start, for the tables that such patterns need.
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_long_name(path: str) -> bool:
    # A character takes one byte or four at most: most paths need no second look.
    most = len(path) if path.isascii() else len(path) * 4
    return most > _MAX_NAME_BYTES and any(
        len(name.encode()) > _MAX_NAME_BYTES for name in path.split("/")
    )


# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"


@frozen(eq=False)
class StorageError(Exception):
    """Something that the driver could not do.

    :ivar path: the path that it was asked for.
    :ivar reason: a sentence for the log.
    :ivar full: whether the store has no room left.
    """

    path: str
    reason: str = ""
    full: bool = False

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.reason}" if self.reason else self.path or "/"


class PathNotFound(StorageError):
    """Nothing is stored under this path."""


class PathExists(StorageError):
    """Something is stored under this path already."""


class PathInvalid(StorageError):
    """The path breaks the grammar, or is a folder where a file was meant, or the reverse."""


class WriterBusy(StorageError):
    """Another writer holds this path."""


@frozen(eq=False)
class OffsetInvalid(StorageError):
    """The offset is not one where this path can be read or continued.

    :ivar size: how many bytes are stored.
    """

    size: int = field(default=0, kw_only=True)


class MoveRefused(StorageError):
    """Whoever wanted this moved no longer wanted it when it was about to go."""


class MethodUnsupported(StorageError):
    """This driver can not do that (``presign`` of a method, ``create`` on some stores)."""


@frozen
class Entry:
    """What is stored under a path.

    :ivar path: from ``list``: the name inside the folder; elsewhere the whole path.
    :ivar size: bytes; None for a folder.
    :ivar modified: nanoseconds since the epoch, or None if the store does not tell. A folder's
        changes whenever an entry is made or removed in it, on drivers that tell it at all.
    """

    path: str
    size: int | None
    modified: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder (on object stores: a common prefix)."""
        return self.size is None


def _validate_path(_: object, __: object, path: str) -> None:
    if not is_path_uncached(path):
        raise PathInvalid(path, "is not a path")


@frozen
class Put:
    """A change: store a small file, as :meth:`IStorageDriver.put` does, durably.

    :raises PathInvalid: if the path breaks the grammar; likewise of the other changes.
    """

    path: str = field(validator=_validate_path)
    content: bytes


@frozen
class Move:
    """A change: move a file, as :meth:`IStorageDriver.move` does."""

    source: str = field(validator=_validate_path)
    destination: str = field(validator=_validate_path)


@frozen
class Remove:
    """A change: remove a file or folder if it is there. A power cut may bring it back."""

    path: str = field(validator=_validate_path)


Change = Put | Move | Remove


class FileVersion(NamedTuple):
    """What one look at a file told.

    :ivar size: bytes.
    :ivar mark: as long as the file under a path is the same, so is this.
    """

    size: int
    identity: object


class IStorageDriver(Interface):
    """Bytes under paths."""

    name: str = Attribute("What the configuration calls this driver: filesystem, inmemory, s3.")
    presigns: bool = Attribute("Whether presign() has a URL for any method at all.")
    min_chunk_bytes: int = Attribute(
        "Bytes that each write of an upload but the last should have at least; 0 if any will do."
    )

    def get(path: str, limit: int) -> Deferred[bytes]:
        """Fire with the whole content of a small file.

        :param limit: bytes; a larger file is a :class:`StorageError`.
        :raises PathNotFound: if there is no such file.
        """

    def get_many(paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files, in the order asked for.

        None stands for one where there is no such file. Meant for some thousands of paths at a
        time.

        :param limit: bytes of each; a larger file is a :class:`StorageError`.
        """

    def put(path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:
        """Store a small file, replacing what was there, in one step.

        Nobody ever reads a part of it. Unless ``durable`` is false, it survives a power cut
        once the Deferred fires; otherwise a power cut (not a crash of this process) may lose it
        or leave it empty.
        """

    def create(path: str, content: bytes) -> Deferred[None]:
        """Store a small file where there is none, as durably as ``put``.

        :raises PathExists: if there is one; of several that race, one succeeds.
        """

    def stat(path: str) -> Deferred[Entry]:
        """Fire with size and time of a file or folder.

        :raises PathNotFound: if there is nothing.
        """

    def peek(path: str) -> FileVersion | None:
        """Look at a file at once, on the reactor's thread.

        None if there is no such file, if it is so fresh that a change might not be told from it,
        or if the driver would have to wait: whoever gets None asks :meth:`stat` or :meth:`get`.
        """

    def validate(versions: Sequence[tuple[str, FileVersion]]) -> bool:
        """Whether all of some files look as :meth:`peek` saw them before.

        :param looks: their paths, and what was seen of each.
        :returns: False also if the driver would have to wait.
        """

    def open_cached(path: str, version: FileVersion) -> IReader | None:
        """Open the whole of a file that was found :meth:`validate` just now, at once.

        :param seen: how it looks.
        :returns: None if the driver would have to wait: ask :meth:`open`.
        """

    def copy(source: str, destination: str) -> Deferred[None]:
        """Copy a file, replacing the destination in one step, durably.

        :raises PathNotFound: if there is no source.
        """

    def move(
        source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Move a file, replacing the destination in one step, as durable as it was.

        A committed file is power-cut proof under its new name once the Deferred fires; it has
        its new name before it loses the old one, or both in one step.

        :param still: asked, on whatever thread, when nothing is left to do that takes long; if
            it says no, the source stays, and the destination is as if it had not been moved to.
        :raises PathNotFound: if there is no source.
        :raises MoveRefused: if ``still`` said no.
        """

    def delete(path: str, *, durable: bool = True) -> Deferred[None]:
        """Remove a file, or a folder with all that is in it.

        Unless ``durable`` is false, it does not come back when the power is cut.
        A folder vanishes in one step where the store can do that. Folders that this leaves
        empty may stay or go.

        :raises PathNotFound: if there is nothing.
        """

    def prune(paths: Sequence[str]) -> Deferred[None]:
        """Remove folders that are empty, in the order given; others, and what is none, stay.

        A power cut may bring them back. On a store without folders there is nothing to do.
        """

    def delete_many(paths: Sequence[str]) -> Deferred[None]:
        """Remove files; those that are not there are passed over.

        Every one is tried before an error is raised.
        """

    def open(path: str, offset: int = 0, length: int | None = None) -> Deferred[IReader]:
        """Open a stretch of a file for reading.

        :param offset: where to begin, at most the file's size.
        :param length: bytes; cut at the end of the file; None is all that remains.
        :raises PathNotFound: if there is no such file.
        :raises OffsetInvalid: if the offset lies beyond the end.
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

        :param offset: the size that the caller believes the file to have, 0 for a new one;
            None continues where it ends.
        :param observe: called with all that is written, in order, in runs of any length, on the
            thread that stores it, after it is stored: where a hash is best computed. After a
            failure it is up to date if it has seen as many bytes as ``size`` counts, and void
            otherwise.
        :param destination: where the caller will move the file, if he begins it now, writes all
            of it, and knows. A store without renames prepares it there, unseen by anybody. The
            file may then be moved nowhere else, and may be neither there nor readable under
            ``path``; ``flush`` may keep nothing of it, and tell so.
        :param present: the path of a file in the same folder that must be there.
        :param absent: likewise of one that must not. Both are looked at when this path is locked.
        :raises PathNotFound: if one of them is otherwise. A file that has no bytes is removed
            then: it may have been made just now.
        :raises OffsetInvalid: if the file has another size than ``offset``; one that is not
            there has none.
        :raises WriterBusy: while another writer, of any process, holds the path.
        """

    def remove_leftovers(before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Remove what calls that a crash cut off have left where no path leads.

        :param before: seconds since the epoch; what changed later may be in use, and stays.
        :param dry_run: remove nothing.
        :returns: how many such files, folders or unfinished transfers are gone, or would be.
        """

    def list(path: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with what lies directly in a folder, sorted by name (code points).

        :param after: only names greater than this.
        :param limit: at most so many; fewer mean that the folder ends here.
        :raises PathNotFound: if there is no such folder; object stores can not tell an empty
            folder from none.
        """

    def list_folders(
        path: str, after: str = "", limit: int = 1000, holding: str = ""
    ) -> Deferred[Sequence[str]]:
        """Fire with the names of the folders directly in a folder, sorted (code points).

        What :meth:`list` tells of folders, for those who ask again and again: a driver may keep
        the names as long as it can tell that they are the same.

        :param after: only names greater than this.
        :param limit: at most so many; fewer mean that there are no more.
        :param holding: only folders that hold, under this path inside them, a file of at least
            one byte. One that is stored is seen by the next call. If it is removed or emptied
            while its folder stays, that may be seen only when a folder is made or removed in
            ``path``: whoever takes it away removes its folder, as the registry does with tags.
        :raises PathNotFound: if there is no such folder; object stores can not tell an empty
            folder from none.
        """

    def list_folders_many(paths: Sequence[str], limit: int) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in each of many, in the order asked for.

        For a path where there is no folder there are none. Meant for about a thousand paths at
        a time.

        :param limit: names of each at most; fewer mean that there are no more.
        """

    def list_marked(
        path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Fire with the folders at any depth that hold a marked one, if that needs no walk.

        They come as paths from ``path`` on, sorted, and with whether there may be more, which is
        sure only where it is false. None says: walk. So does a driver to which folders are near,
        and one whose store turns out not to be able to.

        What must not miss any folder walks in any case: this relies on a less common ability of
        the store.

        :param sign: what the names of all marks begin with. Folders that hold others do not.
        :param marks: names of folders of which one is enough.
        :param after: only paths greater than this.
        :param limit: at most so many, and at least 1.
        """

    def walk(prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder, at any depth, sorted by whole path.

        :param prefix: the folder; one that is not there holds nothing.
        :param after: only paths greater than this.
        :param limit: at most so many; fewer mean that there are no more.
        """

    def presign(path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method`` on the file without us.

        :param expires: seconds.
        :param client: the address of whoever will use it, for stores that are reached in several
            ways; empty if it is not known.
        :raises MethodUnsupported: if the driver has no URLs, or none for this method.
        """

    def lock(name: str) -> Deferred[Callable[[], object] | None]:
        """Keep other processes of this host that ask for the same name waiting.

        Fires with what lets go, which does not block; with None where no other process of this
        host can be kept waiting. Within this process the caller sees to it himself. Nobody may
        hold a second name.

        :param name: any text.
        :raises StorageError: if another process does not let go for long.
        """

    def close() -> Deferred[None]:
        """Free threads and connections; writers and readers must be closed before."""


# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"


class IReader(Interface):
    """An open stretch of a file. It stays readable when the path is moved or deleted."""

    size: int = Attribute("Bytes that deliver() will write.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Write the whole stretch to ``consumer`` as a push producer, and close.

        Cancelling the Deferred stops at once and closes. It fails with a ``StorageError`` if fewer
        bytes than ``size`` could be read, after what there was has been written.
        """

    def feed(observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with the whole stretch, in order, and close.

        The calls are made on the thread that reads: where a hash is best computed. Fails and
        cancels as :meth:`deliver` does.
        """

    def fileno() -> int | None:
        """Return a descriptor of a local file for a kernel copy, or None.

        It belongs to the reader, whose position it does not use: read with offsets.
        """

    def offset() -> int:
        """Return where in the file of :meth:`fileno` the stretch begins."""

    def close() -> None:
        """Free what is held, and cancel what is under way. Safe to call twice."""


class IWriter(IConsumer):
    """The one writer of a path.

    ``write`` never blocks. The registered producer (push only) is paused while more than a
    few MiB wait to be stored, and told to stop when storing fails; the error itself comes
    from the next ``flush``, ``commit`` or ``close``, and from every later ``flush`` and
    ``commit``; ``size`` is then what is stored. The path is locked until ``close`` or
    ``cancel``, which free everything even when they fail.
    """

    size: int = Attribute("Bytes under the path, those still in flight included.")
    mark: str = Attribute(
        "Which bytes are stored, once ``flush`` or ``commit`` has fired: a writer that finds the"
        " same mark finds the same bytes. Where no other writer can come between: always empty."
    )

    def flush() -> Deferred[int]:
        """Fire with the size once all written so far is stored, readable and power-cut proof."""

    def commit() -> Deferred[int]:
        """Declare the file whole, and fire with the size once its bytes are power-cut proof.

        Nothing more will be written. The file can be read, moved or deleted while the writer
        still keeps others away; its name is power-cut proof once it is moved (or after
        ``flush``), which saves syncing a name that does not stay.
        """

    def finalize(decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Commit, make the changes that ``decide`` answers, close; fire with the size.

        All in one go where that saves time. ``decide`` is called with the size, on the thread
        that stores, when everything is stored and was observed. The changes are made in order,
        under the lock of this path, and are power-cut proof when the Deferred fires; before a
        ``Remove`` what stands before it is. The first that fails ends it. If that, or an
        exception of ``decide``, fails the Deferred, the writer is still open.
        """

    def close() -> Deferred[int]:
        """Stop writing, keep what is stored for a later writer, and unlock.

        What was written is stored, but only ``flush`` and ``commit`` make it last. Safe to call
        after any of them, and twice.
        """

    def cancel() -> Deferred[None]:
        """Stop writing, remove the file, and unlock."""


# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805


class IStorageObserver(Interface):
    """Told of every call to a driver."""

    def call_ended(driver: str, action: str, seconds: float, failed: bool) -> None:  # noqa: FBT001
        """Take note of a call that has ended.

        :param driver: the driver's name.
        :param action: the method's name.
        :param seconds: from the call until its Deferred fired; for ``open`` and ``writer`` until
            the stream was open.
        :param failed: whether the store broke down. That something is not there, exists or is
            busy is an answer, not a failure.
        """


class NearFolders:
    """A part of an IStorageDriver: a look into a folder costs too little to be saved."""

    def list_marked(
        self,
        path: str,  # noqa: ARG002
        sign: str,  # noqa: ARG002
        marks: Sequence[str],  # noqa: ARG002
        after: str,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Say to walk: folders are near."""
        return succeed(None)
