"""The world that the tests of the domain act in."""

from __future__ import annotations

import pytest

from tests.repository.worlds import DiskWorld, PeekWorld, World
from twisted_registry.repository import uploads


@pytest.fixture(params=[World, PeekWorld, DiskWorld], ids=["memory", "peek", "disk"])
def world(request):
    return request.param()


@pytest.fixture
def stocked(world):
    """The blobs of :func:`image` are there."""
    world.blob(b"{}")
    world.blob(b"layer")
    return world


@pytest.fixture
def all_are_large(monkeypatch):
    """Every upload is so large that it is synced and gets a checkpoint."""
    monkeypatch.setattr(uploads, "MIN_CHECKPOINT_BYTES", 1)
