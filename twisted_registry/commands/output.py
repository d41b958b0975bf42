"""How far a long command is: a bar on a terminal.

Rows of text under each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

#: Characters of a bar, and of a name beside it.
BAR_WIDTH = 40


@define(eq=False)
class ProgressBar:
    """One line of a terminal that is drawn again and again."""

    out: TextIO

    def draw(self, what: str, done: int, total: int) -> None:
        """Draw how far it is: *done* of *total*, in whatever is counted."""
        filled = "#" * (BAR_WIDTH * done // total if total else BAR_WIDTH)
        self.say(f"{what} [{filled:<{BAR_WIDTH}}] {done} of {total}")

    def say(self, line: str) -> None:
        """Show a line in the place of the last."""
        self.out.write(f"\r\x1b[K{line}")
        self.out.flush()

    def clear(self) -> None:
        """Leave nothing behind."""
        self.say("")


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """The lines of a table whose columns are as wide as they have to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
