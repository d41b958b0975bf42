"""The table, and the same as JSON."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from servers import DISTRIBUTION

if TYPE_CHECKING:
    from cases import Case
    from samples import Sample

NOTE = (
    "Only the ratios mean anything: the figures depend on the machine and on what else it does.\n"
    "The load generator runs on the same cores. A ratio above 1 is better than docker-registry,\n"
    "for times and memory too; the range beside it is of the single rounds. CPU is the server's,\n"
    "a request. HEAD is asked by a generator in Python, which holds the fastest back. Every\n"
    "registry makes a push durable in its own way: the fsyncs are those of a push of 4 KiB."
)
_HEADS = (
    *("case", "server", "median", "unit", "min - max", "p50 ms", "p99 ms", "CPU ms"),
    *("ratio", "range", "fsyncs", "errors"),
)


def rows(case: Case, samples: dict[str, list[Sample]], fsyncs: dict[str, float | None]) -> list:
    """What is said of one case, a dictionary for each server."""
    base = samples.get(DISTRIBUTION)
    return [
        {
            "case": case.name,
            "server": server,
            "unit": case.unit,
            "median": median(sample.value for sample in seen),
            "min": min(sample.value for sample in seen),
            "max": max(sample.value for sample in seen),
            "p50": _median(sample.p50 for sample in seen),
            "p99": _median(sample.p99 for sample in seen),
            "processor": _median(sample.processor for sample in seen),
            "ratio": _ratio(case, seen, base, _of_medians),
            "ratios": _ratio(case, seen, base, _of_rounds),
            "errors": sum(sample.errors for sample in seen),
            "fault": next((sample.fault for sample in seen if sample.fault), ""),
            "fsyncs per push": fsyncs.get(server) if case.pushes else None,
            "pushes": case.pushes,
            "more": [sample.more for sample in seen if sample.more],
            "rounds": [sample.value for sample in seen],
        }
        for server, seen in samples.items()
    ]


def table(found: list[dict]) -> str:
    """The rows as text, with the faults below them."""
    lines = [_HEADS]
    lines += [
        (
            row["case"],
            row["server"],
            _number(row["median"]),
            row["unit"],
            f"{_number(row['min'])} - {_number(row['max'])}",
            _number(row["p50"]),
            _number(row["p99"]),
            _number(row["processor"]),
            _number(row["ratio"]),
            "-" if row["ratios"] is None else " - ".join(map(_number, row["ratios"])),
            _fsyncs(row),
            str(row["errors"]),
        )
        for row in found
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    text += [
        f"error: {row['case']}, {row['server']}: {row['fault']}" for row in found if row["errors"]
    ]
    return "\n".join(text)


def _fsyncs(row: dict) -> str:
    if not row["pushes"]:
        return "-"
    return "unknown" if row["fsyncs per push"] is None else _number(row["fsyncs per push"])


def _ratio(case, seen, base, compare):
    if base is None:
        return None
    return compare([s.value for s in seen], [s.value for s in base], case.is_rate)


def _of_medians(ours, base, is_rate):
    above, below = (ours, base) if is_rate else (base, ours)
    return median(above) / median(below) if median(below) else None


def _of_rounds(ours, base, is_rate):
    pairs = zip(ours, base, strict=True)
    ratios = [(a / b if is_rate else b / a) for a, b in pairs if a and b]
    return [min(ratios), max(ratios)] if ratios else None


def _median(values) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
