"""What several tests of storage share."""

from __future__ import annotations

import pytest

from tests.storage.filesystem.kit import HeldThreads, inline, result_of
from twisted_registry.storage.interfaces import StorageError


@pytest.fixture
def driver(tmp_path):
    """A driver of files that waits for nothing."""
    return inline(tmp_path)


@pytest.fixture
def held(tmp_path):
    """A writer whose thread waits, and the threads."""
    driver = inline(tmp_path)
    writer = result_of(driver.writer("file", 0))
    writer._threads = threads = HeldThreads()
    yield writer, threads
    closing = writer.close()
    while threads.waiting:
        threads.step()
    result_of(closing.addErrback(lambda failure: failure.trap(StorageError)))
