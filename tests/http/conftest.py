from __future__ import annotations

import pytest

from tests.http.connection_kit import Kit, Memory


@pytest.fixture
def kit():
    """A Resource tree, and a record of what happened in it."""
    return Kit()


@pytest.fixture
def wire(kit):
    """A connection in memory, on a Clock."""
    return Memory(kit)
