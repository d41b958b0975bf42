"""``docs/tutorial.rst``: its commands run one after the other, as printed, in one shell."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.documentation.pages import ROOT, blocks_in
from tests.documentation.shell import matches, read_commands
from tests.integration.servers import program
from tests.support.processes import environment, free_port
from twisted_registry.testing import build_image, write_layout

pytestmark = pytest.mark.integration

PAGE = "docs/tutorial.rst"
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


def as_script(commands):
    """Return a script that prints a mark after the output of each command."""
    script = FUNCTIONS
    for command in commands:
        text = command.text
        for name, replacement in SUBSTITUTIONS.items():
            text = text.replace(name, replacement)
        script += text
        script += "wait_until_served\n" if text.endswith("&\n") else ""
        script += "ran\n"
    return script


def test_the_tutorial_runs_as_printed(tmp_path, docker, shared_sandbox):
    program("curl")
    blocks = [each for each in blocks_in("console") if each.page == PAGE]
    commands = [command for block in blocks for command in read_commands(block)]
    files = [each for each in blocks_in("yaml") if each.page == PAGE]
    port = str(free_port())
    folder = tmp_path / "folder"
    folder.mkdir()
    for block in files:
        (folder / block.file).write_text(block.text.replace("5000", port))
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
    for command, printed in zip(commands, outputs, strict=True):
        shown, found = command.output.replace("5000", port), f"{printed.rstrip()}\n"
        assert not shown or matches(shown, found), f"$ {command.text}{found}is not\n{shown}"
    assert list(folder.iterdir()) == []
