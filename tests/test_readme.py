"""README and CONTRIBUTING.rst: the configuration is valid, make targets and paths exist."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.rst"
CONTRIBUTING = ROOT / "CONTRIBUTING.rst"


def blocks(path):
    text = path.read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", text)]


def test_the_configuration_example_is_valid():
    from twisted_registry.config.loading import load_text

    shown = next(block for block in blocks(README) if block.startswith("version: 0.1"))
    loaded = load_text(shown, {})
    assert loaded.configuration.http.draintimeout == 30
    assert not loaded.warnings


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"(?:``|\$ )make ([a-z ]+)", text)
    named = {name for command in commands for name in command.split()}
    assert named >= {"serve", "test"}
    assert all(f"\n{name}:" in makefile for name in named), named


def test_the_paths_in_the_contributing_guide_exist():
    """Paths are relative to the repository or to the package; ``/v2/`` is a URL."""
    quoted = re.findall(r"``([^`\s]+)``", CONTRIBUTING.read_text(encoding="utf-8"))
    paths = {
        path
        for path in quoted
        if path.endswith((".py", ".yml", "/")) and not path.startswith("/") and "NAME" not in path
    }
    assert {"oci/", "conf/maintenance.yml", "twisted_registry/cli.py"} <= paths
    folders = (ROOT, ROOT / "twisted_registry")
    assert not {path for path in paths if not any((folder / path).exists() for folder in folders)}
