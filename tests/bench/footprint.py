"""Cases of the process itself: how fast it starts, and how much memory it holds."""

from __future__ import annotations

import time

from attrs import frozen

from bench.samples import Measure, Run, Sample


@frozen
class Start(Measure):
    """From the start of the process to the first 200, over an empty store, in ms."""

    def check(self, server, run: Run) -> str:
        self(server, run)  # so that the next finds its files in memory
        return ""

    def __call__(self, server, run: Run) -> Sample:
        with server.fresh() as fresh:
            return Sample(1000 * fresh.started)


@frozen
class Idle(Measure):
    """What its processes hold half a second after the first 200, in MiB: all workers are up."""

    def __call__(self, server, run: Run) -> Sample:
        with server.fresh() as fresh:
            time.sleep(0.5)
            return Sample(fresh.memory("VmRSS"))


@frozen
class Peak(Measure):
    """The most that its processes had in all cases so far, in MiB."""

    def __call__(self, server, run: Run) -> Sample:
        return Sample(server.memory("VmHWM"))

    def seconds(self, run: Run) -> float:
        return 0.0
