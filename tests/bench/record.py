"""The record of a run: written as JSON, and read to draw charts or to join several runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import asdict, evolve, frozen

from tests.bench.figures import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@frozen
class ServerUsage:
    """The usage of one server over a run: memory in MiB, processor time in seconds."""

    server: str
    setup: str
    idle: float
    peak: float
    processor: float


@frozen
class Record:
    """A run.

    :ivar versions: of the servers and of Python, one line each.
    :ivar interrupted: whether the run ended before the last case.
    :ivar left_out: the names of cases whose setup this version does not support.
    """

    rounds: int
    seconds: float
    quick: bool
    versions: Sequence[str]
    rows: Sequence[Row]
    used: Sequence[ServerUsage] = ()
    left_out: Sequence[str] = ()
    interrupted: bool = False

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(path: Path) -> Record:
    """Read a record.

    :raises ValueError: if the file is not a record.
    """
    try:
        document = json.loads(path.read_text())
        rows = [Row(**row) for row in document.pop("rows")]
        used = [ServerUsage(**each) for each in document.pop("used")]
        return Record(**document, rows=rows, used=used)
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as fault:
        raise ValueError(f"{path} is not a record of this benchmark: {fault}") from fault


def join(records: Iterable[Record]) -> Record:
    """Join several runs; of a repeated case, the last one counts."""
    first, *others = records
    found = first
    for other in others:
        again = {row.case for row in other.rows}
        found = evolve(
            other,
            rows=[*(row for row in found.rows if row.case not in again), *other.rows],
            used=[*found.used, *other.used],
            interrupted=found.interrupted or other.interrupted,
            left_out=list(dict.fromkeys([*found.left_out, *other.left_out])),
        )
    return found
