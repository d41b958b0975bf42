"""Medians, spreads and ratios."""

import pytest

from tests.bench.cases import Case
from tests.bench.figures import known_median, ratio, round_ratios, rows
from tests.bench.samples import Measure, Sample, failed_sample

RATE = Case("pushes", "push/s", Measure(), "pushes", pushed=4096)
TIME = Case("start", "ms", Measure(), "footprint")


def samples(*values, **more):
    return [Sample(value, **more) for value in values]


@pytest.mark.parametrize(
    ("value", "base", "is_rate", "wanted"),
    [
        (20, 10, True, 2),
        (20, 10, False, 0.5),
        (0, 10, True, None),
        (10, 0, False, None),
        (10, None, True, None),
    ],
)
def test_a_ratio_above_1_is_better(value, base, is_rate, wanted):
    assert ratio(value, base, is_rate=is_rate) == wanted


def test_ratios_of_rounds_leave_out_what_failed():
    assert round_ratios([2, 0, 9], [1, 1, 3], is_rate=True) == [2, 3]


def test_the_median_ignores_missing_values():
    assert known_median([None, 3, 1, 2]) == 2
    assert known_median([None]) is None
    assert known_median([]) is None


def test_each_server_has_a_row():
    seen = {"ours": samples(10, 40, 20), "docker-registry": samples(10, 10, 5)}
    ours, base = rows(RATE, seen, {"ours": 4.0})
    assert (ours.server, ours.median, ours.low, ours.high) == ("ours", 20, 10, 40)
    assert (ours.ratio, ours.ratios) == (2, (1, 4))
    assert (base.ratio, base.ratios) == (1, (1, 1))
    assert (ours.fsyncs, base.fsyncs, ours.pushed) == (4, None, 4096)


def test_a_longer_time_has_a_ratio_below_one():
    ours, _ = rows(TIME, {"ours": samples(300), "docker-registry": samples(15)}, {})
    assert ours.ratio == 0.05


def test_without_the_base_there_is_no_ratio():
    (ours,) = rows(RATE, {"ours": samples(1, 2, 3)}, {})
    assert ours.ratio is None
    assert ours.ratios is None


def test_processor_time_is_given_per_request():
    seen = samples(100, count=50, processor=0.1, generator=0.3, elapsed=1.0)
    (ours,) = rows(RATE, {"ours": seen}, {})
    assert (ours.processor, ours.each, ours.generator) == (0.1, 2, 0.3)


def test_rows_count_errors_and_keep_the_first_fault():
    seen = [Sample(5), failed_sample("the first"), failed_sample("the second")]
    (ours,) = rows(RATE, {"ours": seen}, {})
    assert (ours.errors, ours.fault, ours.median) == (2, "the first", 0)
