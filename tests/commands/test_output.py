"""The output of the commands: times, tables and the progress bar."""

from __future__ import annotations

import io

from twisted_registry.commands.output import (
    ProgressBar,
    format_count,
    format_size,
    format_span,
    format_table,
    format_time,
)


def test_times_are_iso_8601_in_utc():
    assert format_time(86_400.9) == "1970-01-02T00:00:00Z"
    assert format_time(1.5, "microseconds") == "1970-01-01T00:00:01.500000Z"


def test_numbers_have_their_nouns_and_units():
    assert [format_count(count, "blob") for count in (0, 1, 2)] == ["0 blobs", "1 blob", "2 blobs"]
    assert format_count(2, "repository", "repositories") == "2 repositories"
    sizes = {0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 2**30: "1.0 GiB", 2**51: "2048.0 TiB"}
    assert {size: format_size(size) for size in sizes} == sizes
    spans = {
        0: "0 s",
        0.25: "0.25 s",
        60: "1 minute",
        86400: "1 day",
        5400: "1 hour 30 minutes",
        7 * 86400 + 7261: "7 days 2 hours",
    }
    assert {span: format_span(span) for span in spans} == spans


def test_the_columns_of_a_table_are_aligned():
    assert format_table([("", "A", "B"), ("-", "long", ""), ("", "x", "y")]) == (
        "   A     B\n-  long\n   x     y\n"
    )


def test_the_bar_is_cleared_at_the_end():
    out = io.StringIO()
    with ProgressBar(out) as bar:
        bar.draw_progress("items", 0, 0)
    assert out.getvalue() == f"\r\x1b[Kitems [{'#' * 40}] 0 of 0\r\x1b[K"


def test_without_a_terminal_the_bar_shows_nothing():
    out = io.StringIO()
    with ProgressBar.on(out) as bar:
        assert not bar.is_visible
        bar.draw_progress("items", 1, 2)
    assert not out.getvalue()
