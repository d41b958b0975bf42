"""Durable changes to a tree of files. All functions and methods block: call them on a thread.

A new file is written under a hidden name, synced and renamed (:class:`AtomicFile`), so a path never
names an incomplete file. Then its entry is made durable (:class:`DirSyncer`).

An entry is durable once its folder is synced, and the entry of that folder in its parent, and so on
up to the root. A process that finds an existing folder cannot know whether the thread or process
that made it has already synced it. So each process syncs every folder once, and remembers which
folders it need not sync again.

A rename between two folders is assumed to be atomic on the disk, as it is on every file system with
a journal: once the new name is durable, the old one is gone.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import ExitStack, suppress
from copy import copy
from secrets import token_hex
from typing import TYPE_CHECKING, Self, TypeVar

from twisted_registry.storage.filesystem.oscalls import (
    DISK_FULL_ERRNOS,
    OSCalls,
    translate_oserror,
)
from twisted_registry.storage.interfaces import (
    MoveRefused,
    PathExists,
    PathInvalid,
    PathNotFound,
    Put,
    Remove,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted_registry.storage.filesystem.reserve import Reserve
    from twisted_registry.storage.interfaces import Change

_T = TypeVar("_T")

#: Folders that are remembered as synced: about 200 bytes each.
MAX_SYNCED_FOLDERS = 10_000
#: How often a write whose folder is deleted meanwhile makes the folder again.
MAX_ATTEMPTS = 100
#: Nothing there: no such name, a path through a file, cyclic links.
NOT_FOUND_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
#: The folder in which registries keep secrets. Only the owner may enter it, and its small files are
#: readable for the owner only.
PRIVATE_FOLDER = "twisted-registry"
PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
_FOLDER_MODE = 0o777
_FILE_MODE = 0o666
_COPY_CHUNK_BYTES = 64 * 1024 * 1024
_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}\.tmp", re.ASCII)


def temporary_name() -> str:
    """Return a new random name for a hidden file or folder; it begins with a dot."""
    return f".{token_hex(8)}.tmp"


def is_temporary_name(name: str) -> bool:
    """Return whether :func:`temporary_name` makes names of this form."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def file_identity(found: os.stat_result) -> tuple[int, int]:
    """Return what distinguishes a file or folder from all others, whatever its name is."""
    return found.st_dev, found.st_ino


def parent_of(path: str) -> str:
    """Return the folder of a path."""
    return path.rpartition("/")[0]


def write_all(files: OSCalls, fd: int, content: bytes, offset: int) -> None:
    """Write all bytes at an offset."""
    rest = memoryview(content)
    while rest:
        taken = files.pwrite(fd, rest, offset)
        rest = rest[taken:]
        offset += taken


class DirSyncer:
    """Makes entries below a root folder durable, and syncs no folder without need.

    :ivar root: the absolute path of the folder.
    :ivar files: the operating system.
    """

    def __init__(
        self, root: str, files: OSCalls, max_synced_folders: int = MAX_SYNCED_FOLDERS
    ) -> None:
        self.root = root
        self.files = files
        self._max_synced_folders = max_synced_folders
        self._synced: dict[str, tuple[int, int]] = {}

    @property
    def synced_folders(self) -> int:
        """Number of folders that are remembered as synced."""
        return len(self._synced)

    def fsync_entries(self, paths: Iterable[str]) -> None:
        """Make the entries of ``paths`` durable, and those of the folders above them.

        It syncs from the top down, so that no entry is durable in a folder that is not.
        """
        due: set[str] = set()
        fresh: dict[str, tuple[int, int]] = {}
        for path in paths:
            # If the folder is deleted meanwhile, so is the entry.
            with suppress(FileNotFoundError):
                self._look_up(parent_of(path), due, fresh)
        for folder in sorted(due):
            try:
                self.fsync_dir(folder)
            except FileNotFoundError:
                fresh.clear()
        if len(self._synced) + len(fresh) <= self._max_synced_folders:
            self._synced.update(fresh)
        else:
            self._synced.clear()

    def fsync_dir(self, folder: str) -> None:
        """Make the entries of one folder durable."""
        self.fsync_os_path(f"{self.root}/{folder}" if folder else self.root)

    def fsync_removal(self, folder: str) -> None:
        """Make it durable that an entry of a folder was removed; the folder may be gone as well."""
        while True:
            try:
                self.fsync_dir(folder)
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise
                folder = parent_of(folder)
            else:
                return

    def fsync_os_path(self, os_path: str) -> None:
        """Make the entries of any folder of the file system durable."""
        fd = self.files.open(os_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.files.fsync(fd)
        except OSError as error:
            # Some network file systems do not support this.
            if error.errno != errno.EINVAL:
                raise
        finally:
            self.files.close(fd)

    def forget_folder(self, folder: str) -> None:
        """Note that a folder and all below it are deleted: a new one must be synced."""
        # A folder is remembered only together with all those above it.
        if self._synced.pop(folder, None) is not None:
            for known in list(self._synced):
                if known.startswith(f"{folder}/"):
                    self._synced.pop(known, None)

    def _look_up(self, folder: str, due: set[str], fresh: dict[str, tuple[int, int]]) -> None:
        """Collect the folders to sync for an entry in ``folder``.

        :param due: to which they are added.
        :param fresh: to which those are added that were not synced before, with their identity.
        """
        due.add(folder)
        while folder:
            found = self.files.stat(f"{self.root}/{folder}")
            # A folder that was deleted and made again has another identity.
            identity = file_identity(found)
            if self._synced.get(folder) == identity:
                break
            fresh[folder] = identity
            folder = folder.rpartition("/")[0]
            due.add(folder)


class AtomicFile:
    """A context manager: a new file under a hidden name, which is deleted if it is not renamed.

    :ivar files: the operating system.
    :ivar folder: the path of its folder in the file system.
    :ivar mode: its permissions, of which the umask may remove some.
    :ivar path: its hidden name in the file system.
    """

    def __init__(self, files: OSCalls, folder: str, mode: int = _FILE_MODE) -> None:
        self._files = files
        self._folder = folder
        self._mode = mode
        self.path = ""
        self._fd = -1
        self._renamed = False

    def __enter__(self) -> Self:
        self.path = f"{self._folder}/{temporary_name()}"
        self._fd = self._files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, self._mode)
        if self._mode == PRIVATE_FILE_MODE:
            self._files.inherit_owner(self._fd, self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._files.close(self._fd)
        finally:
            if not self._renamed:
                self._remove()

    def write(self, content: bytes) -> None:
        """Write the whole content."""
        write_all(self._files, self._fd, content, 0)

    def copy_from(self, source: int) -> None:
        """Write the content of an open file."""
        while self._files.copy_range(source, self._fd, _COPY_CHUNK_BYTES):
            pass

    def sync(self) -> None:
        """Make the content durable."""
        self._files.fsync(self._fd)

    def rename(self, os_path: str) -> None:
        """Replace the file at ``os_path``."""
        self._files.rename(self.path, os_path)
        self._renamed = True

    def is_at(self, os_path: str) -> bool:
        """Return whether ``os_path`` names this file."""
        mine, found = self._files.fstat(self._fd), self._files.stat(os_path)
        return file_identity(mine) == file_identity(found)

    def _remove(self) -> None:
        # Its folder may be deleted meanwhile.
        with suppress(FileNotFoundError):
            self._files.unlink(self.path)


class FileTree:
    """The files below a root folder. Every method may be called on any thread.

    :ivar root: the absolute path of the folder, which is made when it is first written to.
    :ivar files: the operating system.
    :ivar dir_syncer: makes entries durable.
    :ivar reserve: space for what frees space, or None.
    :ivar is_privileged: whether all changes may use the reserve; otherwise only ``delete`` may.
    :ivar odd_name_logged: whether a name was found and logged that is not valid in paths.
    """

    def __init__(
        self,
        root: str,
        files: OSCalls,
        max_synced_folders: int = MAX_SYNCED_FOLDERS,
        reserve: Reserve | None = None,
    ) -> None:
        self.root = root
        self.files = files
        self.reserve = reserve
        self.is_privileged = False
        self.dir_syncer = DirSyncer(root, files, max_synced_folders)
        self.odd_name_logged = False

    def privileged(self) -> FileTree:
        """Return the same files; all changes of that tree may use the reserve."""
        tree = copy(self)
        tree.is_privileged = True
        return tree

    def os_path(self, path: str) -> str:
        """Return where ``path`` is in the file system."""
        return f"{self.root}/{path}" if path else self.root

    def put(self, path: str, content: bytes, *, durable: bool) -> None:
        """Store a small file atomically.

        A file that has this content already gets a new time if the disk is full.
        """

        def replace() -> None:
            with self._new_small_file(path) as new:
                new.write(content)
                if durable:
                    new.sync()
                    self._publish(path, new)
                else:
                    new.rename(self.os_path(path))

        def attempt() -> None:
            try:
                replace()
            except OSError as error:
                if not (_is_full(error) and self._touch_same(path, content, durable=durable)):
                    raise

        self.retry_with_parents(path, attempt)

    def create(self, path: str, content: bytes) -> None:
        """Store a small file atomically if the path is free."""

        def attempt() -> None:
            with self._new_small_file(path) as new:
                new.write(content)
                new.sync()
                self.files.link(new.path, self.os_path(path))

        try:
            self.files.stat(self.os_path(path))
        except (FileNotFoundError, NotADirectoryError):
            self.retry_with_parents(path, attempt)
            self.dir_syncer.fsync_entries((path,))
        else:
            raise PathExists(path)

    def copy(self, source: str, destination: str) -> None:
        """Copy a file; the destination is replaced atomically.

        If the disk is full, the destination becomes a hard link: only uploads change their content.
        """

        def write() -> None:
            fd, _ = self.open_file(source)
            try:
                with AtomicFile(self.files, self.os_path(parent_of(destination))) as new:
                    new.copy_from(fd)
                    new.sync()
                    new.rename(self.os_path(destination))
            finally:
                self.files.close(fd)

        def attempt() -> None:
            try:
                write()
            except OSError as error:
                if not (_is_full(error) and self._link(source, destination)):
                    raise

        self.retry_with_parents(destination, attempt)
        self.dir_syncer.fsync_entries((destination,))

    def move(self, source: str, destination: str, still: Callable[[], bool] | None = None) -> None:
        """Move a file; it stays durable.

        :raises MoveRefused: if ``still`` returns false.
        """
        self._move(source, destination, still or _always)
        self.dir_syncer.fsync_entries((destination,))

    def delete(self, path: str, *, durable: bool = True) -> None:
        """Delete a file, or a folder, which gets a hidden name first and so disappears at once."""
        os_path = self.os_path(path)
        doomed = ""
        try:
            self.files.unlink(os_path)
        except NotADirectoryError as error:
            raise PathNotFound(path) from error
        except (IsADirectoryError, PermissionError):
            doomed = f"{self.os_path(parent_of(path))}/{temporary_name()}"
            self._use_reserve(lambda: self.files.rename(os_path, doomed))
            self.dir_syncer.forget_folder(path)
        if durable:
            self.dir_syncer.fsync_removal(parent_of(path))
        if doomed:
            self.remove_tree(doomed)

    def change(self, changes: Sequence[Change]) -> None:
        """Make changes in order, each atomically, and sync each folder only once.

        A ``Put`` and a ``Remove`` are made after the changes before them are durable; a ``Remove``
        itself need not be durable. All new content is written under hidden names first: if the
        disk is full, nothing changes.
        """
        with ExitStack() as stack:
            puts = [change for change in changes if isinstance(change, Put)]
            written = {put: self._write_hidden(put, stack) for put in puts}
            self._apply_changes(changes, written)

    def _apply_changes(self, changes: Sequence[Change], written: Mapping[Put, AtomicFile]) -> None:
        made: list[str] = []
        for change in changes:
            if isinstance(change, Remove):
                self.dir_syncer.fsync_entries(made)
                made.clear()
                with suppress(PathNotFound, FileNotFoundError):
                    self.delete(change.path, durable=False)
            elif isinstance(change, Put):
                self.dir_syncer.fsync_entries(made)
                made.clear()
                try:
                    self._publish(change.path, written[change])
                except FileNotFoundError:
                    # Its folder was deleted meanwhile, with the hidden file.
                    self.put(change.path, change.content, durable=True)
            else:
                self._move(change.source, change.destination, _always)
                made.append(change.destination)
        self.dir_syncer.fsync_entries(made)

    def prune(self, paths: Sequence[str]) -> None:
        """Delete folders that are empty; a concurrent write makes its folder again."""
        for path in paths:
            try:
                self.files.rmdir(self.os_path(path))
            except OSError as error:
                if error.errno not in {*NOT_FOUND_ERRNOS, errno.ENOTEMPTY, errno.EEXIST}:
                    raise
            else:
                self.dir_syncer.forget_folder(path)

    def delete_many(self, paths: Sequence[str]) -> None:
        """Delete files; try all of them, then raise the first error."""
        first: StorageError | None = None
        changed = set()
        for path in paths:
            try:
                self.files.unlink(self.os_path(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                first = first or translate_oserror(error, path)
            else:
                changed.add(parent_of(path))
        for folder in changed:
            self.dir_syncer.fsync_removal(folder)
        if first is not None:
            raise first

    def remove_tree(self, os_path: str) -> None:
        """Delete a hidden folder; what cannot be deleted stays hidden."""
        for _ in range(MAX_ATTEMPTS):
            with self.files.scandir(os_path) as entries:
                found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for path, is_folder in found:
                if is_folder:
                    self.remove_tree(path)
                else:
                    # A put() that failed because its folder was renamed also deletes its file.
                    with suppress(FileNotFoundError):
                        self.files.unlink(path)
            try:
                self.files.rmdir(os_path)
            except OSError as error:
                # A call that opened the folder before may still make a file.
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return

    def stat(self, path: str) -> os.stat_result:
        """Return the status of a file or folder.

        :raises PathNotFound: if there is neither of them.
        """
        try:
            found = self.files.stat(self.os_path(path))
        except OSError as error:
            if error.errno in NOT_FOUND_ERRNOS:
                raise PathNotFound(path) from error
            raise
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise PathNotFound(path, "is neither a file nor a folder")
        return found

    def open_file(self, path: str) -> tuple[int, int]:
        """Open a file for reading; return its descriptor and size."""
        try:
            fd = self.files.open(self.os_path(path), os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PathNotFound(path) from error
        try:
            found = self.files.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise PathInvalid(path, "is not a file")  # noqa: TRY301
        except BaseException:
            self.files.close(fd)
            raise
        return fd, found.st_size

    def retry_with_parents(self, path: str, attempt: Callable[[], _T]) -> _T:
        """Call ``attempt``; if the folder of ``path`` is missing, make it and call again."""
        folder = self.os_path(parent_of(path))
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._use_reserve(attempt) if self.is_privileged else attempt()
            except FileNotFoundError:
                if self.is_privileged:
                    self._use_reserve(lambda: self._make_folders(folder))
                else:
                    self._make_folders(folder)
        raise StorageError(path, "its folder is deleted repeatedly while it is written to")

    def _use_reserve(self, attempt: Callable[[], _T]) -> _T:
        """Call ``attempt``; while the disk is full, give up a part of the reserve and repeat."""
        while True:
            try:
                return attempt()
            except OSError as error:
                if not _is_full(error) or self.reserve is None or not self.reserve.release():
                    raise

    def _touch_same(self, path: str, content: bytes, *, durable: bool) -> bool:
        """Set the time of a file to now if it has this content; return whether that is done."""
        with suppress(OSError, PathNotFound, PathInvalid):
            fd, size = self.open_file(path)
            try:
                if size != len(content) or self.files.pread(fd, size + 1, 0) != content:
                    return False
                self.files.utime(fd)
                if durable:
                    self.files.fsync(fd)
                    self.dir_syncer.fsync_entries((path,))
            finally:
                self.files.close(fd)
            return True
        return False

    def _link(self, source: str, destination: str) -> bool:
        """Make a hard link with the time of now; return whether that is done."""
        hidden = f"{self.os_path(parent_of(destination))}/{temporary_name()}"
        with suppress(OSError):
            self.files.link(self.os_path(source), hidden)
            try:
                fd = self.files.open(hidden, os.O_RDONLY)
                try:
                    self.files.utime(fd)
                    self.files.fsync(fd)
                finally:
                    self.files.close(fd)
                self.files.rename(hidden, self.os_path(destination))
            finally:
                # Renaming one link of a file to another one changes nothing.
                with suppress(FileNotFoundError):
                    self.files.unlink(hidden)
            return True
        return False

    def _publish(self, path: str, new: AtomicFile) -> None:
        """Rename a new file and make the name durable; if that fails, delete a name that is new."""
        os_path = self.os_path(path)
        try:
            self.files.stat(os_path)
            fresh = False
        except FileNotFoundError:
            fresh = True
        new.rename(os_path)
        try:
            self.dir_syncer.fsync_entries((path,))
        except OSError:
            with suppress(OSError):
                if fresh and new.is_at(os_path):
                    self.files.unlink(os_path)
            raise

    def _new_small_file(self, path: str) -> AtomicFile:
        mode = PRIVATE_FILE_MODE if path.startswith(f"{PRIVATE_FOLDER}/") else _FILE_MODE
        return AtomicFile(self.files, self.os_path(parent_of(path)), mode)

    def _write_hidden(self, put: Put, stack: ExitStack) -> AtomicFile:
        """Write the content of a file under a hidden name; the stack deletes it unless renamed."""

        def attempt() -> AtomicFile:
            with ExitStack() as own:
                new = own.enter_context(self._new_small_file(put.path))
                new.write(put.content)
                new.sync()
                stack.enter_context(own.pop_all())
                return new

        return self.retry_with_parents(put.path, attempt)

    def _move(self, source: str, destination: str, still: Callable[[], bool]) -> None:
        if stat.S_ISDIR(self.stat(source).st_mode):
            raise PathInvalid(source, "is a folder")
        if source == destination:
            return

        def attempt() -> None:
            if not still():
                raise MoveRefused(source)
            try:
                self.files.rename(self.os_path(source), self.os_path(destination))
            except FileNotFoundError:
                self.stat(source)
                raise

        try:
            self.retry_with_parents(destination, attempt)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The destination is on another disk, behind a symbolic link.
            self.copy(source, destination)
            if not still():
                self.delete(destination)
                raise MoveRefused(source) from error
            self.delete(source)

    def _make_folders(self, os_path: str) -> None:
        try:
            self._make_folder(os_path)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make_folders(os.path.dirname(os_path))  # noqa: PTH120
            # If it is deleted again meanwhile, the caller repeats this.
            with suppress(FileExistsError, FileNotFoundError):
                self._make_folder(os_path)
        if not os_path.startswith(f"{self.root}/"):
            # The root or a folder above it, which fsync_entries() does not sync.
            self.dir_syncer.fsync_os_path(os.path.dirname(os_path))  # noqa: PTH120

    def _make_folder(self, os_path: str) -> None:
        if f"{os_path}/".startswith(f"{self.root}/{PRIVATE_FOLDER}/"):
            self.files.mkdir(os_path, PRIVATE_FOLDER_MODE)
            self.files.inherit_folder_owner(os_path)
        else:
            self.files.mkdir(os_path, _FOLDER_MODE)


def _always() -> bool:
    return True


def _is_full(error: OSError) -> bool:
    return error.errno in DISK_FULL_ERRNOS
