"""The charts: valid XML, all marks inside, no case left out."""

import re
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve

from tests.bench.cases import all_cases
from tests.bench.charts import draw, picture_of, write_charts
from tests.bench.figures import rows
from tests.bench.record import Record
from tests.bench.samples import Sample
from tests.bench.seed import QUICK, Content
from tests.bench.svg import Bar, Scale, chart, scale_of

SVG = "{http://www.w3.org/2000/svg}"
CASES = all_cases(Content(QUICK))


@pytest.fixture
def record():
    """A run of every case; ours is twice as fast as docker-registry, nginx eight times."""
    found = []
    for case in CASES:
        values = {"ours": 2, "docker-registry": 1, **({"nginx": 8} if case.static else {})}
        found += rows(case, {name: [Sample(value)] for name, value in values.items()}, {})
    return Record(5, 2.0, False, ["docker-registry: registry 2.8.3"], found)


def texts(drawn):
    return ["".join(node.itertext()) for node in ET.fromstring(drawn).iter(f"{SVG}text")]


def test_every_case_is_in_one_picture(record, tmp_path):
    write_charts(record, tmp_path)
    drawn = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(drawn) == ["buckets", "lists", "pulls", "pushes"]
    shown = [text for each in drawn.values() for text in texts(each)]
    for case in CASES:
        assert shown.count(case.name) == 1
    assert any(text.startswith("docker-registry 2.8.3 is 1") for text in texts(drawn["pulls"]))


def test_ratios_below_one_are_drawn_as_behind(record):
    lost = [evolve(row, ratio=0.05, ratios=(0.04, 0.06)) for row in record.rows]
    drawn = draw(evolve(record, rows=lost), "lists")
    styles = [node.get("class") for node in ET.fromstring(drawn).iter(f"{SVG}rect")]
    bars = sum(picture_of(row) == "lists" and row.server == "ours" for row in lost)
    assert styles.count("behind") == bars + 1  # and the legend
    assert styles.count("ahead") == 1


def test_no_rows_give_no_picture(record):
    assert draw(evolve(record, rows=[]), "pulls") == ""
    failed = [evolve(row, errors=1) for row in record.rows]
    assert draw(evolve(record, rows=failed), "pulls") == ""


def test_times_are_shown_with_their_ratio(record):
    assert "0.5 (2 : 1 ms)" in texts(draw(record, "lists"))


def test_text_is_escaped():
    drawn = chart("a < b & c", "", {"<h>": [Bar("x > y", 2, "2")]})
    assert {"a < b & c", "<h>", "x > y"} <= set(texts(drawn))


def test_charts_have_colours_for_a_dark_scheme():
    assert "prefers-color-scheme: dark" in chart("", "", {})


@pytest.mark.parametrize("values", [[1, 4], [0.004, 30], [0.5, 0.9], [], [100, 2000]])
def test_a_scale_covers_all_values(values):
    scale = scale_of(values)
    right = scale.left + scale.width
    places = [scale.place(value) for value in sorted([1, *values]) if value >= scale.low]
    assert places == sorted(places)
    assert all(scale.left <= place <= right for place in places)
    assert len(places) == len(values) + 1 or min(values) > 1
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())


def test_ticks_are_fewer_over_many_decades():
    assert Scale(0.9, 12).ticks() == [1, 2, 5, 10]
    assert Scale(0.009, 120).ticks() == [0.01, 0.1, 1, 10, 100]


def test_every_place_is_inside_the_picture(record):
    drawn = draw(record, "pulls")
    root = ET.fromstring(drawn)
    width, height = float(root.get("width")), float(root.get("height"))
    for name, limit in (("x", width), ("cx", width), ("y", height), ("y2", height)):
        found = [float(node.get(name)) for node in root.iter() if node.get(name)]
        assert all(0 <= value <= limit for value in found)
    assert len(re.findall('class="mark"', drawn)) > 20
