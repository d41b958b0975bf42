"""The report: rows, faults and remarks."""

import pytest
from attrs import evolve

from tests.bench.cases import Case
from tests.bench.figures import rows
from tests.bench.record import Record, ServerUsage
from tests.bench.report import remarks, rounded, short_table, table, usage
from tests.bench.samples import Measure, Sample, failed_sample

PUSH = Case("push 4 KiB", "push/s", Measure(), "pushes", pushed=4096, headline=True)
GET = Case("GET", "req/s", Measure(), "manifests", headline=True)
START = Case("start", "ms", Measure(), "footprint", headline=True)
FOUND = [
    *rows(PUSH, {"ours": [Sample(30)], "docker-registry": [Sample(20)]}, {"ours": 7.0}),
    *rows(GET, {"ours": [Sample(9, p99=1.25)], "docker-registry": [Sample(3, p99=30)]}, {}),
    *rows(
        START,
        {"ours": [Sample(300)], "docker-registry": [Sample(15)], "bare": [Sample(250)]},
        {},
    ),
]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.01234, "0.0123"),
        (12.345, "12.3"),
        (99.96, "100"),
        (12345, "12345"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert rounded(value) == text


def test_the_table_has_a_line_for_each_row():
    lines = table(FOUND).splitlines()
    assert len(lines) == 1 + len(FOUND)
    assert lines[1].split()[:6] == ["push", "4", "KiB", "ours", "30", "push/s"]
    assert lines[1].split()[-2:] == ["7", "0"]
    assert lines[2].split()[-2:] == ["unknown", "0"]


def test_faults_and_busy_generators_are_listed():
    broken = rows(GET, {"ours": [failed_sample("it broke:\na\nb\nits end")]}, {})
    busy = [evolve(FOUND[0], generator=0.9)]
    text = table([*broken, *busy])
    assert "error: GET, ours: it broke: ... its end\n" in text
    assert "may be the limit: push 4 KiB, ours" in text


def test_the_short_table_is_restructured_text():
    lines = short_table(FOUND).splitlines()
    assert lines[0] == lines[2] == lines[-1]
    assert set(lines[0]) == {"=", " "}
    assert [line.split("  ")[0] for line in lines[3:-1]] == ["push 4 KiB", "GET", "start"]
    assert lines[4].endswith("3 (p99 1.25 : 30 ms)")
    assert lines[5].endswith("0.05 (300 : 15 ms)")


def test_the_short_table_has_headline_cases_only():
    assert "GET" not in short_table([evolve(row, headline=row.case != "GET") for row in FOUND])


def test_remarks_compare_with_a_bare_process():
    text = "\n".join(remarks(Record(5, 2.0, False, ["Python 3.11"], FOUND)))
    assert "start: 1.2 times that of a bare process" in text
    assert "5 rounds of 2 s; Python 3.11." in text
    assert "quick" not in text
    assert "not installed" not in text


def test_remarks_name_what_is_missing():
    alone = [row for row in FOUND if row.server == "ours"]
    text = "\n".join(remarks(Record(1, 0.3, True, [], alone, left_out=["GET, TLS"])))
    assert "does not support the setup: GET, TLS." in text
    assert "docker-registry is not installed" in text
    assert "A quick run" in text


def test_usage_names_the_setup():
    lines = usage(
        [ServerUsage("ours", "", 50, 80, 1.5), ServerUsage("ours", "TLS", 51, 81, 2)]
    ).splitlines()
    assert lines[1].split() == ["ours", "plain", "50", "80", "1.5"]
    assert lines[2].split()[1] == "TLS"


def test_remarks_name_the_peak_memory_of_each_server():
    used = [
        ServerUsage("ours", "", 50, 60, 1),
        ServerUsage("ours", "TLS", 50, 70.4, 1),
        ServerUsage("docker-registry", "", 20, 150, 1),
    ]
    text = "\n".join(remarks(Record(1, 0.3, True, [], [], used)))
    assert "whole run: ours 70.4 MiB (TLS), docker-registry 150 MiB (plain)." in text
