from __future__ import annotations

import pytest

from tests.http.connection_kit import FILE_CONTENT, Kit, MemoryConnection


@pytest.fixture
def kit():
    """A Resource tree, and a record of what happened in it."""
    return Kit()


@pytest.fixture
def file_kit(tmp_path):
    """A kit with a file of FILE_CONTENT."""
    kit = Kit()
    kit.file = tmp_path / "file"
    kit.file.write_bytes(FILE_CONTENT)
    return kit


@pytest.fixture
def wire(kit):
    """A connection in memory, on a Clock."""
    return MemoryConnection(kit)
