"""The command that a message about a missing extra names."""

from __future__ import annotations

import importlib.metadata
import shlex
import subprocess
import sys

import pytest

from tests.support.processes import ROOT, environment
from twisted_registry.frame import errors
from twisted_registry.frame.errors import install_command


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("acme", "acme"),
        ("auth", "pyjwt"),
        ("aws", "botocore"),
        ("metrics", "prometheus-client"),
        ("otel", "opentelemetry-sdk"),
        ("redis", "txredisapi"),
    ],
)
def test_the_command_installs_into_this_environment(tmp_path, extra, package):
    """Here everything is installed, so that pip needs no index."""
    if not errors.find_spec("pip"):
        pytest.skip("this environment has no pip")
    command = install_command(extra)
    assert command.startswith(f"{shlex.quote(sys.executable)} -m pip install ")
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=environment(PIP_NO_INDEX="1", PIP_QUIET="0", PATH="/usr/bin:/bin"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Requirement already satisfied: {package}" in done.stdout


def test_an_environment_without_pip_is_one_of_uv(monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    words = shlex.split(install_command("aws"))
    assert words[:5] == ["uv", "pip", "install", "--python", sys.executable]
    assert words[5].startswith("botocore>=")


def test_a_checkout_that_is_not_installed_names_its_folder(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert shlex.split(install_command("auth"))[-1] == f"{ROOT}[auth]"
