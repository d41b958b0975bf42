"""``docs/tutorial.rst``: its commands run one after the other, as printed, in one shell."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tests.integration.servers import program
from tests.support.processes import environment, free_port
from twisted_registry.testing import build_image, write_layout

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.rst"
#: What the tests cannot do as a reader does it: they have neither internet nor keyboard.
SUBSTITUTIONS = {
    "docker pull alpine\n": "docker load --input ../alpine.tar\n",
    "docker login": "echo a long password | docker login --password-stdin",
    "twisted-registry user add": "echo a long password | twisted-registry user add",
}
#: Programs that would install what the tests have: tests/test_packaging.py installs the package.
STAND_INS = {
    "git": f"""test "$1 $2" = "clone URL"; mkdir "$3"; cp -r {shlex.quote(str(ROOT / "conf"))} "$3"
sed -i "s/5000/$PORT/" "$3/conf/registry.yml\"""",
    "python3": f"""test "$1 $2" = "-m venv"; mkdir -p "$3/bin"; cd "$3/bin"
echo 'test "$1" = install; test -d "$2"' >pip
echo 'exec {shlex.quote(sys.executable)} -m twisted_registry "$@"' >twisted-registry
chmod +x pip twisted-registry""",
}
#: Functions of the shell. A reader types more slowly than a registry starts.
FUNCTIONS = """\
ran() { echo "<end>"; }
wait_until_served() { until (: <"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do sleep 0.05; done; }
"""


def read_page():
    """Return the commands with the outputs that are shown, and the files by name."""
    commands, files = [], {}
    for block in publish_doctree(PAGE.read_text(encoding="utf-8")).findall(nodes.literal_block):
        text = f"{block.astext()}\n"
        if "console" in block["classes"]:
            before, *parts = re.split(r"^\$ (.*\n)", text, flags=re.MULTILINE)
            assert not before
            commands += zip(parts[::2], parts[1::2], strict=True)
        else:
            files[re.match(r"# (\S+)\n", text)[1]] = text
    return commands, files


def as_script(commands):
    """Return a script that prints a mark after the output of each command."""
    script = FUNCTIONS
    for command, _ in commands:
        for name, replacement in SUBSTITUTIONS.items():
            command = command.replace(name, replacement)  # noqa: PLW2901
        script += command
        script += "wait_until_served\n" if command.endswith("&\n") else ""
        script += "ran\n"
    return script


def pattern_of(output):
    """Return a regular expression in which ``...`` stands for anything; no output matches any."""
    lines = [
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in output.splitlines()
    ]
    return "".join(lines) or r"(?:.*\n)*"


def test_the_tutorial_runs_as_printed(tmp_path, docker, shared_sandbox):
    program("curl")
    commands, files = read_page()
    port = str(free_port())
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text.replace("5000", port))
    write_layout(
        tmp_path / "alpine.tar", {"alpine:latest": build_image(files={"etc/name": "alpine"})}
    )
    (tmp_path / "bin").mkdir()
    for name, script in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh -e\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "tutorial.sh").write_text(as_script(commands).replace("5000", port))
    sandbox = shared_sandbox.environment
    shell = subprocess.Popen(
        ["bash", "-eu", "../tutorial.sh"],
        cwd=folder,
        env={
            **environment(),
            **sandbox,
            "PATH": f"{tmp_path}/bin:{sandbox['PATH']}",
            "DOCKER_HOST": f"unix://{shared_sandbox.home}/docker.sock",
            "PORT": port,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = shell.communicate(timeout=100)
    finally:
        # After a failure a registry may still run.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, f"{out}\n{err}"
    outputs = out.split("<end>\n")[:-1]
    for (command, shown), printed in zip(commands, outputs, strict=True):
        pattern, found = pattern_of(shown.replace("5000", port)), f"{printed.rstrip()}\n"
        assert re.fullmatch(pattern, found), f"$ {command}{found}is not\n{shown}"
    assert list(folder.iterdir()) == []
