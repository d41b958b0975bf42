"""Families of processes: the usage of a child counts with its parent."""

import os
import subprocess
import sys

import pytest

from tests.bench.processes import memory, process_tree, processor_seconds
from tests.support.processes import wait_until

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=sys.stdout, stdin=sys.stdin)
child.wait()
sys.stdin.readline()
"""
CHILD = """
import sys, time
while time.process_time() < 0.35: pass
print("busy no more", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent():
    """A process whose child has used 0.35 s and waits for a line; then it waits for another.

    The kernel counts in ticks of 10 ms, so slightly less than that may be reported.
    """
    process = subprocess.Popen(
        [sys.executable, "-uc", PARENT.format(child=CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    yield process
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def test_usage_includes_running_children(parent):
    assert len(process_tree(parent.pid)) == 2
    assert processor_seconds(parent.pid) >= 0.3
    assert memory(parent.pid, "VmRSS") > 8


def test_usage_includes_ended_children(parent):
    os.write(parent.stdin.fileno(), b"\n")
    # The parent collects the child a moment after its end.
    wait_until(lambda: len(process_tree(parent.pid)) == 1 and processor_seconds(parent.pid) >= 0.3)
