"""Whether a process is gone: only a sure end counts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from twisted_registry.repository import liveness
from twisted_registry.repository.liveness import has_exited, process_identity

#: Says its name, and goes on until its input ends.
PROGRAM = """
import sys
from twisted_registry.repository.liveness import process_identity
print(process_identity(), flush=True)
sys.stdin.read()
"""

linux = pytest.mark.skipif(not process_identity(), reason="/proc does not tell here")


@linux
def test_a_process_lives_until_it_was_waited_for():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        name = process.stdout.readline().strip()
        assert name != process_identity()
        assert not has_exited(name)
        process.kill()
        # It is dead from now on, but until it was waited for a thread of it may be at work.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not has_exited(name)
        process.wait()
        assert has_exited(name)


@linux
def test_an_id_that_another_process_has_now_tells_that_the_first_is_gone():
    place, began = process_identity().rsplit("/", 1)
    assert not has_exited(f"{place}/{began}")
    assert has_exited(f"{place}/{int(began) - 1}")
    assert has_exited(f"{place.rsplit('/', 1)[0]}/{2**70}/{began}")


@linux
def test_nothing_is_known_of_other_kernels_and_namespaces():
    boot, *rest = process_identity().split("/")
    place, namespace, pid, began = boot, *rest
    assert not has_exited(f"other/{namespace}/{2**22 + 1}/{began}")
    assert not has_exited(f"{place}/pid:[1]/{2**22 + 1}/{began}")
    assert not has_exited(f"{place}/{namespace}/{pid}/{began}")


@pytest.mark.parametrize("name", ["", "/", "//", "///", "a/b/c/d", "1", "a b"])
def test_nothing_is_known_of_what_is_no_name(name):
    assert not has_exited(name)


def test_where_nothing_tells_nothing_is_known(monkeypatch, tmp_path):
    name = process_identity()
    monkeypatch.setattr(liveness, "_BOOT_ID_PATH", tmp_path / "none")
    assert process_identity() == ""
    assert not has_exited(name)
    assert not has_exited("//1")
    assert not has_exited(f"/{2**22 + 1}/1")
