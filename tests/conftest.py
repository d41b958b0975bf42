"""Fixtures of all tests. ``--hypothesis-profile=nightly`` runs 2,000 examples of each property."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest
from hypothesis import settings
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.s3_servers import ObjectStores

# A shell lets its background jobs ignore SIGINT, and nohup SIGHUP. The processes that tests start
# would inherit that. Only the main thread can change it.
with suppress(ValueError):
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )

# No deadline: a busy machine would fail tests that are fast enough.
settings.register_profile("fast", deadline=None)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile("fast")


@pytest.fixture(scope="session")
def object_stores(tmp_path_factory):
    """The S3 servers of the test run; each starts when a test first uses it."""
    stores = ObjectStores(tmp_path_factory.mktemp("object-stores"))
    yield stores
    stores.close()


@pytest.fixture
def log_events():
    """Collect the log events of the test."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture
def log_lines():
    """Collect the formatted log messages of the test, without time and level."""
    lines = []

    def observe(event):
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)
