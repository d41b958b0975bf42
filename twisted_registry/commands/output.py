"""Output of the commands: errors, JSON, tables, times, and a progress bar."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Self, TextIO

_KIBI = 1024
_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
#: The width of the progress bar, and the longest name beside it, in characters.
BAR_WIDTH = 40


def print_error(line: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"twisted-registry: {line}\n")


def print_json(data: object, default: Callable[[Any], object] | None = None) -> None:
    """Write *data* to standard output as one line of JSON.

    :param default: converts values that JSON does not have.
    """
    sys.stdout.write(f"{json.dumps(data, default=default)}\n")


def format_time(seconds: float, timespec: str = "seconds") -> str:
    """Return a time in ISO 8601, in UTC, as ``2026-01-31T12:00:00Z``.

    :param seconds: since the epoch.
    :param timespec: the precision, as of :meth:`datetime.datetime.isoformat`.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec)[:-6] + "Z"


def json_time(seconds: float | None) -> str | None:
    """Return a time as JSON documents have it: as :func:`format_time` does, or null."""
    return None if seconds is None else format_time(seconds)


def format_count(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 blob``, ``2 blobs``.

    :param many: the plural, if it is not *one* with an s.
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def format_size(size: float) -> str:
    """Return a number of bytes with a unit: ``512 B``, ``1.5 GiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while size >= _KIBI and power < len(units) - 1:
        size, power = size / _KIBI, power + 1
    return f"{size:.1f} {units[power]}" if power else f"{size:.0f} B"


def format_span(seconds: float) -> str:
    """Return a length of time in one or two units: ``1 day``, ``1 hour 30 minutes``, ``0.2 s``."""
    if seconds < _SECONDS["minute"]:
        return f"{seconds:.3g} s"
    parts = []
    for unit, length in _SECONDS.items():
        count, seconds = divmod(round(seconds), length)
        if count:
            parts.append(format_count(count, unit))
    return " ".join(parts[:2])


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


@define(eq=False)
class ProgressBar:
    """One line of a terminal that is redrawn in place. Without a terminal it shows nothing.

    As a context manager it clears the line at the end.

    :ivar out: the terminal, or None.
    """

    out: TextIO | None = None

    @classmethod
    def on(cls, stream: TextIO) -> Self:
        """Return a bar that is visible if *stream* is a terminal."""
        return cls(stream if stream.isatty() else None)

    @property
    def is_visible(self) -> bool:
        """Whether there is a terminal."""
        return self.out is not None

    def draw_progress(self, label: str, done: int, total: int) -> None:
        """Show *done* of *total* as a bar with numbers."""
        filled = "#" * (BAR_WIDTH * done // total if total else BAR_WIDTH)
        self.show_line(f"{label} [{filled:<{BAR_WIDTH}}] {done} of {total}")

    def show_line(self, line: str) -> None:
        """Replace the line."""
        if self.out is not None:
            self.out.write(f"\r\x1b[K{line}")
            self.out.flush()

    def clear_line(self) -> None:
        """Remove the line, so that other output can follow."""
        self.show_line("")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.clear_line()
