"""The manual page in the programs that show it."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.integration.servers import program
from twisted_registry.commands.manual import make_manual
from twisted_registry.commands.parser import make_parser

pytestmark = pytest.mark.integration


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "twisted-registry.1"
    path.write_text(make_manual(make_parser(), "2026-01-31"))
    return path


@pytest.mark.parametrize(
    "command",
    [("mandoc", "-T", "lint"), ("groff", "-ww", "-z", "-man", "-T", "utf8")],
    ids=lambda command: command[0],
)
def test_there_are_no_warnings(command, page):
    done = subprocess.run(
        (program(command[0]), *command[1:], str(page)), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "command",
    [
        ("mandoc", "-T", "utf8", "-O", "width=300"),
        ("groff", "-man", "-T", "utf8", "-P", "-c", "-rLL=300n"),
    ],
    ids=lambda command: command[0],
)
def test_words_are_shown_as_they_are_typed(command, page):
    shown = subprocess.run(
        (program(command[0]), *command[1:], str(page)), capture_output=True, text=True, check=True
    ).stdout
    text = " ".join(re.sub(".\b", "", shown).split())  # bold is written by going back
    assert "twisted-registry garbage-collect [-d | --dry-run] [-m | --delete-untagged]" in text
    restore = "[--at TIME] [--json] [-c FILE | --config FILE] WHAT [FILE]"
    assert f"twisted-registry trash restore {restore}" in text
    assert "'team/**,!team/secret:pull,push'" in text
