"""Drivers of files without threads of their own, writers whose threads a test holds."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.storage.filesystem.power_loss import InlineThreads
from twisted_registry.storage.filesystem import writer
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


class HeldThreads(InlineThreads):
    """Runs nothing until told to."""

    def __init__(self):
        self.waiting = []

    def run_blocking(self, work, *arguments, undo=None):
        answer = writer.Deferred()
        self.waiting.append((work, arguments, answer))
        return answer

    def step(self):
        work, arguments, answer = self.waiting.pop(0)
        super().run_blocking(work, *arguments).chainDeferred(answer)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def inline(root, files=None):
    return FilesystemDriver(str(root), Clock(), files=files or OSCalls(), threads=InlineThreads())


def paths(entries):
    return [entry.path for entry in result_of(entries)]
