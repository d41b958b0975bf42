"""The charts of the benchmarks: ratios to docker-registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.kinds import BARE, DISTRIBUTION, OURS
from tests.bench.report import rounded
from tests.bench.svg import Bar, chart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.figures import Row
    from tests.bench.record import Record

TITLES = {
    "pulls": "Pulls",
    "pushes": "Pushes",
    "buckets": "In a bucket",
    "lists": "Lists, whole copies, start and memory",
}
#: Group -> heading of its bars.
HEADINGS = {
    "manifests": "Manifests",
    "blobs": "Blobs",
    "pushes": "Pushes",
    "lists": "Lists, and a delete",
    "copies": "skopeo copy --all",
    "footprint": "Start and memory",
    "log": "With the access log",
    "gated": "With access control and a gate",
    "logins": "With passwords, and with tokens",
    "metrics": "With metrics",
    "notifications": "With notifications to an endpoint that is down",
    "tls": "Over TLS",
    "workers": "With two workers",
    "s3": "Over the same gateway of Ceph",
}


def write_charts(record: Record, folder: Path) -> None:
    """Write a chart for each kind of work that was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TITLES:
        if drawn := draw(record, name):
            (folder / f"{name}.svg").write_text(drawn)


def draw(record: Record, name: str) -> str:
    """Draw one chart; ``""`` if it has no rows."""
    others: dict[str, dict[str, Row]] = {}
    for row in record.rows:
        others.setdefault(row.case, {})[row.server] = row
    sections: dict[str, list[Bar]] = {}
    for row in record.rows:
        if row.server == OURS and row.ratio and not row.errors and picture_of(row) == name:
            heading = HEADINGS.get(row.group, row.group)
            sections.setdefault(heading, []).append(_bar(row, others[row.case]))
    if not sections:
        return ""
    subtitle = (
        f"{_base(record.versions)} is 1, on a logarithmic scale; "
        f"medians of {record.rounds} rounds, thin lines from the worst to the best of them"
    )
    return chart(f"{TITLES[name]}, beside docker-registry", subtitle, sections)


def picture_of(row: Row) -> str:
    """Return the chart of a case."""
    if row.group in {"lists", "copies", "footprint"}:
        return "lists"
    if row.group == "s3":
        return "buckets"
    is_push = row.pushed or row.case.startswith(("cross mount", "manifest GET p99 beside"))
    return "pushes" if is_push else "pulls"


def _bar(row: Row, beside: dict[str, Row]) -> Bar:
    text = rounded(row.ratio)
    if not row.unit.endswith("/s"):
        text += f" ({rounded(row.median)} : {rounded(beside[DISTRIBUTION].median)} {row.unit})"
    marks = {
        name: other.ratio
        for name, other in beside.items()
        if name not in {OURS, DISTRIBUTION, BARE} and other.ratio and not other.errors
    }
    return Bar(row.case, row.ratio or 1, text, row.ratios or (), marks)


def _base(versions: Sequence[str]) -> str:
    """Return docker-registry with its version, if known."""
    lines = [line for line in versions if line.startswith(f"{DISTRIBUTION}: ")]
    return f"{DISTRIBUTION} {lines[0].split()[-1]}" if lines else DISTRIBUTION
