"""A model of a disk that is full, in the place of the operating system.

Whatever changes something may find no room: a write (which may put some bytes down before), but
also a name in a folder, an ``fsync`` (where the filesystem puts off looking for room), and on a
filesystem that copies on writing even a removal.
"""

from __future__ import annotations

import errno

from attrs import define, field

from tests.storage.filesystem.power_loss import PowerLossFiles

#: What takes room on every filesystem.
TAKES_ROOM = {"open", "pwrite", "copy_range", "mkdir", "rename", "link"}


@define(eq=False)
class FullDiskFiles(PowerLossFiles):
    """The disk of :class:`PowerLossFiles`, which is full from some change on.

    :ivar room: how many more changes are made before it is full; None: it is not.
    :ivar once: whether one change, of any kind, finds no room then; else all that take room do,
        until ``room`` is set anew.
    :ivar refused: those that found none.
    """

    room: int | None = None
    once: bool = False
    refused: list[str] = field(factory=list)

    def pwrite(self, fd, data, offset):
        if self.room == 0 and len(data) > 1:
            # As much as there is room for; who goes on with the rest learns that it is full.
            node = self._opened[fd].node
            half = bytes(data[: len(data) // 2])
            node.content[offset : offset + len(half)] = half
            node.time = next(self._ticks)
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
