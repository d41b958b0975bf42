"""Files, folders and their status in the model of a disk of :mod:`.power_loss`."""

from __future__ import annotations

import os
import stat
from enum import Enum, auto
from itertools import count

from attrs import define, field, frozen


class Survival(Enum):
    """Which unsynced changes are on the disk after a power cut."""

    #: nothing
    SYNCED = auto()
    #: names of files and folders, but not what is in the files
    NAMES = auto()
    #: names, and half of what is in the files, the rest zeros
    TORN = auto()
    #: everything
    ALL = auto()


@define(eq=False)
class File:
    content: bytearray = field(factory=bytearray)
    on_disk: bytes = b""
    number: int = field(factory=count(1).__next__)
    time: int = 0
    locked: int | None = None

    def survivor(self, survival):
        seen, held = bytes(self.content), self.on_disk
        if survival is Survival.ALL or seen == held:
            return seen
        if survival is Survival.TORN:
            half = (len(held) + len(seen)) // 2
            return seen[:half].ljust(len(seen), b"\0")
        return held


@define(eq=False)
class Change:
    """Names that change atomically: (folder, name, what it names or None)."""

    parts: list
    on_disk: bool = False


@define(eq=False)
class Folder:
    entries: dict = field(factory=dict)
    on_disk: dict = field(factory=dict)
    waiting: list[Change] = field(factory=list)
    number: int = field(factory=count(1_000_000).__next__)
    time: int = 0


@frozen
class Stat:
    st_mode: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_dev: int = 1

    @property
    def st_ctime_ns(self):
        return self.st_mtime_ns

    @property
    def st_mtime(self):
        return self.st_mtime_ns / 1e9

    st_ctime = st_mtime


@frozen
class DirEntry:
    name: str
    path: str
    node: object

    def is_dir(self, *, follow_symlinks=True):
        return isinstance(self.node, Folder)

    def is_symlink(self):
        return False

    def stat(self, *, follow_symlinks=True):
        return look(self.node)


def look(node):
    if isinstance(node, Folder):
        return Stat(stat.S_IFDIR | 0o755, node.number, 4096, node.time)
    return Stat(stat.S_IFREG | 0o644, node.number, len(node.content), node.time)


@define(eq=False)
class Opened:
    node: object
    position: int = 0


def fault(number, path=""):
    return OSError(number, os.strerror(number), path)
