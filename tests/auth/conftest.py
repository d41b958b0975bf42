from __future__ import annotations

import pytest

from tests.support.passwords import BcryptCosts, PasswordFileWriter


@pytest.fixture
def bcrypt_costs(monkeypatch):
    """Records the costs of the hashes that bcrypt checks."""
    return BcryptCosts(monkeypatch)


@pytest.fixture
def password_file(tmp_path):
    """An htpasswd file that a test writes."""
    return PasswordFileWriter(tmp_path / "users")
