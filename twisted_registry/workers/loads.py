"""How many connections each of the processes has, in memory that all of them share.

Only hints: a number that is read a moment late makes the spread a little less even, and nothing
else. So there is no lock.
"""

from __future__ import annotations

import mmap
import os

_ITEM_BYTES = 4
#: The load of a process that is not there, or takes no more connections.
_ABSENT = 2**31 - 1


class LoadTable:
    """The table, as one of the processes sees it."""

    def __init__(self, descriptor: int, count: int, own: int) -> None:
        """Map the table.

        :param descriptor: the memory, which :meth:`close` closes.
        :param count: how many processes there are.
        :param own: which of them this one is, from 0.
        """
        self._descriptor = descriptor
        self._own = own
        self._memory = mmap.mmap(descriptor, count * _ITEM_BYTES)
        self._numbers: memoryview[int] = memoryview(self._memory).cast("i")
        self._there = False

    @classmethod
    def make(cls, count: int) -> LoadTable:
        """A new table for ``count`` processes, none of which is there; this is the first."""
        descriptor = os.memfd_create("loads")
        os.ftruncate(descriptor, count * _ITEM_BYTES)
        made = cls(descriptor, count, 0)
        for number in range(count):
            made.gone(number)
        return made

    def fileno(self) -> int:
        """The descriptor of the memory, to be handed on."""
        return self._descriptor

    def enter(self) -> None:
        """This process takes connections, and has none yet."""
        self._there = True
        self.publish(0)

    def publish(self, connections: int) -> None:
        """Tell the others how many connections this process has."""
        if self._there:
            self._numbers[self._own] = connections

    def leave(self) -> None:
        """This process takes no more connections."""
        self._there = False
        self.gone(self._own)

    def gone(self, number: int) -> None:
        """A process has ended."""
        self._numbers[number] = _ABSENT

    def others_have_fewer(self) -> bool:
        """Whether the next connection should go to another process."""
        return min(self._numbers.tolist()) < self._numbers[self._own]

    def close(self) -> None:
        """Let go of the memory; nothing may be asked any more."""
        self._numbers.release()
        self._memory.close()
        os.close(self._descriptor)
