"""Whether a process is gone: only a sure end counts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from twisted_registry.repository import liveness
from twisted_registry.repository.liveness import is_gone, this_process

#: Says its name, and goes on until its input ends.
PROGRAM = """
import sys
from twisted_registry.repository.liveness import this_process
print(this_process(), flush=True)
sys.stdin.read()
"""

linux = pytest.mark.skipif(not this_process(), reason="/proc does not tell here")


@linux
def test_a_process_lives_until_it_was_waited_for():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        name = process.stdout.readline().strip()
        assert name != this_process()
        assert not is_gone(name)
        process.kill()
        # It is dead from now on, but until it was waited for a thread of it may be at work.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_gone(name)
        process.wait()
        assert is_gone(name)


@linux
def test_an_id_that_another_process_has_now_tells_that_the_first_is_gone():
    place, began = this_process().rsplit("/", 1)
    assert not is_gone(f"{place}/{began}")
    assert is_gone(f"{place}/{int(began) - 1}")
    assert is_gone(f"{place.rsplit('/', 1)[0]}/{2**70}/{began}")


@linux
def test_nothing_is_known_of_other_kernels_and_namespaces():
    boot, *rest = this_process().split("/")
    place, namespace, pid, began = boot, *rest
    assert not is_gone(f"other/{namespace}/{2**22 + 1}/{began}")
    assert not is_gone(f"{place}/pid:[1]/{2**22 + 1}/{began}")
    assert not is_gone(f"{place}/{namespace}/{pid}/{began}")


@pytest.mark.parametrize("name", ["", "/", "//", "///", "a/b/c/d", "1", "a b"])
def test_nothing_is_known_of_what_is_no_name(name):
    assert not is_gone(name)


def test_where_nothing_tells_nothing_is_known(monkeypatch, tmp_path):
    name = this_process()
    monkeypatch.setattr(liveness, "_BOOT", tmp_path / "none")
    assert this_process() == ""
    assert not is_gone(name)
    assert not is_gone("//1")
    assert not is_gone(f"/{2**22 + 1}/1")
