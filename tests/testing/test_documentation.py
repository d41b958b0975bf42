"""The samples of ``docs/testing.rst`` run as printed.

Those that begin with the name of a file are in ``tests/test_samples.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.rst"


def samples():
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
    dedented = [textwrap.dedent(sample).strip() + "\n" for sample in found]
    return [sample for sample in dedented if not sample.startswith("# ")]


@pytest.mark.parametrize("number", range(len(samples())))
def test_a_sample_runs_as_printed(number, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", samples()[number]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(PAGE.parent.parent), "PATH": ""},
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_samples():
    assert len(samples()) >= 4
    assert all("twisted_registry.testing" in sample for sample in samples())
