"""The blocks of the documentation: code, configurations, commands, drawings, by page and line.

Pages are parsed with docutils. A block is what ``.. code-block::`` contains, the file that
``.. literalinclude::`` names, or code in a docstring that the reference of the API shows. Its
language says which test runs it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives, roles

ROOT = Path(__file__).parents[2]
#: Has ``my_package``, the package of a reader of ``docs/embedding.rst``.
FOLDER = Path(__file__).parent

#: The module that runs the blocks of a language.
RUNNERS = {
    "console": "tests/documentation/shell.py",
    "json": "tests/documentation/test_notifications.py",
    "nginx": "tests/integration/test_documentation.py",
    "python": "tests/documentation/test_python.py",
    "sh": "tests/documentation/shell.py",
    "text": "tests/documentation/test_drawings.py",
    "toml": "tests/documentation/test_configurations.py",
    "yaml": "tests/documentation/test_configurations.py",
}
#: Directives and roles of Sphinx, and of the extensions in ``docs/``, without a block.
_OF_SPHINX = re.compile(r"\.\. ((?:auto|py:)[\w:]+|(?:current)?module|toctree)::")
_ROLE = re.compile(r":([\w:]+):`")


@frozen
class Block:
    """A block of a page.

    :ivar page: the path of the page from the root of the project.
    :ivar line: the line on which the block begins.
    :ivar language: what ``.. code-block::`` names; empty for another kind of block.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Page and line, for messages and the names of tests."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The name of the file that the block is, from a comment on its first line."""
        found = re.match(r"# ([\w-]+\.\w+)$", self.text.partition("\n")[0])
        return found[1] if found else ""


class _CodeBlock(Directive):
    """``code-block`` of Sphinx and GitHub, without colours, with the line of its text."""

    has_content = True
    optional_arguments = 1
    option_spec = dict.fromkeys(
        ("caption", "class", "emphasize-lines", "name"), directives.unchanged
    )

    def run(self):
        language = self.arguments[0] if self.arguments else ""
        return [_literal("\n".join(self.content) + "\n", self.content_offset + 1, language)]


class _Include(Directive):
    """``literalinclude`` of a whole file."""

    required_arguments = 1
    option_spec = dict.fromkeys(("caption", "language", "name"), directives.unchanged)

    def run(self):
        page = Path(self.state.document["source"])
        text = (page.parent / self.arguments[0]).read_text(encoding="utf-8")
        return [_literal(text, self.lineno, self.options.get("language", ""))]


class _Ignored(Directive):
    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        return []


class _IncludedPage(Directive):
    """``include`` of another page, which is read by itself."""

    required_arguments = 1

    def run(self):
        page = Path(self.state.document["source"])
        if (page.parent / self.arguments[0]).resolve() not in paths_of_pages():
            raise self.error(f"{self.arguments[0]} is no page, so its blocks would not be found")
        return []


def _literal(text, line, language):
    node = nodes.literal_block(text, text)
    node.line = line
    node["language"] = language
    return node


def _role(_role, _raw, text, *_):
    return [nodes.literal(text, text)], []


@cache
def _document(path: Path):
    return _parse(path.read_text(encoding="utf-8"), str(path))


def _parse(text, path=None):
    for name in ("code-block", "sourcecode", "code"):
        directives.register_directive(name, _CodeBlock)
    directives.register_directive("literalinclude", _Include)
    directives.register_directive("include", _IncludedPage)
    for name in _OF_SPHINX.findall(text):
        directives.register_directive(name, _Ignored)
    for name in _ROLE.findall(text):
        roles.register_local_role(name, _role)
    settings = {"report_level": 5, "halt_level": 5, "keep_warnings": True}
    return publish_doctree(text, source_path=path, settings_overrides=settings)


def paths_of_pages() -> list[Path]:
    """Return the paths of all pages."""
    return [*sorted(ROOT.glob("*.rst")), *sorted((ROOT / "docs").rglob("*.rst"))]


def read_mistakes():
    """Return what docutils complains about in all pages: an unknown directive hides its blocks."""
    found = []
    for path in paths_of_pages():
        for message in _document(path).findall(nodes.system_message):
            if message["level"] > 1:
                text = message.astext().partition("\n")[0]
                found.append(f"{path.relative_to(ROOT)}:{message.get('line')}: {text}")
    return found


def _docstrings():
    """Yield path, line and text of the docstrings with blocks that the reference of the API shows.

    It names their modules, classes and functions after ``auto...``.
    """
    pages = "\n".join(path.read_text(encoding="utf-8") for path in paths_of_pages())
    modules = set(re.findall(r"^\.\. automodule:: ([\w.]+)", pages, re.MULTILINE))
    names = set(re.findall(r"^\.\. auto\w+:: (?:\w+\.)*(\w+)", pages, re.MULTILINE))
    for path in sorted((ROOT / "twisted_registry").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "::\n" not in text:
            continue
        tree = ast.parse(text)
        found = []
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) in modules:
            found.append(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in names:
                found += [node, *(each for each in node.body if isinstance(each, ast.FunctionDef))]
        for node in found:
            docstring = ast.get_docstring(node) or ""
            if "::\n" in docstring:
                yield path, node.body[0].lineno, docstring


def _docstring_blocks():
    """Yield the blocks of docstrings, which are Python if they name no language, as in Sphinx."""
    for path, line, text in _docstrings():
        for node in _parse(text).findall(nodes.literal_block):
            place = str(path.relative_to(ROOT)), line + node.line - 1
            yield Block(*place, node.get("language", "python"), node.astext())


@cache
def read_blocks() -> tuple[Block, ...]:
    """Return all blocks of all pages, in order."""
    found = []
    for path in paths_of_pages():
        page = str(path.relative_to(ROOT))
        for node in _document(path).findall(nodes.FixedTextElement):
            if isinstance(node, nodes.literal_block | nodes.doctest_block):
                if isinstance(node.parent, nodes.system_message):
                    continue
                found.append(Block(page, node.line or 0, node.get("language", ""), node.astext()))
    return (*found, *_docstring_blocks())


def blocks_in(*languages: str) -> list[Block]:
    """Return the blocks of these languages."""
    return [block for block in read_blocks() if block.language in languages]


def each_block(blocks):
    """Parametrize a test with ``block``, named after page and line."""
    return pytest.mark.parametrize("block", blocks, ids=lambda block: block.place)


def read_literals() -> list[tuple[str, str]]:
    """Return what is in double backquotes in the text, with its page."""
    return [
        (str(path.relative_to(ROOT)), " ".join(node.astext().split()))
        for path in paths_of_pages()
        for node in _document(path).findall(nodes.literal)
    ]
