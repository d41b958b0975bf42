"""Fixtures of the collector's tests."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest

from tests.gc.collected_store import Store
from tests.repository.worlds import World
from twisted_registry.repository.liveness import process_identity


@pytest.fixture(scope="session")
def exited_process():
    """The identity of a process that has exited."""
    if not process_identity():
        pytest.skip("needs /proc")
    asked = "from twisted_registry.repository import liveness; print(liveness.process_identity())"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def store():
    """A store in memory, with a collector."""
    with closing(Store(World())) as store:
        yield store
