"""Records of runs: written, read, and joined."""

import pytest
from attrs import evolve

from tests.bench.cases import Case
from tests.bench.figures import rows
from tests.bench.record import Record, ServerUsage, join, read
from tests.bench.samples import Measure, Sample


def run(name, value):
    case = Case(name, "req/s", Measure(), "manifests")
    found = rows(case, {"ours": [Sample(value, p50=1.0)], "docker-registry": [Sample(1)]}, {})
    used = [ServerUsage("ours", "", 50.0, 60.0, 1.5)]
    return Record(5, 2.0, False, ["Python 3"], found, used)


def test_a_written_record_is_read_back(tmp_path):
    record = run("a", 3)
    record.write(tmp_path / "run.json")
    again = read(tmp_path / "run.json")
    assert again.used == record.used
    assert [evolve(row, ratios=tuple(row.ratios)) for row in again.rows] == record.rows


@pytest.mark.parametrize("text", ["{}", "[]", '{"rows": [{}]}', "no JSON"])
def test_files_that_are_no_record_are_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json is not a record"):
        read(tmp_path / "run.json")


def test_joined_records_keep_the_last_row_of_each_case():
    both = join([run("a", 3), run("b", 4), run("a", 5)])
    assert [(row.case, row.server, row.median) for row in both.rows] == [
        ("b", "ours", 4),
        ("b", "docker-registry", 1),
        ("a", "ours", 5),
        ("a", "docker-registry", 1),
    ]
    assert len(both.used) == 3
