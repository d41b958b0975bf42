from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.api.setups import BUCKETS, FLAVOURS
from tests.support.http_client import RegistryClient
from tests.support.s3_stores import make_driver
from twisted_registry.api.context import APISettings
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.server import serve


def pytest_configure(config):
    config.addinivalue_line("markers", "flavours(*names): the set-ups that a test runs over")


def pytest_generate_tests(metafunc):
    """Run every test of the API over both sites and all stores, unless it says which."""
    if "flavour" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("flavours")
        buckets = [pytest.param(name, marks=pytest.mark.integration) for name in BUCKETS]
        metafunc.parametrize("flavour", marker.args if marker else (*FLAVOURS, *buckets))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Undo what pytest-twisted does to a test of hypothesis: once per test is right, and it
    does it again for each set of parameters.
    """
    hypothesis = getattr(pyfuncitem.obj, "hypothesis", None)
    inner = None if hypothesis is None else hypothesis.inner_test
    try:
        return (yield)
    finally:
        if hypothesis is not None:
            hypothesis.inner_test = inner


class ErrorEvents:
    """Log events that say that something went wrong, tracebacks among them."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        if event["log_level"] >= LogLevel.error or "log_failure" in event:
            self.events.append(event)

    def take(self):
        """The texts so far, which the test has expected."""
        events, self.events = self.events, []
        return [_text(event) for event in events]


def _text(event):
    failure = event.get("log_failure")
    return formatEvent(event) + ("" if failure is None else "\n" + failure.getTraceback())


@pytest.fixture
def logged_errors():
    """Nothing that a client does is an error in the log, unless a test expects it."""
    logged_errors = ErrorEvents()
    globalLogPublisher.addObserver(logged_errors)
    yield logged_errors
    globalLogPublisher.removeObserver(logged_errors)
    assert not logged_errors.take()


@pytest.fixture
def start(flavour, tmp_path, logged_errors, request):
    """A function that serves a registry inside a block, as ``testing.serve`` does."""
    site, _, store = flavour.partition("-")

    @asynccontextmanager
    async def start(*, driver=None, prefix="", **plugged):
        if driver is None and flavour in BUCKETS:
            driver = make_driver(request.getfixturevalue("object_stores").get(store))
            # What the tests are about is what we answer, not what the store does.
            settings = plugged.get("settings") or APISettings()
            plugged["settings"] = evolve(settings, redirect=False)
        if driver is None:
            files = store == "files"
            driver = FilesystemDriver(str(tmp_path / "store"), reactor) if files else None
            driver = driver or MemoryDriver(reactor)
        serving = serve(
            reactor, driver=driver, prefix=prefix, use_twisted_site=site == "stock", **plugged
        )
        async with serving as served:
            yield RegistryClient(served, driver, f"{prefix or '/'}v2/")

    return start


@pytest_twisted.async_yield_fixture
async def api(start):
    """A registry that allows everything."""
    async with start() as api:
        yield api


@pytest.fixture
def clock():
    """A clock that stands still, for stores whose times do not matter."""
    return Clock()
