"""The generated reference, and the imports that loading a configuration needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from twisted_registry.config.reference import EXAMPLES, reference
from twisted_registry.config.schema import Configuration
from twisted_registry.config.sections import schema_keys

PAGE = Path(__file__).parents[2] / "docs" / "configuration.rst"
COMMAND = [sys.executable, "-m", "twisted_registry.config.reference"]


def test_the_reference_in_docs_is_up_to_date():
    assert PAGE.read_text() == reference(), f"regenerate it: {' '.join(COMMAND[1:])} > {PAGE.name}"


def test_the_examples_have_their_sections():
    """``tests/documentation`` reads and serves them."""
    assert EXAMPLES.keys() <= schema_keys(Configuration).keys()
    assert all(section in yaml.safe_load(text) for section, text in EXAMPLES.items())


def test_the_command_writes_the_reference():
    run = subprocess.run(COMMAND, capture_output=True, text=True, check=True, cwd=PAGE.parents[1])
    assert run.stdout == PAGE.read_text()


def test_loading_a_configuration_does_not_import_twisted():
    code = (
        "import sys, twisted_registry.config.loading;"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('twisted', 'cattrs')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=PAGE.parents[1],
    )  # fmt: skip
    assert run.stdout.strip() == "[]"
