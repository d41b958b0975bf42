"""The world that the tests of the domain act in."""

from __future__ import annotations

import pytest
from domain import World


@pytest.fixture
def world():
    return World()
