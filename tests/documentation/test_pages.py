"""Every block has a test, and what the pages name exists."""

from __future__ import annotations

import contextlib
import io
import re
import shlex

import pytest

from tests.documentation.pages import (
    ROOT,
    RUNNERS,
    blocks_in,
    each_block,
    paths_of_pages,
    read_blocks,
    read_literals,
    read_mistakes,
)
from twisted_registry.commands.parser import make_parser
from twisted_registry.config.schema import Configuration
from twisted_registry.config.sections import schema_keys

#: Fields of lines of the log that begin like keys of the configuration.
LOG_FIELDS = {
    "auth.user.name",
    "http.request.host",
    "http.request.id",
    "http.request.method",
    "http.request.peer",
    "http.request.remoteaddr",
    "http.response.status",
}


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
    pages = "".join(path.read_text(encoding="utf-8") for path in paths_of_pages())
    named = set(re.findall(r"\bextras?\s+``(\w+)``|twisted-registry\[(\w+)\]", pages))
    named = {name for either in named for name in either if name}
    assert named >= {"auth", "acme", "metrics"}
    assert all(f'"{name}": ' in setup for name in named), named


def reject(text):
    """Return why the command line does not accept what the text names; empty if it does.

    The text may leave arguments out, and give alternatives (``status|run``) and names in capitals.
    """
    words = shlex.split(re.sub(r"(\w)\|\S+", r"\1", text).partition(" | ")[0])
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.suppress(SystemExit):
        make_parser().parse_args(words[1:])
    error = errors.getvalue().partition(": ")[2]
    is_short = error.startswith("the following arguments are required")
    return "" if is_short or re.search(r"invalid choice: '[A-Z]+'", error) else error


def test_the_command_lines_in_the_text_are_accepted():
    named = {text for _, text in read_literals() if text.startswith("twisted-registry ")}
    assert len(named) > 10
    assert {text: error for text in named if (error := reject(text))} == {}
    assert "unrecognized arguments" in reject("twisted-registry fsck --heal FILE")


def test_the_keys_in_the_text_exist():
    """A dotted name that begins like a section is a key, a module or a field of the log."""
    literals = [(page, re.sub(r"\[\d*\]", "", text)) for page, text in read_literals()]
    keys = {text for page, text in literals if page == "docs/configuration.rst"}
    sections = "|".join(schema_keys(Configuration))
    unknown = set()
    for page, text in literals:
        found = re.match(rf"((?:{sections})(?:\.[a-z0-9]+)+)(?=:|$)", text)
        if found and found[1] not in keys | LOG_FIELDS:
            path = ROOT / "twisted_registry" / found[1].replace(".", "/")
            if not path.is_dir() and not path.with_suffix(".py").exists():
                unknown.add((page, text))
    assert unknown == set()


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
