from __future__ import annotations

import pytest

from tests.support.passwords import Counted, Written


@pytest.fixture
def counted(monkeypatch):
    """The bcrypt library, counted."""
    return Counted(monkeypatch)


@pytest.fixture
def written(tmp_path):
    """A file of users."""
    return Written(tmp_path / "users")
