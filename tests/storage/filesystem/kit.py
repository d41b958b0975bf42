"""Filesystem drivers whose threads a test controls, and other common tools."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.filesystem.oscalls import OSCalls

case = SynchronousTestCase()
result_of, failure_of = case.successResultOf, case.failureResultOf
MIB = 1024 * 1024


@implementer(IPushProducer)
class Producer:
    def __init__(self):
        self.log = []
        self.paused = False

    def pauseProducing(self):
        self.paused = True
        self.log.append("pause")

    def resumeProducing(self):
        self.paused = False
        self.log.append("resume")

    def stopProducing(self):
        self.log.append("stop")


class InlineThreads:
    """Makes every call at once, on the thread of the caller."""

    def run_blocking(self, work, *arguments, undo=None):
        try:
            return succeed(work(*arguments))
        except Exception:  # noqa: BLE001
            return fail()

    def call_from_thread(self, what):
        what()

    def close(self):
        return succeed(None)


class HeldThreads(InlineThreads):
    """Makes calls at once, or one by one by :meth:`step` after :meth:`hold`."""

    def __init__(self):
        self.holding = False
        self.waiting = []

    def hold(self):
        self.holding = True

    def run_blocking(self, work, *arguments, undo=None):
        if not self.holding:
            return super().run_blocking(work, *arguments, undo=undo)
        answer = Deferred()
        self.waiting.append((work, arguments, answer))
        return answer

    def step(self):
        work, arguments, answer = self.waiting.pop(0)
        super().run_blocking(work, *arguments).chainDeferred(answer)

    def finish(self):
        while self.waiting:
            self.step()


def descriptors(root=None):
    """The number of open descriptors of this process; those below ``root``, if it is given."""
    links = list(Path("/proc/self/fd").iterdir())
    if root is None:
        return len(links)
    # The descriptor of the listing itself does not exist any more.
    return sum(str(link.resolve()).startswith(str(root)) for link in links)


def make_driver(root, files=None, *, clock=None, threads=None, **options):
    """A driver that makes all calls at once, unless other threads are given."""
    return FilesystemDriver(
        str(root),
        clock or Clock(),
        files=files or OSCalls(),
        threads=threads or InlineThreads(),
        **options,
    )


def paths(entries):
    return [entry.path for entry in result_of(entries)]
