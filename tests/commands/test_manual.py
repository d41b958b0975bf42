"""The manual page. ``tests/integration/test_man.py`` formats it."""

from __future__ import annotations

import re

import pytest

from twisted_registry import __version__
from twisted_registry.commands.manual import escape, main, make_manual
from twisted_registry.commands.parser import make_parser


@pytest.fixture(scope="module")
def page():
    return make_manual(make_parser(), "2026-01-31")


def test_the_page_has_its_sections_in_order(page):
    assert re.findall(r"^\.SH (.*)", page, re.MULTILINE) == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "FILES", "ENVIRONMENT"),
        *("EXIT STATUS", "SEE ALSO"),
    ]
    assert page.startswith('.TH "TWISTED\\-REGISTRY" "1" "2026-01-31" ')
    assert f'"twisted\\-registry {__version__}"' in page


def test_every_command_and_argument_has_an_entry(page):
    sections = dict(re.findall(r"^\.SS (.*)\n((?:(?!\.S[SH]).*\n)*)", page, re.MULTILINE))
    for path, parser in make_parser().walk():
        if not path or parser.commands:
            continue
        section = sections.pop(escape(path))
        for argument in parser.arguments:
            names = argument.option_strings or argument.choices or [argument.metavar]
            if "--help" not in names:
                entries = re.findall(r"^\.TP\n(.*)", section, re.MULTILINE)
                assert any(all(escape(name) in line for name in names) for line in entries)
    assert not sections


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("--dry-run", r"\-\-dry\-run"),
        ("a\\b", r"a\eb"),
        (".TH", r"\&.TH"),
        ("a\n.b\nc.d", "a\n\\&.b\nc.d"),
        ("'team/**'", r"\(aqteam/**\(aq"),
        ("`~^", r"\(ga\(ti\(ha"),
    ],
)
def test_text_is_escaped(text, escaped):
    assert escape(text) == escaped


def test_the_date_is_that_of_the_source(capsys):
    main({"SOURCE_DATE_EPOCH": "1769817600"})
    assert '"2026-01-31"' in capsys.readouterr().out.partition("\n")[0]
