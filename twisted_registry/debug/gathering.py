"""The numbers of several processes: each tells the first, which answers for all.

A worker writes what it has counted to the pipe that its log takes, every few seconds if something
has changed. What one that has ended counted stays counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from twisted_registry.debug.counts import Counts
from twisted_registry.workers.reports import COUNTS, ICounted

if TYPE_CHECKING:
    from typing import TextIO

    from twisted.internet.interfaces import IReactorTime

#: Seconds between two reports: so old may what is said of another process be.
INTERVAL = 2.0


@implementer(ICounted)
@define(eq=False)
class Gathered:
    """What this process has counted, and what others have told.

    :ivar own: counted by this process.
    """

    own: Counts = field(factory=Counts)
    _others: dict[int, Counts] = field(init=False, factory=dict)
    _past: Counts = field(init=False, factory=Counts)

    def told(self, pid: int, report: bytes) -> None:
        """Another process told all that it has counted so far."""
        self._others[pid] = Counts.from_bytes(report)

    def gone(self, pid: int) -> None:
        """Another process has ended."""
        last = self._others.pop(pid, None)
        if last is not None:
            self._past.add(last, gone=True)

    def total(self) -> Counts:
        """The sum over all processes."""
        total = Counts()
        for counts in (self.own, self._past, *self._others.values()):
            total.add(counts)
        return total


class Reporting(Service):
    """Tells the first process what this one has counted, while the service runs."""

    def __init__(self, counts: Counts, stream: TextIO, clock: IReactorTime) -> None:
        """Take what to tell, and the pipe."""
        self.setName("reporting")
        self._counts = counts
        self._stream = stream
        self._told = b""
        self._loop = LoopingCall(self._tell)
        self._loop.clock = clock

    def startService(self) -> None:
        """Tell at intervals."""
        super().startService()
        self._loop.start(INTERVAL, now=False)

    def stopService(self) -> None:
        """Tell once more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._tell()

    def _tell(self) -> None:
        content = self._counts.to_bytes()
        if content != self._told:
            self._told = content
            self._stream.write(f"{COUNTS.decode()}{content.decode('ascii')}\n")
            self._stream.flush()
