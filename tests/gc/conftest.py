"""Fixtures of the collector's tests."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.gc.collected_store import Store
from tests.repository.worlds import World


@pytest.fixture
def store():
    """A store in memory, with a collector."""
    with closing(Store(World())) as store:
        yield store
