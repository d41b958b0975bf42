"""The world of the domain's tests, with a collector in it."""

from __future__ import annotations

import pytest

from tests.gc.collected_store import Store
from tests.repository.worlds import World


@pytest.fixture
def store():
    """A store in memory, and what looks after it."""
    return Store(World())
