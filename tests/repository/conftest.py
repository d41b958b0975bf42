"""Fixtures: registries over the kinds of stores."""

from __future__ import annotations

import pytest

from tests.repository.worlds import DiskWorld, PeekWorld, World
from twisted_registry.repository import uploads


@pytest.fixture(params=[World, PeekWorld, DiskWorld], ids=["memory", "peek", "disk"])
def world(request):
    return request.param()


@pytest.fixture
def stocked(world):
    """A world with the blobs of :func:`image`."""
    world.blob(b"{}")
    world.blob(b"layer")
    return world


@pytest.fixture
def all_are_large(monkeypatch):
    """Sync every upload and give it a checkpoint, as if it were large."""
    monkeypatch.setattr(uploads, "MIN_CHECKPOINT_BYTES", 1)
