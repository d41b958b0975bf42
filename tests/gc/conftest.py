"""The world of the domain's tests, with a collector in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The world lies with the tests of the domain, the disk that it needs with those of the drivers.
for folder in ("repository", "storage", "storage/s3"):
    sys.path.append(str(Path(__file__).parent.parent / folder))

from tests.gc.collected_store import Store  # noqa: E402 - as above
from tests.repository.worlds import World  # noqa: E402 - it is found only now


@pytest.fixture
def store():
    """A store in memory, and what looks after it."""
    return Store(World())
