"""The programs and test modules in README and ``docs/`` run as printed.

A block is one of them if it begins with the name of its file. Only the port and the folder of a
program are replaced.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.support.samples import ROOT, read_samples

SAMPLES = read_samples()
TESTS = [each for each in SAMPLES if each[1].startswith("test_")]
PROGRAMS = [each for each in SAMPLES if not each[1].startswith("test_")]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    # The plugin is named below, so that an installation without its entry point passes as well.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def test_every_kind_of_sample_is_there():
    assert {name for _, name in PROGRAMS} >= {
        *("app.py", "site_app.py", "klein_app.py", "asyncio_app.py"),
    }
    assert {name for _, name in TESTS} >= {
        *("test_pull.py", "test_fixtures.py", "test_without_plugin.py", "test_trial.py"),
    }


@pytest.mark.parametrize("sample", TESTS, ids="-".join)
def test_a_test_module_passes(sample, tmp_path):
    text = SAMPLES[sample]
    (tmp_path / sample[1]).write_text(text)
    if "twisted.trial" in text:
        command = ("twisted.trial", sample[1].removesuffix(".py"))
    elif "Registry() as" in text:
        command = ("pytest", sample[1])
    else:
        command = ("pytest", "-p", "twisted_registry.pytest_plugin", sample[1])
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"\d passed|PASSED", ran.stdout), ran.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url, process, tries=600):
    """Return the answer to a request, once the program listens."""
    for _ in range(tries):
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                return response.read()
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


@pytest.mark.parametrize("sample", PROGRAMS, ids="-".join)
def test_a_program_serves(sample, tmp_path):
    if "klein" in sample[1]:
        pytest.importorskip("klein", reason="install the extra test")
    port = free_port()
    text = SAMPLES[sample].replace("/srv/images", str(tmp_path / "images"))
    (tmp_path / sample[1]).write_text(text.replace("5000", str(port)))
    program = subprocess.Popen(
        [sys.executable, sample[1]],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert ask(f"http://127.0.0.1:{port}/v2/", program) == b"{}"
        program.send_signal(signal.SIGTERM)
        out, _ = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    assert "Traceback" not in out, out
    assert program.returncode in {0, -signal.SIGTERM}
