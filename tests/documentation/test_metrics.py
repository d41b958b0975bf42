"""The page about metrics lists those that exist."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from twisted_registry.metrics.counts import Counts
from twisted_registry.metrics.families import METRIC_FAMILIES
from twisted_registry.metrics.prometheus import render_metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.rst"
ROW = re.compile(r"   \* - ``(\w+)``\n     - (.+)\n     - ((?:.+\n)+?)(?=   \* |\n)")


def table_rows():
    """Return labels and meaning of each metric in the table."""
    return {
        name: ([] if labels == "none" else labels.replace("`", "").split(", "), joined(meaning))
        for name, labels, meaning in ROW.findall(PAGE.read_text())
    }


def joined(lines):
    return " ".join(lines.split())


def test_the_table_has_all_metrics_with_their_help_texts():
    text = render_metrics(Counts(), []).decode()
    assert {name: meaning for name, (_, meaning) in table_rows().items()} == {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation
        for family in text_string_to_metric_families(text)
    }


def test_the_table_has_the_labels_of_what_processes_count():
    rows = table_rows()
    for name, family in METRIC_FAMILIES.items():
        labels, _ = rows.get(name) or rows[f"{name}_total"]
        assert labels == list(family.labels), name
