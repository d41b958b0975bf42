"""README, docs/embedding.rst and CONTRIBUTING.rst: examples run as printed, paths exist."""

import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.rst"
EMBEDDING = ROOT / "docs" / "embedding.rst"
CONTRIBUTING = ROOT / "CONTRIBUTING.rst"

# Appended to the example: send one request to the registry, then stop the reactor.
ASK = """
from urllib.request import urlopen
from twisted.internet.threads import deferToThread

asked = deferToThread(lambda: urlopen("http://127.0.0.1:{port}/v2/", timeout=20).read())
asked.addCallback(lambda body: print(body.decode()))
asked.addBoth(lambda result: (print(result or ""), reactor.stop()))
reactor.run()
"""


def blocks(path):
    text = path.read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", text)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_mounting_example_serves(tmp_path):
    snippet = next(block for block in blocks(EMBEDDING) if "RegistryResource(" in block)
    port = free_port()
    program = snippet.replace("/srv/images", str(tmp_path / "images")).replace("5000", str(port))
    program = program.replace("reactor.run()\n", ASK.format(port=port))
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout.splitlines()[:1] == ["{}"], ran.stdout + ran.stderr


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
