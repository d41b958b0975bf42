"""The settings of the C library's allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Each thread allocates what Python's own pools do not serve; malloc_info(3) lists the arenas.
COUNT = """\
import ctypes, sys, threading
from twisted_registry.app.allocator import limit_arenas

limit_arenas()
barrier = threading.Barrier(20)

def work():
    ctypes.CDLL(None).malloc(5000)
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(20)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 2),
        ({"MALLOC_ARENA_MAX": "3"}, 3),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}, 3),
    ],
)
def test_threads_share_two_arenas_unless_the_environment_has_a_number(environ, count):
    run = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.count("<heap ") == count
