"""Cases of the process: time to start, and memory."""

from __future__ import annotations

import time
from statistics import median
from typing import Final

from attrs import frozen

from tests.bench.samples import Measure, Run, Sample

#: Starts in one sample; single ones differ by a half on a busy machine.
_STARTS: Final = 3


@frozen
class Start(Measure):
    """Time from the start of the process to the first 200, with an empty store, in ms.

    The median of three, so that five rounds are fifteen starts.
    """

    def check(self, server, run: Run) -> str:
        self._once(server)  # loads files into memory, and compiles bytecode
        return ""

    def __call__(self, server, run: Run) -> Sample:
        return Sample(median(self._once(server) for _ in range(_STARTS)))

    def _once(self, server) -> float:
        with server.fresh() as fresh:
            return 1000 * fresh.started

    def seconds(self, run: Run) -> float:
        return 1.5


@frozen
class Idle(Measure):
    """Memory half a second after the first 200 in MiB, when all workers are up."""

    def __call__(self, server, run: Run) -> Sample:
        with server.fresh() as fresh:
            time.sleep(0.5)
            return Sample(fresh.memory("VmRSS"))


@frozen
class Peak(Measure):
    """Peak memory of its processes in all cases so far, in MiB."""

    def __call__(self, server, run: Run) -> Sample:
        return Sample(server.memory("VmHWM"))

    def seconds(self, run: Run) -> float:
        return 0.0
