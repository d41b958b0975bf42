"""Every block has a test, and what the pages name exists."""

from __future__ import annotations

import re

import pytest

from tests.documentation.pages import (
    ROOT,
    RUNNERS,
    blocks_in,
    each_block,
    read_blocks,
    read_literals,
    read_mistakes,
)


@each_block(read_blocks())
def test_a_block_has_a_language_and_with_it_a_test(block):
    assert block.language in RUNNERS, (
        f"{block.place}: no test runs a block of the language {block.language!r}."
        f" Begin it with '.. code-block:: LANGUAGE', one of {', '.join(RUNNERS)}; or enter another"
        " language with the module that runs it in RUNNERS (tests/documentation/pages.py)."
    )


def test_every_runner_has_a_block():
    assert {block.language for block in read_blocks()} == RUNNERS.keys()
    assert not [path for path in RUNNERS.values() if not (ROOT / path).exists()]


def test_pages_have_no_mistakes():
    assert read_mistakes() == []


def test_the_kinds_of_programs_that_the_readme_promises_are_shown():
    files = {block.file for block in blocks_in("python")}
    assert files >= {"app.py", "site_app.py", "klein_app.py", "asyncio_app.py"}
    assert files >= {"test_pull.py", "test_fixtures.py", "test_without_plugin.py", "test_trial.py"}


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        name
        for _, text in read_literals()
        if text.startswith("make ")
        for name in text.removeprefix("make ").split()
        if "=" not in name
    }
    assert named >= {"serve", "test", "lint", "types"}
    assert all(f"\n{name}:" in makefile for name in named), named


def test_the_extras_exist():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    named = set(re.findall(r"twisted-registry\[(\w+)\]", " ".join(t for _, t in read_literals())))
    assert named >= {"auth", "acme", "metrics"}
    assert all(f'"{name}": ' in setup for name in named), named


@pytest.mark.parametrize("page", ["CONTRIBUTING.rst", "docs/design.rst"])
def test_the_paths_in_a_page_for_developers_exist(page):
    """Paths are relative to the repository, the package, or one of its folders."""
    paths = {
        text
        for found, text in read_literals()
        if found == page
        if re.fullmatch(r"[\w.][\w./]*(\.py|\.yml|\.rst|\.txt|\w/)", text) and "NAME" not in text
    }
    assert paths
    package = ROOT / "twisted_registry"
    folders = [ROOT, package, *(path for path in package.rglob("*") if path.is_dir())]
    assert not {path for path in paths if not any((folder / path).exists() for folder in folders)}
