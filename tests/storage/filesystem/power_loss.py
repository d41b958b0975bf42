"""A model of a disk that can lose power, in place of the operating system.

What was written lives in two versions: what programs see, and what the disk holds. ``fsync`` of
a file brings its content to the disk, ``fsync`` of a folder its entries. A power cut leaves the
second version, or anything between the two: :class:`Survival` names the extremes. A rename is
one step on the disk, as on a file system with a journal: both folders show it, or neither.

Run a program with ``cut_after`` set to every number of changes that it makes, and look at what
:meth:`PowerLossFiles.remount` leaves; :func:`at_every_cut` does that for a storage driver.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from itertools import count

from attrs import define, field
from twisted.internet.defer import Deferred

from tests.storage.filesystem.kit import make_driver
from tests.storage.filesystem.power_loss_nodes import (
    Change,
    DirEntry,
    File,
    Folder,
    Opened,
    Survival,
    fault,
    look,
)
from twisted_registry.storage.filesystem.oscalls import OSCalls

ROOT = "/store"


class PowerCut(Exception):
    """The power is off."""


@define(eq=False)
class PowerLossFiles(OSCalls):
    """The layer of :class:`OSCalls` over the model.

    :ivar cut_after: how many more changes are made before the power goes; None: it stays.
    :ivar journal: the name of each change, in order.
    """

    cut_after: int | None = None
    journal: list[str] = field(factory=list)
    _top: Folder = field(factory=Folder)
    _opened: dict[int, Opened] = field(factory=dict)
    _numbers: object = field(factory=lambda: count(1000))
    ticks: object = field(factory=lambda: count(1))

    @property
    def descriptors(self):
        """How many are open."""
        return len(self._opened)

    def remount(self, survival):
        """Answer the disk as it is found when the power is back."""

        def rebuild(folder):
            kept = folder.on_disk if survival is Survival.SYNCED else folder.entries
            fresh = Folder(time=folder.time)
            for name, node in kept.items():
                if isinstance(node, Folder):
                    fresh.entries[name] = rebuild(node)
                else:
                    content = node.survivor(survival)
                    fresh.entries[name] = File(bytearray(content), content, time=node.time)
            fresh.on_disk = dict(fresh.entries)
            return fresh

        return type(self)(top=rebuild(self._top))

    # The calls of OSCalls.

    def open(self, path, flags, mode=0o666):
        self._live()
        folder, name = self._place(path)
        node = folder.entries.get(name) if name else folder
        if node is None:
            if not flags & os.O_CREAT:
                raise fault(errno.ENOENT, path)
            node = File(time=next(self.ticks))
            self._change("open", (folder, name, node))
        elif flags & os.O_EXCL:
            raise fault(errno.EEXIST, path)
        if isinstance(node, Folder) and flags & (os.O_RDWR | os.O_WRONLY):
            raise fault(errno.EISDIR, path)
        if isinstance(node, File) and flags & os.O_DIRECTORY:
            raise fault(errno.ENOTDIR, path)
        fd = next(self._numbers)
        self._opened[fd] = Opened(node)
        return fd

    def close(self, fd):
        node = self._opened.pop(fd).node
        if isinstance(node, File) and node.locked == fd:
            node.locked = None

    def pread(self, fd, length, offset):
        self._live()
        return bytes(self._opened[fd].node.content[offset : offset + length])

    def pwrite(self, fd, data, offset):
        self._step("pwrite")
        node = self._opened[fd].node
        node.content[offset : offset + len(data)] = data
        node.time = next(self.ticks)
        return len(data)

    def truncate(self, fd, size):
        self._step("truncate")
        del self._opened[fd].node.content[size:]

    def start_writeback(self, fd, offset, length):
        self._live()

    def fsync(self, fd):
        self._step("fsync")
        node = self._opened[fd].node
        if isinstance(node, File):
            node.on_disk = bytes(node.content)
            return
        while node.waiting:
            self._bring_to_disk(node.waiting[0])

    def utime(self, fd):
        self._live()
        self._opened[fd].node.time = next(self.ticks)

    def lock(self, fd):
        self._live()
        node = self._opened[fd].node
        if node.locked is not None:
            raise fault(errno.EWOULDBLOCK)
        node.locked = fd

    def copy_range(self, source, destination, length):
        self._step("copy_range")
        one, other = self._opened[source], self._opened[destination]
        piece = one.node.content[one.position :][: min(length, 1000)]
        other.node.content[other.position : other.position + len(piece)] = piece
        one.position += len(piece)
        other.position += len(piece)
        return len(piece)

    def fstat(self, fd):
        self._live()
        return look(self._opened[fd].node)

    def stat(self, path, *, dir_fd=None):
        self._live()
        top = self._top if dir_fd is None else self._opened[dir_fd].node
        folder, name = self._place(path, top)
        return look(self._entry(folder, name, path) if name else folder)

    def realpath(self, path):
        return path

    @contextmanager
    def scandir(self, path):
        self._live()
        folder, name = self._place(path)
        node = self._entry(folder, name, path) if name else folder
        if isinstance(node, File):
            raise fault(errno.ENOTDIR, path)
        yield iter([DirEntry(one, f"{path}/{one}", below) for one, below in node.entries.items()])

    def mkdir(self, path, mode=0o777):
        folder, name = self._place(path)
        if not name or name in folder.entries:
            raise fault(errno.EEXIST, path)
        self._change("mkdir", (folder, name, Folder()))

    def inherit_owner(self, fd, folder):
        self._live()

    def inherit_folder_owner(self, path):
        self._live()

    def rmdir(self, path):
        folder, name = self._place(path)
        if self._entry(folder, name, path).entries:
            raise fault(errno.ENOTEMPTY, path)
        self._change("rmdir", (folder, name, None))

    def unlink(self, path):
        folder, name = self._place(path)
        if isinstance(self._entry(folder, name, path), Folder):
            raise fault(errno.EISDIR, path)
        self._change("unlink", (folder, name, None))

    def rename(self, source, destination):
        old, old_name = self._place(source)
        node = self._entry(old, old_name, source)
        new, new_name = self._place(destination)
        if isinstance(new.entries.get(new_name), Folder):
            raise fault(errno.EISDIR, destination)
        self._change("rename", (old, old_name, None), (new, new_name, node))

    def link(self, source, destination):
        old, old_name = self._place(source)
        node = self._entry(old, old_name, source)
        new, new_name = self._place(destination)
        if new_name in new.entries:
            raise fault(errno.EEXIST, destination)
        self._change("link", (new, new_name, node))

    def _live(self):
        if self.cut_after is not None and self.cut_after < 0:
            raise PowerCut

    def _step(self, name):
        if self.cut_after is not None:
            self.cut_after -= 1
        self._live()
        self.journal.append(name)

    def _change(self, name, *parts):
        self._step(name)
        change = Change(list(parts))
        for folder, entry, node in parts:
            if node is None:
                del folder.entries[entry]
            else:
                folder.entries[entry] = node
            folder.time = next(self.ticks)
            if change not in folder.waiting:
                folder.waiting.append(change)

    def _bring_to_disk(self, change):
        """Apply a change, and before it those that it builds on: to the same names."""
        if change.on_disk:
            return
        change.on_disk = True
        for folder, name, _ in change.parts:
            position = folder.waiting.index(change)
            for earlier in folder.waiting[:position]:
                if any(one is folder and entry == name for one, entry, _ in earlier.parts):
                    self._bring_to_disk(earlier)
        for folder, name, node in change.parts:
            if node is None:
                folder.on_disk.pop(name, None)
            else:
                folder.on_disk[name] = node
        for folder in {id(part[0]): part[0] for part in change.parts}.values():
            folder.waiting.remove(change)

    def _place(self, path, top=None):
        """Find the folder that a path lies in, and its name there."""
        *above, name = path.strip("/").split("/")
        folder = top or self._top
        for component in above:
            folder = self._entry(folder, component, path)
            if isinstance(folder, File):
                raise fault(errno.ENOTDIR, path)
        return folder, name

    def _entry(self, folder, name, path):
        if name not in folder.entries:
            raise fault(errno.ENOENT, path)
        return folder.entries[name]


def driver_on(files, clock=None):
    """Make a filesystem driver over the model, all of whose Deferreds fire at once.

    (Small writes wait for the clock, or for flush, commit or close.)
    """
    return make_driver(ROOT, files, clock=clock, max_open_files=0)


def at_every_cut(scenario, check, prepare=None):
    """Run a scenario, cutting the power after each number of changes that it makes.

    :param scenario: async function of a driver and a list, on which it notes what it was
        answered.
    :param check: async function of a driver over what survived and that list.
    :param prepare: async function of a driver, run and synced by itself before the scenario.
    :returns: how many cuts there were.
    """
    cut, complete = -1, False
    while not complete:
        cut += 1
        answered = []
        files = PowerLossFiles()
        if prepare is not None:
            _outcome(prepare(driver_on(files)))
        files.cut_after = cut
        try:
            _outcome(scenario(driver_on(files), answered))
            complete = files.cut_after >= 0
        except Exception:
            # Any error that a program makes of a PowerCut.
            if files.cut_after >= 0:
                raise
        for survival in Survival:
            try:
                _outcome(check(driver_on(files.remount(survival)), answered))
            except BaseException as error:
                error.add_note(f"cut after {cut} changes, survived: {survival.name}")
                error.add_note(f"changes: {files.journal}")
                raise
    return cut


def _outcome(coroutine):
    """Return the result of a coroutine that never waits."""
    outcome = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    assert outcome, "it waits for something"
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    return outcome[0]
