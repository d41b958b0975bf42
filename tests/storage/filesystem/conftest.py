"""Fixtures of the tests of the filesystem driver."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.storage.filesystem.kit import HeldThreads, make_driver, result_of
from twisted_registry.storage.filesystem.writer import WriteBudget
from twisted_registry.storage.interfaces import StorageError


@pytest.fixture
def driver(tmp_path):
    """A driver that makes all calls at once."""
    return make_driver(tmp_path)


class HeldWriter:
    """A writer of ``file`` whose calls on threads wait for the test."""

    def __init__(self, root, observe=None):
        self.path = root / "file"
        self.clock, self.threads, self.budget = Clock(), HeldThreads(), WriteBudget()
        driver = make_driver(root, clock=self.clock, threads=self.threads, budget=self.budget)
        self.writer = result_of(driver.writer("file", 0, observe))
        self.threads.hold()

    @property
    def stored(self):
        """Bytes in the file."""
        return self.path.stat().st_size

    def close(self):
        closing = self.writer.close()
        self.threads.finish()
        result_of(closing.addErrback(lambda failure: failure.trap(StorageError)))


@pytest.fixture
def make_held(tmp_path):
    """Make held writers that are closed at the end of the test."""
    made = []

    def make(observe=None):
        made.append(HeldWriter(tmp_path, observe))
        return made[-1]

    yield make
    for held in made:
        held.close()


@pytest.fixture
def held(make_held):
    """A writer whose calls on threads wait for the test."""
    return make_held()
