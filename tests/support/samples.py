"""The programs and test modules in README and ``docs/``: blocks that begin with a file name."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"::\n\n((?:    .*\n|\n)+)")


def read_samples():
    """Return the text of each sample by its page and file."""
    found = {}
    for page in (ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))):
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            text = textwrap.dedent(block).strip() + "\n"
            if name := re.match(r"# (\w+\.py)\n", text):
                assert (page.name, name[1]) not in found
                found[page.name, name[1]] = text
    return found
