"""Names that outlast a power cut. All of it blocks: call it on a thread.

An entry is power-cut proof once its folder is synced, and so is the entry of that folder in the
one above, and so on up. Whoever finds a folder present can not know whether its maker, another
thread or process, has synced it yet; so each process syncs every folder once itself and
remembers which ones it need not sync again.

Files that get their name only when they are whole. All of it blocks: call it on a thread.

Changes to a tree of files that last: what the filesystem driver does on its threads.

A file gets its name only when it is whole: written under a hidden name, synced, renamed; then
its entry is made to last (:mod:`twisted_registry.storage.dir_syncer`).

A rename between two folders is taken to be one step on the disk, as it is on every file system
that keeps a journal: when the new name lasts, the old one is gone.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import ExitStack, suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Self, TypeVar

from twisted_registry.storage.filesystem.oscalls import OSCalls, translate_oserror
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

    from twisted_registry.storage.interfaces import Change

#: How many folders are remembered as synced: about 200 bytes each.
_MAX_SYNCED_FOLDERS = 10_000


class DirSyncer:
    """Syncs folders below a root, and none of their entries twice.

    :ivar root: the folder, absolute.
    :ivar files: the operating system.
    """

    def __init__(self, root: str, files: OSCalls) -> None:
        self.root = root
        self.files = files
        self._synced: dict[str, tuple[int, int]] = {}

    def fsync_entries(self, paths: Iterable[str]) -> None:
        """Make the entries of ``paths`` last, and those of the folders above them.

        From the top down: a file must not reach the disk in a folder that has not.
        """
        due: set[str] = set()
        fresh: dict[str, tuple[int, int]] = {}
        for path in paths:
            # If the folder is deleted meanwhile, the entry is gone with it.
            with suppress(FileNotFoundError):
                self._look_up(_folder(path), due, fresh)
        for folder in sorted(due):
            try:
                self.fsync_dir(folder)
            except FileNotFoundError:
                fresh.clear()
        if len(self._synced) + len(fresh) <= _MAX_SYNCED_FOLDERS:
            self._synced.update(fresh)
        else:
            self._synced.clear()

    def fsync_dir(self, folder: str) -> None:
        """Make what was done in a folder last."""
        self.sync(f"{self.root}/{folder}" if folder else self.root)

    def sync(self, full: str) -> None:
        """Sync a folder anywhere in the file system."""
        fd = self.files.open(full, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.files.fsync(fd)
        except OSError as error:
            # Some network file systems can not sync a folder, and say so like this.
            if error.errno != errno.EINVAL:
                raise
        finally:
            self.files.close(fd)

    def forget_folder(self, folder: str) -> None:
        """A folder and all below it are gone: it must be synced when it comes back."""
        # A folder is remembered together with those above it, so not without this one.
        if self._synced.pop(folder, None) is not None:
            for known in list(self._synced):
                if known.startswith(f"{folder}/"):
                    self._synced.pop(known, None)

    def _look_up(self, folder: str, due: set[str], fresh: dict[str, tuple[int, int]]) -> None:
        """Find the folders to sync for an entry in ``folder``."""
        due.add(folder)
        while folder:
            found = self.files.stat(f"{self.root}/{folder}")
            # The number tells a folder from one that was deleted and made anew.
            identity = (found.st_dev, found.st_ino)
            if self._synced.get(folder) == identity:
                break
            fresh[folder] = identity
            folder = folder.rpartition("/")[0]
            due.add(folder)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


_COPY_CHUNK_BYTES = 64 * 1024 * 1024
_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}\.tmp", re.ASCII)


class AtomicFile:
    """A new file under a hidden name: renamed by the end of the block, or removed.

    :ivar files: the operating system.
    :ivar folder: where in the file system to make it.
    """

    def __init__(self, files: OSCalls, folder: str) -> None:
        self._files = files
        self._folder = folder
        self.path = ""
        self._fd = -1
        self._renamed = False

    def __enter__(self) -> Self:
        self.path = f"{self._folder}/{temporary_name()}"
        self._fd = self._files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._files.close(self._fd)
        finally:
            if not self._renamed:
                self._remove()

    def write(self, content: bytes) -> None:
        """Write all of it."""
        write_all(self._files, self._fd, content, 0)

    def copy_from(self, source: int) -> None:
        """Write all that an open file holds."""
        while self._files.copy_range(source, self._fd, _COPY_CHUNK_BYTES):
            pass

    def sync(self) -> None:
        """Make the content last."""
        self._files.fsync(self._fd)

    def rename(self, os_path: str) -> None:
        """Give it its name."""
        self._files.rename(self.path, os_path)
        self._renamed = True

    def is_at(self, os_path: str) -> bool:
        """Whether a name is still that of this file."""
        here, there = self._files.fstat(self._fd), self._files.stat(os_path)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def _remove(self) -> None:
        # Its folder may have been deleted meanwhile.
        with suppress(FileNotFoundError):
            self._files.unlink(self.path)


def write_all(files: OSCalls, fd: int, content: bytes, offset: int) -> None:
    """Write at an offset until all is written."""
    rest = memoryview(content)
    while rest:
        taken = files.pwrite(fd, rest, offset)
        rest = rest[taken:]
        offset += taken


def temporary_name() -> str:
    """Make up a name for a file or folder that nobody is to see: it begins with a dot."""
    return f".{token_hex(8)}.tmp"


def is_temporary_name(name: str) -> bool:
    """Whether a name is one that :func:`temporary_name` made up."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


_T = TypeVar("_T")

#: How often a write whose folder is deleted meanwhile makes the folder anew.
MAX_ATTEMPTS = 100
#: Nothing there: no such name, a path through a file, links that go round.
NOT_FOUND_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class FileTree:
    """The files below a root folder. Every method blocks and may be called on any thread.

    :ivar root: the folder, absolute; made when it is first written to.
    :ivar files: the operating system.
    """

    def __init__(self, root: str, files: OSCalls) -> None:
        self.root = root
        self.files = files
        #: whether a name that no path can spell was met, and reported
        self.odd_name_logged = False
        #: what makes names last
        self.dir_syncer = DirSyncer(self.root, self.files)

    def os_path(self, path: str) -> str:
        """Where ``path`` is in the file system."""
        return f"{self.root}/{path}" if path else self.root

    def put(self, path: str, content: bytes, durable: bool) -> None:  # noqa: FBT001
        """Store a small file in one step."""

        def attempt() -> None:
            with AtomicFile(self.files, self.os_path(_folder(path))) as new:
                new.write(content)
                if durable:
                    new.sync()
                    self._publish(path, new)
                else:
                    new.rename(self.os_path(path))

        self.retry_with_parents(path, attempt)

    def create(self, path: str, content: bytes) -> None:
        """Store a small file in one step, unless there is one."""

        def attempt() -> None:
            with AtomicFile(self.files, self.os_path(_folder(path))) as new:
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
        """Copy a file, in one step for those who read the destination."""

        def attempt() -> None:
            fd, _ = self.open_file(source)
            try:
                with AtomicFile(self.files, self.os_path(_folder(destination))) as new:
                    new.copy_from(fd)
                    new.sync()
                    new.rename(self.os_path(destination))
            finally:
                self.files.close(fd)

        self.retry_with_parents(destination, attempt)
        self.dir_syncer.fsync_entries((destination,))

    def move(self, source: str, destination: str, still: Callable[[], bool] | None = None) -> None:
        """Move a file; what was durable stays so.

        :raises MoveRefused: if ``still`` says no at the last moment.
        """
        self._move(source, destination, still or _always)
        self.dir_syncer.fsync_entries((destination,))

    def delete(self, path: str, durable: bool = True) -> None:  # noqa: FBT001, FBT002
        """Remove a file, or a folder in one step for those who look."""
        self._remove(path, durable=durable)

    def change(self, changes: Sequence[Change]) -> None:
        """Make changes in order, each in one step, and sync each folder only once.

        What is removed is not synced at all, but only goes when what comes before it lasts; nor
        does a small file get its name before. All that takes room is written under hidden names
        first: where there is none, nothing changes.
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
                    self._remove(change.path, durable=False)
            elif isinstance(change, Put):
                self.dir_syncer.fsync_entries(made)
                made.clear()
                try:
                    self._publish(change.path, written[change])
                except FileNotFoundError:
                    # Its folder was deleted meanwhile, and what was written there.
                    self.put(change.path, change.content, durable=True)
            else:
                self._move(change.source, change.destination, _always)
                made.append(change.destination)
        self.dir_syncer.fsync_entries(made)

    def prune(self, paths: Sequence[str]) -> None:
        """Remove folders that are empty; who writes into one meanwhile makes it anew."""
        for path in paths:
            try:
                self.files.rmdir(self.os_path(path))
            except OSError as error:
                if error.errno not in {*NOT_FOUND_ERRNOS, errno.ENOTEMPTY, errno.EEXIST}:
                    raise
            else:
                self.dir_syncer.forget_folder(path)

    def delete_many(self, paths: Sequence[str]) -> None:
        """Remove files; try all of them before failing with the first error."""
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
                changed.add(_folder(path))
        for folder in changed:
            self.dir_syncer.fsync_dir(folder)
        if first is not None:
            raise first

    def stat(self, path: str) -> os.stat_result:
        """Look at a file or folder.

        :raises PathNotFound: if there is neither, or something else.
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
        """Open a file for reading; answer its descriptor and size."""
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
        """Do something that needs the folder of ``path``, which is made when it is missing."""
        for _ in range(MAX_ATTEMPTS):
            try:
                return attempt()
            except FileNotFoundError:
                self._make_folders(self.os_path(_folder(path)))
        raise StorageError(path, "its folder is deleted again and again")

    def _publish(self, path: str, new: AtomicFile) -> None:
        """Give a file its name, for good or not at all: others rely on what they see."""
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

    def _write_hidden(self, put: Put, stack: ExitStack) -> AtomicFile:
        """The content of a file, under a hidden name beside its own until the stack unwinds."""

        def attempt() -> AtomicFile:
            with ExitStack() as own:
                new = own.enter_context(AtomicFile(self.files, self.os_path(_folder(put.path))))
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
            # A folder between the two is a link to another disk.
            self.copy(source, destination)
            if not still():
                self.delete(destination)
                raise MoveRefused(source) from error
            self.delete(source)

    def _remove(self, path: str, *, durable: bool) -> None:
        os_path = self.os_path(path)
        doomed = ""
        try:
            self.files.unlink(os_path)
        except NotADirectoryError as error:
            raise PathNotFound(path) from error
        except (IsADirectoryError, PermissionError):
            doomed = f"{self.os_path(_folder(path))}/{temporary_name()}"
            self.files.rename(os_path, doomed)
            self.dir_syncer.forget_folder(path)
        if durable:
            self.dir_syncer.fsync_dir(_folder(path))
        if doomed:
            self.remove_tree(doomed)

    def _make_folders(self, os_path: str) -> None:
        try:
            self.files.mkdir(os_path)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make_folders(os.path.dirname(os_path))  # noqa: PTH120
            # Deleted again at once? Then the caller comes back.
            with suppress(FileExistsError, FileNotFoundError):
                self.files.mkdir(os_path)
        if not os_path.startswith(f"{self.root}/"):
            # The root or a folder above it, which no later sync reaches.
            self.dir_syncer.sync(os.path.dirname(os_path))  # noqa: PTH120

    def remove_tree(self, os_path: str) -> None:
        """Remove a folder that no path leads to any more; what will not go stays hidden."""
        for _ in range(MAX_ATTEMPTS):
            with self.files.scandir(os_path) as entries:
                found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for path, is_folder in found:
                if is_folder:
                    self.remove_tree(path)
                else:
                    # A put that failed because its folder went may be faster.
                    with suppress(FileNotFoundError):
                        self.files.unlink(path)
            try:
                self.files.rmdir(os_path)
            except OSError as error:
                # A call that found the folder under its old name may still be making a file.
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return


def _always() -> bool:
    return True
