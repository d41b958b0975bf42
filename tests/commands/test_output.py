"""The output of the commands: times, tables and the progress bar."""

from __future__ import annotations

import io
import json
from argparse import Namespace

import pytest
from twisted.internet.task import Clock

from twisted_registry.commands.output import (
    ListPrinter,
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


def test_without_a_terminal_a_line_is_printed_now_and_then():
    out, clock = io.StringIO(), Clock()
    with ProgressBar(out, is_terminal=False, clock=clock.seconds) as bar:
        assert not bar.is_visible
        bar.draw_progress("items", 1, 4)
        clock.advance(30)
        bar.draw_progress("items", 2, 4)
        bar.show_line("at once again")
        clock.advance(30)
        bar.draw_progress("unknown", 3, 0)
    assert out.getvalue() == "items: 2 of 4\nunknown: 3\n"


def test_a_short_command_prints_no_progress_to_a_file():
    out = io.StringIO()
    with ProgressBar.on(out) as bar:
        assert not bar.is_visible
        bar.draw_progress("items", 1, 2)
    assert not out.getvalue()


ITEMS = [({"name": "a"}, "A"), ({"name": "b"}, "B")]


@pytest.mark.parametrize(
    ("flags", "items", "out"),
    [
        ("", ITEMS, "A\nB\n"),
        ("", [], ""),
        ("json", ITEMS, '{"things": [{"name": "a"}, {"name": "b"}]}\n'),
        ("json", [], '{"things": []}\n'),
        ("json_lines", ITEMS, '{"name": "a"}\n{"name": "b"}\n'),
        ("json json_lines", ITEMS[:1], '{"name": "a"}\n'),
        ("json_lines", [], ""),
    ],
)
def test_a_listing_has_one_shape(flags, items, out, capsys):
    options = Namespace(**{flag: flag in flags.split() for flag in ("json", "json_lines")})
    with ListPrinter.of("things", options) as printer:
        for data, line in items:
            printer.print_item(data, line)
    assert capsys.readouterr().out == out


def test_a_listing_that_fails_is_no_complete_document(capsys):
    printer = ListPrinter("things", as_json=True)

    def fail_in_the_middle():
        with printer:
            printer.print_item({"name": "a"}, "A")
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        fail_in_the_middle()
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(capsys.readouterr().out)
