"""The commands of the documentation that need no client program.

Those that need one are in ``tests/integration/test_documentation.py``.
"""

from __future__ import annotations

import re

import pytest

from tests.documentation.pages import ROOT, Block, each_block, read_blocks
from tests.documentation.shell import (
    MORE,
    REAL,
    SESSIONS,
    STAND_INS,
    SUBSTITUTIONS,
    blocks_with_clients,
    matches,
    programs_of,
    read_commands,
    run_block,
)


@each_block(blocks_with_clients(wanted=False))
def test_the_commands_of_a_block_succeed(block, tmp_path):
    run_block(block, tmp_path)


def test_every_substitution_and_every_stand_in_is_needed():
    blocks = [*blocks_with_clients(wanted=True), *blocks_with_clients(wanted=False)]
    text = "".join(block.text for block in blocks)
    assert [name for name in SUBSTITUTIONS if name not in text] == []
    used = set().union(*(programs_of(block) for block in blocks))
    assert STAND_INS.keys() - used == set()
    scripts = [text, *SUBSTITUTIONS.values(), *(script for script, _ in STAND_INS.values())]
    assert [name for name in REAL if not re.search(rf"\b{name} ", "\n".join(scripts))] == []
    assert MORE.keys() <= {block.page for block in blocks}
    assert SESSIONS.keys() <= {block.page for block in read_blocks()}
    assert all((ROOT / path).exists() for path in SESSIONS.values())


def test_commands_are_separated_from_their_output():
    block = Block("x.rst", 1, "console", "$ one a \\\n>   b | two && three\nout\n$ four 2>&1\n")
    assert [(each.text, each.output) for each in read_commands(block)] == [
        ("one a \\\n  b | two && three\n", "out\n"),
        ("four 2>&1\n", ""),
    ]
    assert programs_of(block) == {"one", "two", "three", "four"}


def test_the_output_that_is_shown_is_compared(tmp_path):
    text = "$ cp notes.txt docs\n$ twisted-registry --version\ntwisted-registry ...\n"
    (tmp_path / "right").mkdir()
    run_block(Block("x.rst", 1, "console", text), tmp_path / "right")
    (tmp_path / "wrong").mkdir()
    with pytest.raises(AssertionError, match=r"x\.rst:1 shows\n *registry "):
        run_block(
            Block("x.rst", 1, "console", text.replace("\ntwisted-", "\n")), tmp_path / "wrong"
        )


@pytest.mark.parametrize(
    ("shown", "printed", "wanted"),
    [
        ("a\n", "a\n", True),
        ("{}\n", "{}", True),
        ("a\n", "a\nb\n", False),
        ("sha256:... a\n", "sha256:12 a\n", True),
        ("a...b\n", "a\nb\n", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
    ],
)
def test_dots_stand_for_anything(shown, printed, wanted):
    assert matches(shown, printed) is wanted
