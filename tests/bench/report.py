"""The report of a run: a table, the usage of each server, and a short table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.kinds import BARE, DISTRIBUTION, OURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.bench.figures import Row
    from tests.bench.record import Record, ServerUsage

NOTE = (
    "Only the ratios mean anything: the figures depend on the machine and on what else it does.\n"
    "The load generator runs on the same cores. A ratio above 1 is better than docker-registry,\n"
    "for times and memory too; the range beside it is of the single rounds. CPU s is the\n"
    "processor time that a server used in a round, CPU ms that of one request; gen. is that of\n"
    "the load generator, as a part of the time that it ran. docker-registry uses all cores, ours\n"
    "one for each worker. Every registry makes a push durable in its own way: the fsyncs are\n"
    "those of one push."
)
_COLUMNS = (
    *("case", "server", "median", "unit", "min - max", "p50 ms", "p99 ms", "CPU s", "CPU ms"),
    *("gen.", "ratio", "range", "fsyncs", "errors"),
)
#: A generator that is busier than this may be what limits a server.
_BUSY = 0.8


def table(rows: Sequence[Row]) -> str:
    """Format the rows, with the faults below them."""
    lines = [_COLUMNS, *map(_line, rows)]
    text = _align(lines)
    text += [
        f"error: {row.case}, {row.server}: {_shorten(row.fault)}" for row in rows if row.errors
    ]
    text += [
        f"the generator was busy, and may be the limit: {row.case}, {row.server}"
        for row in rows
        if (row.generator or 0) > _BUSY
    ]
    return "\n".join(text)


def usage(used: Sequence[ServerUsage]) -> str:
    """Format the memory and the processor time of each server over the run."""
    heads = ("server", "setup", "idle MiB", "peak MiB", "CPU s")
    lines = [
        (
            each.server,
            _setup_name(each),
            *map(rounded, (each.idle, each.peak, each.processor)),
        )
        for each in used
    ]
    return "\n".join(_align([heads, *lines]))


def remarks(record: Record) -> Iterable[str]:
    """Return remarks about the conditions of a run."""
    yield NOTE
    yield from _peaks(record.used)
    yield from _compare_with_bare(record.rows)
    if record.rows and all(row.server != DISTRIBUTION for row in record.rows):
        yield f"{DISTRIBUTION} is not installed, so there are no ratios."
    if record.interrupted:
        yield "Interrupted: the cases that are not in the table were not measured."
    for name in record.left_out:
        yield f"Left out, because this version does not support the setup: {name}."
    yield f"{record.rounds} rounds of {record.seconds:g} s; " + "; ".join(record.versions) + "."
    if record.quick:
        yield "A quick run: it shows that the cases work, and nothing about speed."


def short_table(rows: Sequence[Row]) -> str:
    """Format the rows of this registry with ``headline`` as a short table in reStructuredText."""
    base = {row.case: row for row in rows if row.server == DISTRIBUTION}
    lines = [
        (row.case, _compare(row, base[row.case]))
        for row in rows
        if row.server == OURS and row.headline and row.case in base and row.ratio
    ]
    widths = [max(map(len, column)) for column in zip(("case", "ratio"), *lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    text = [
        "  ".join(map(str.ljust, line, widths)).rstrip() for line in (("case", "ratio"), *lines)
    ]
    return "\n".join([rule, text[0], rule, *text[1:], rule])


def rounded(value: float | None) -> str:
    """Format a number with three significant digits, or ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(row: Row) -> tuple[str, ...]:
    return (
        row.case,
        row.server,
        rounded(row.median),
        row.unit,
        f"{rounded(row.low)} - {rounded(row.high)}",
        rounded(row.p50),
        rounded(row.p99),
        rounded(row.processor),
        rounded(row.each),
        "-" if row.generator is None else f"{row.generator:.0%}",
        rounded(row.ratio),
        "-" if row.ratios is None else " - ".join(map(rounded, row.ratios)),
        _format_fsyncs(row),
        str(row.errors),
    )


def _shorten(fault: str) -> str:
    """Shorten a log to its first and last line; the JSON has all of it."""
    lines = fault.splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"


def _format_fsyncs(row: Row) -> str:
    if not row.pushed:
        return "-"
    return "unknown" if row.fsyncs is None else rounded(row.fsyncs)


def _compare(row: Row, base: Row) -> str:
    if row.unit in {"ms", "s", "MiB"}:
        return f"{rounded(row.ratio)} ({rounded(row.median)} : {rounded(base.median)} {row.unit})"
    if row.p99 and base.p99 and row.unit == "req/s":
        return f"{rounded(row.ratio)} (p99 {rounded(row.p99)} : {rounded(base.p99)} ms)"
    if row.fsyncs is not None and base.fsyncs is not None:
        return f"{rounded(row.ratio)} (fsyncs {rounded(row.fsyncs)} : {rounded(base.fsyncs)})"
    return rounded(row.ratio)


def _peaks(used: Sequence[ServerUsage]) -> Iterable[str]:
    """Return the peak memory of a server of each kind in the whole run."""
    most: dict[str, ServerUsage] = {}
    for each in used:
        if each.server not in most or each.peak > most[each.server].peak:
            most[each.server] = each
    peaks = [
        f"{each.server} {rounded(each.peak)} MiB ({_setup_name(each)})" for each in most.values()
    ]
    if peaks:
        yield f"Peak memory over the whole run: {', '.join(peaks)}."


def _setup_name(used: ServerUsage) -> str:
    return used.setup or "plain"


def _compare_with_bare(rows: Sequence[Row]) -> Iterable[str]:
    bare = {row.case: row.median for row in rows if row.server == BARE}
    for row in rows:
        if row.server == OURS and bare.get(row.case):
            times = row.median / bare[row.case]
            yield f"{row.case}: {rounded(times)} times that of a bare process with twisted.web."


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
