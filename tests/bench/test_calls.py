"""``python -m tests.bench.calls`` measures every request that it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_request_has_a_count_and_a_time():
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.calls", "--batches", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["request", "calls", "CPU", "us"]
    assert len(rows) == 16
    for row in rows:
        *_, calls, cpu_us = row.split()
        assert int(calls) > 0
        assert float(cpu_us) > 0
