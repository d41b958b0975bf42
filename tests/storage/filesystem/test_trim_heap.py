"""The heap is trimmed after large uploads."""

from __future__ import annotations

import platform
import sys

import pytest
from twisted.internet.defer import fail

from tests.storage.filesystem.kit import InlineThreads, make_driver, result_of
from tests.support.processes import ROOT, run
from twisted_registry.storage.filesystem import writer as writer_module
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.writers import TRIM_THRESHOLD_BYTES

#: Prints how many KiB stay of what lay between pieces that are in use, before and after.
PIECES = """
import os
from twisted_registry.storage.writers import trim_heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

begin = resident()
pieces = [b"x" * 100_000 for _ in range(200)]
kept = pieces[::20]
del pieces
print(resident() - begin)
trim_heap()
print(resident() - begin)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_trim_heap_returns_free_memory_to_the_system(tmp_path):
    status, out, err = run(sys.executable, "-c", PIECES, cwd=tmp_path, PYTHONPATH=ROOT)
    assert status == 0, err
    before, after = map(int, out.split())
    assert before > 8000
    assert after < 4000


@pytest.mark.parametrize(
    ("size", "times"), [(TRIM_THRESHOLD_BYTES - 1, 0), (TRIM_THRESHOLD_BYTES, 1)]
)
def test_the_heap_is_trimmed_once_after_a_large_upload(tmp_path, monkeypatch, size, times):
    given = []
    monkeypatch.setattr(writer_module, "trim_heap", lambda: given.append(1))
    driver = make_driver(tmp_path)
    writer = result_of(driver.writer("file", 0))
    writer.write(b"x" * size)
    assert not given
    assert result_of(writer.close()) == size
    assert len(given) == times


def test_close_succeeds_if_the_heap_cannot_be_trimmed(tmp_path):
    class Gone(InlineThreads):
        def run_blocking(self, work, *arguments, undo=None):
            if work is writer_module.trim_heap:
                return fail(StorageError("", "the driver is closed"))
            return super().run_blocking(work, *arguments, undo=undo)

    driver = make_driver(tmp_path, threads=Gone())
    writer = result_of(driver.writer("file", 0))
    writer.write(b"x" * TRIM_THRESHOLD_BYTES)
    assert result_of(writer.close()) == TRIM_THRESHOLD_BYTES
