"""How long hypothesis looks: ``--hypothesis-profile=nightly`` for twenty times as long."""

from __future__ import annotations

import pytest
from hypothesis import settings
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.s3_servers import ObjectStores

# No deadline: a busy machine is not a slow program.
settings.register_profile("fast", deadline=None)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile("fast")


@pytest.fixture(scope="session")
def object_stores(tmp_path_factory):
    """The object stores of a run, each started when a test first asks for it."""
    stores = ObjectStores(tmp_path_factory.mktemp("object-stores"))
    yield stores
    stores.close()


@pytest.fixture
def logged():
    """The events of the log meanwhile."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture
def told():
    """The lines of the log meanwhile, without time and level."""
    lines = []

    def observe(event):
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)
