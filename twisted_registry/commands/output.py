"""Output of the commands: errors, JSON, tables, times, and a progress bar."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, TextIO

_KIBI = 1024
_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
#: The width of the progress bar, and the longest name beside it, in characters.
BAR_WIDTH = 40
#: Seconds between two lines of progress that are not on a terminal.
_LINE_INTERVAL_S = 30.0


def print_error(line: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"twisted-registry: {line}\n")


def print_json(data: object, default: Callable[[Any], object] | None = None) -> None:
    """Write *data* to standard output as one line of JSON.

    :param default: converts values that JSON does not have.
    """
    sys.stdout.write(f"{json.dumps(data, default=default)}\n")


@define(eq=False)
class ListPrinter:
    """Prints items one by one: as text, as the list of one JSON object, or as an object a line.

    As a context manager it completes the object, unless there was an error.

    :ivar name: of the list in the object.
    :ivar as_json: whether to print one object.
    :ivar as_lines: whether to print an object a line.
    """

    name: str
    as_json: bool = False
    as_lines: bool = False
    _is_first: bool = field(init=False, default=True)

    @classmethod
    def of(cls, name: str, options: Namespace) -> Self:
        """Return the printer for a command with ``--json`` and ``--json-lines``."""
        return cls(name, options.json and not options.json_lines, options.json_lines)

    @property
    def is_text(self) -> bool:
        """Whether items are printed as text."""
        return not (self.as_json or self.as_lines)

    def print_item(self, data: Mapping[str, object], line: str) -> None:
        """Print one item.

        :param data: for JSON.
        :param line: as text.
        """
        if self.as_json:
            sys.stdout.write(f'{{"{self.name}": [' if self._is_first else ", ")
            sys.stdout.write(json.dumps(data))
        elif self.as_lines:
            print_json(data)
        else:
            sys.stdout.write(f"{line}\n")
        self._is_first = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self.as_json and error_type is None:
            sys.stdout.write(f'{{"{self.name}": []}}\n' if self._is_first else "]}\n")


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
    """The progress of a command: a line of a terminal that is redrawn in place.

    Elsewhere it is a line of plain text every half minute, so that a short run prints none. As a
    context manager it clears the line at the end.

    :ivar out: the stream, or None to show nothing.
    :ivar is_terminal: whether the stream is a terminal.
    :ivar clock: returns seconds, from any start.
    """

    out: TextIO | None = None
    is_terminal: bool = True
    clock: Callable[[], float] = monotonic
    _next_line_s: float = field(init=False)

    @_next_line_s.default
    def _schedule_line(self) -> float:
        return self.clock() + _LINE_INTERVAL_S

    @classmethod
    def on(cls, stream: TextIO) -> Self:
        """Return the progress on *stream*, which may be a terminal."""
        return cls(stream, stream.isatty())

    @property
    def is_visible(self) -> bool:
        """Whether it is a line of a terminal."""
        return self.is_terminal and self.out is not None

    def draw_progress(self, label: str, done: int, total: int) -> None:
        """Show *done* of *total* as a bar with numbers; elsewhere than on a terminal as numbers.

        :param total: 0 if it is unknown.
        """
        if self.is_terminal:
            filled = "#" * (BAR_WIDTH * done // total if total else BAR_WIDTH)
            self.show_line(f"{label} [{filled:<{BAR_WIDTH}}] {done} of {total}")
        else:
            self.show_line(f"{label}: {done} of {total}" if total else f"{label}: {done}")

    def show_line(self, line: str) -> None:
        """Replace the line; elsewhere than on a terminal print it if half a minute has passed."""
        if self.out is None:
            return
        if self.is_terminal:
            self.out.write(f"\r\x1b[K{line}")
            self.out.flush()
        elif (now := self.clock()) >= self._next_line_s:
            self._next_line_s = now + _LINE_INTERVAL_S
            self.out.write(f"{line}\n")
            self.out.flush()

    def clear_line(self) -> None:
        """Remove the line of a terminal, so that other output can follow."""
        if self.is_terminal:
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
