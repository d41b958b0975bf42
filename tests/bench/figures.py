"""The figures of a case: medians, spreads, and ratios to Debian's docker-registry."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from attrs import field, frozen

from tests.bench.kinds import DISTRIBUTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.bench.cases import Case
    from tests.bench.samples import Sample


@frozen
class Row:
    """One server in one case, over all rounds.

    :ivar median: the median of the rounds, in ``unit``; ``low`` and ``high`` are the extremes.
    :ivar p50: the median over the rounds of their median time, in ms; ``p99`` likewise.
    :ivar processor: seconds of processor time that the server used in a round, the median.
    :ivar each: the same for one request, in ms.
    :ivar generator: processor time of the load generator as a part of the time that it ran.
    :ivar ratio: to docker-registry, above 1 where this server is better; None without it.
    :ivar ratios: the lowest and the highest ratio of a round.
    :ivar pushed: bytes of each push, 0 if the case pushes nothing.
    :ivar fsyncs: fsyncs of one push; None if they were not counted.
    """

    case: str
    group: str
    server: str
    unit: str
    median: float
    low: float
    high: float
    p50: float | None
    p99: float | None
    processor: float | None
    each: float | None
    generator: float | None
    ratio: float | None
    ratios: Sequence[float] | None
    pushed: int
    fsyncs: float | None
    errors: int
    fault: str
    rounds: Sequence[float]
    more: Sequence[Mapping[str, float]] = field(factory=list)
    headline: bool = True


def rows(
    case: Case, samples: Mapping[str, Sequence[Sample]], fsyncs: Mapping[str, float | None]
) -> list[Row]:
    """Return a row for each server; ``samples`` has one sample for each round."""
    base = samples.get(DISTRIBUTION, ())
    return [_row(case, server, seen, base, fsyncs.get(server)) for server, seen in samples.items()]


def _row(
    case: Case, server: str, seen: Sequence[Sample], base: Sequence[Sample], fsyncs: float | None
) -> Row:
    values = [sample.value for sample in seen]
    ratios = round_ratios(values, [sample.value for sample in base], is_rate=case.is_rate)
    return Row(
        case=case.name,
        group=case.group,
        server=server,
        unit=case.unit,
        median=median(values),
        low=min(values),
        high=max(values),
        p50=known_median(sample.p50 for sample in seen),
        p99=known_median(sample.p99 for sample in seen),
        processor=known_median(sample.processor for sample in seen),
        each=known_median(
            1000 * sample.processor / sample.count
            for sample in seen
            if sample.count and sample.processor is not None
        ),
        generator=known_median(
            sample.generator / sample.elapsed
            for sample in seen
            if sample.elapsed and sample.generator is not None
        ),
        ratio=ratio(median(values), known_median(s.value for s in base), is_rate=case.is_rate),
        ratios=(min(ratios), max(ratios)) if ratios else None,
        pushed=case.pushed,
        fsyncs=fsyncs,
        errors=sum(sample.errors for sample in seen),
        fault=next((sample.fault for sample in seen if sample.fault), ""),
        rounds=values,
        more=[sample.more for sample in seen if sample.more],
        headline=case.headline,
    )


def ratio(value: float, base: float | None, *, is_rate: bool) -> float | None:
    """Return how many times better ``value`` is; None if a value is missing or zero."""
    if not (value and base):
        return None
    return value / base if is_rate else base / value


def round_ratios(values: Sequence[float], base: Sequence[float], *, is_rate: bool) -> list[float]:
    """Return the ratios of the rounds that both completed."""
    pairs = zip(values, base, strict=False)
    found = (ratio(value, other, is_rate=is_rate) for value, other in pairs)
    return [each for each in found if each is not None]


def known_median(values: Iterable[float | None]) -> float | None:
    """Return the median, ignoring None."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
