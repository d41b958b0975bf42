"""Detection of processes that have certainly exited."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from twisted_registry.repository import liveness
from twisted_registry.repository.liveness import has_exited, process_identity

#: Prints its identity, and runs until its input ends.
PROGRAM = """
import sys
from twisted_registry.repository.liveness import process_identity
print(process_identity(), flush=True)
sys.stdin.read()
"""

linux = pytest.mark.skipif(not process_identity(), reason="needs /proc")


@linux
def test_process_is_alive_until_it_was_waited_for():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        name = process.stdout.readline().strip()
        assert name != process_identity()
        assert not has_exited(name)
        process.kill()
        # It is a zombie: one of its threads may still be running.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not has_exited(name)
        process.wait()
        assert has_exited(name)


@linux
def test_reused_process_id_shows_that_the_first_process_has_exited():
    place, began = process_identity().rsplit("/", 1)
    assert not has_exited(f"{place}/{began}")
    assert has_exited(f"{place}/{int(began) - 1}")
    assert has_exited(f"{place.rsplit('/', 1)[0]}/{2**70}/{began}")


@linux
def test_processes_of_other_kernels_and_namespaces_may_be_alive():
    boot, *rest = process_identity().split("/")
    place, namespace, pid, began = boot, *rest
    assert not has_exited(f"other/{namespace}/{2**22 + 1}/{began}")
    assert not has_exited(f"{place}/pid:[1]/{2**22 + 1}/{began}")
    assert not has_exited(f"{place}/{namespace}/{pid}/{began}")


@pytest.mark.parametrize("name", ["", "/", "//", "///", "a/b/c/d", "1", "a b"])
def test_malformed_identity_may_be_alive(name):
    assert not has_exited(name)


def test_without_proc_every_process_may_be_alive(monkeypatch, tmp_path):
    name = process_identity()
    monkeypatch.setattr(liveness, "_BOOT_ID_PATH", tmp_path / "none")
    assert process_identity() == ""
    assert not has_exited(name)
    assert not has_exited("//1")
    assert not has_exited(f"/{2**22 + 1}/1")
