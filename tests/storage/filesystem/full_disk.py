"""A model of a full disk, in place of the operating system.

Every change may fail for lack of space: a write (which may store some bytes before), a name in a
folder, an ``fsync`` (with delayed allocation), and on a copy-on-write file system even a deletion.
"""

from __future__ import annotations

import errno

from attrs import define, field

from tests.storage.filesystem.power_loss import PowerLossFiles

#: What takes room on every filesystem.
TAKES_ROOM = {"open", "pwrite", "copy_range", "mkdir", "rename", "link"}


@define(eq=False)
class FullDiskFiles(PowerLossFiles):
    """The disk of :class:`PowerLossFiles`, which is full after some changes.

    :ivar room: how many more changes succeed before the disk is full; None for all.
    :ivar once: whether only one change, of any kind, fails then; otherwise all that need space
        fail until ``room`` is set again.
    :ivar refused: the changes that failed.
    """

    room: int | None = None
    once: bool = False
    refused: list[str] = field(factory=list)

    def pwrite(self, fd, data, offset):
        if self.room == 0 and len(data) > 1:
            # A short write; writing the rest fails.
            node = self._opened[fd].node
            half = bytes(data[: len(data) // 2])
            node.content[offset : offset + len(half)] = half
            node.time = next(self.ticks)
            self.room = -1
            return len(half)
        return super().pwrite(fd, data, offset)

    def _step(self, name):
        if self.room is not None:
            if self.room > 0:
                self.room -= 1
            elif self.once or name in TAKES_ROOM:
                self.refused.append(name)
                if self.once:
                    self.room = None
                raise OSError(errno.ENOSPC, "No space left on device")
        super()._step(name)
