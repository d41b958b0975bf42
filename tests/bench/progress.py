"""Progress and remaining time of a run: a bar on a terminal, otherwise a line for each case."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.figures import Row

_BAR = 24


@define(eq=False)
class Progress:
    """The state of a run.

    :ivar cases: the number of cases.
    :ivar expected: the estimated duration in seconds.
    """

    cases: int
    expected: float
    stream: TextIO = field(factory=lambda: sys.stderr)
    clock: Callable[[], float] = perf_counter
    _began: float = field(init=False)
    _index: int = field(default=0, init=False)
    _done_s: float = field(default=0.0, init=False)
    _name: str = field(default="", init=False)

    @_began.default
    def _now(self) -> float:
        return self.clock()

    def print_line(self, line: str) -> None:
        """Print a line."""
        self._write(f"{line}\n")

    def begin(self, name: str) -> None:
        """Show that a case begins."""
        self._index += 1
        self._name = name
        self._draw()

    def done(self, seconds: float) -> None:
        """Count a sample with its expected duration in seconds."""
        self._done_s += seconds
        self._draw()

    def end(self, rows: Sequence[Row]) -> None:
        """Print the result of a case."""
        if self.stream.isatty():
            return
        ratios = "".join(f", {row.server} x{row.ratio:.3g}" for row in rows if row.ratio)
        faults = "".join(f", {row.server} FAILED" for row in rows if row.errors)
        left = duration(self.seconds_left())
        self.print_line(f"{self._index}/{self.cases} {self._name}{ratios}{faults}; {left} left")

    def seconds_left(self) -> float:
        """Return the remaining seconds, estimated from the pace so far."""
        rest = max(0.0, self.expected - self._done_s)
        if not self._done_s:
            return rest
        return rest * (self.clock() - self._began) / self._done_s

    def close(self) -> None:
        """Remove the bar."""
        self._write("")

    def _draw(self) -> None:
        if not self.stream.isatty():
            return
        part = min(1.0, self._done_s / self.expected) if self.expected else 1.0
        full = round(part * _BAR)
        bar = "#" * full + "." * (_BAR - full)
        text = (
            f"[{bar}] {self._index}/{self.cases} {duration(self.seconds_left())} left: {self._name}"
        )
        self._write(f"{text:.100}")

    def _write(self, text: str) -> None:
        if self.stream.isatty():
            text = f"\r\033[K{text}"
        self.stream.write(text)
        self.stream.flush()


def duration(seconds: float) -> str:
    """Format a duration."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"
