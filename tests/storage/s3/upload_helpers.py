"""Helpers of the tests of unfinished files."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

MIB = 1024 * 1024
CHUNK = 6 * MIB


def noise(size, seed=1):
    block = bytes((seed * 7 + number * 31) % 251 for number in range(4093))
    return (block * (size // len(block) + 1))[:size]


@implementer(IPushProducer)
@define(eq=False)
class Source:
    """A push producer that records its calls."""

    asked: list[str] = field(factory=list)

    def pauseProducing(self):
        self.asked.append("pause")

    def resumeProducing(self):
        self.asked.append("resume")

    def stopProducing(self):
        self.asked.append("stop")
