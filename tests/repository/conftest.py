"""The world that the tests of the domain act in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The model of a disk that loses power lies with the tests of the storage drivers.
sys.path.append(str(Path(__file__).parent.parent / "storage"))

from domain import DiskWorld, GlancingWorld, World


@pytest.fixture(params=[World, GlancingWorld, DiskWorld], ids=["memory", "glancing", "disk"])
def world(request):
    return request.param()
