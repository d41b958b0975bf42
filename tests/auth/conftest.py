from __future__ import annotations

import pytest

from tests.support.passwords import Counted, Written


@pytest.fixture
def counted(monkeypatch):
    """Records the costs of the hashes that bcrypt checks."""
    return Counted(monkeypatch)


@pytest.fixture
def written(tmp_path):
    """An htpasswd file that a test writes."""
    return Written(tmp_path / "users")
