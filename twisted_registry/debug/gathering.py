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
from twisted_registry.workers.reports import COUNTS_PREFIX, ICountsReceiver

if TYPE_CHECKING:
    from typing import TextIO

    from twisted.internet.interfaces import IReactorTime

#: Seconds between two reports: so old may what is said of another process be.
REPORT_INTERVAL_S = 2.0


@implementer(ICountsReceiver)
@define(eq=False)
class AggregatedCounts:
    """What this process has counted, and what others have told.

    :ivar own: counted by this process.
    """

    own: Counts = field(factory=Counts)
    _by_pid: dict[int, Counts] = field(init=False, factory=dict)
    _ended: Counts = field(init=False, factory=Counts)

    def told(self, pid: int, report: bytes) -> None:
        """Another process told all that it has counted so far."""
        self._by_pid[pid] = Counts.from_bytes(report)

    def gone(self, pid: int) -> None:
        """Another process has ended."""
        last = self._by_pid.pop(pid, None)
        if last is not None:
            self._ended.add(last, gone=True)

    def total(self) -> Counts:
        """The sum over all processes."""
        total = Counts()
        for counts in (self.own, self._ended, *self._by_pid.values()):
            total.add(counts)
        return total


class CountsReporter(Service):
    """Tells the first process what this one has counted, while the service runs."""

    def __init__(self, counts: Counts, stream: TextIO, clock: IReactorTime) -> None:
        """Take what to tell, and the pipe."""
        self.setName("reporting")
        self._counts = counts
        self._stream = stream
        self._last_report = b""
        self._loop = LoopingCall(self._write_report)
        self._loop.clock = clock

    def startService(self) -> None:
        """Tell at intervals."""
        super().startService()
        self._loop.start(REPORT_INTERVAL_S, now=False)

    def stopService(self) -> None:
        """Tell once more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._write_report()

    def _write_report(self) -> None:
        content = self._counts.to_bytes()
        if content != self._last_report:
            self._last_report = content
            self._stream.write(f"{COUNTS_PREFIX.decode()}{content.decode('ascii')}\n")
            self._stream.flush()
