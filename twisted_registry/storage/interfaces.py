"""What a storage driver promises.

A driver keeps bytes under paths and knows nothing of registries. A path is relative to the
driver's root: components joined by ``/``, no leading or trailing slash, none of them empty,
longer than 255 bytes of UTF-8 or with control characters, and none that begins with a dot:
such names are the drivers' own and are never listed. The root itself is the empty string.
:mod:`twisted_registry.storage.checked` keeps that grammar, so that a driver may rely on it.

Drivers answer with Deferreds, never block the reactor, and raise the errors below and no
others. Bytes stream through the readers and writers of :mod:`~twisted_registry.storage.streams`.
"""

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from attrs import field, frozen
from zope.interface import Attribute, Interface

from twisted_registry.storage.paths import is_path_uncached

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.streams import IReader, IWriter


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
