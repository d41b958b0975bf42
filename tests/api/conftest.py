"""Fixtures that serve a registry over every setup."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.api.setups import BUCKETS, SETUPS
from tests.support.http_client import RegistryClient
from tests.support.s3_stores import make_driver
from twisted_registry.api.context import APISettings
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.server import serve


def pytest_configure(config):
    config.addinivalue_line("markers", "setups(*names): the setups that a test runs over")


def pytest_generate_tests(metafunc):
    """Run each test over both sites and all drivers, or over those of its mark ``setups``."""
    if "setup" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("setups")
        buckets = [pytest.param(name, marks=pytest.mark.integration) for name in BUCKETS]
        metafunc.parametrize("setup", marker.args if marker else (*SETUPS, *buckets))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Restore the inner test of hypothesis, which pytest-twisted wraps once for each parameter set
    instead of once for each test.
    """
    hypothesis = getattr(pyfuncitem.obj, "hypothesis", None)
    inner = None if hypothesis is None else hypothesis.inner_test
    try:
        return (yield)
    finally:
        if hypothesis is not None:
            hypothesis.inner_test = inner


class ErrorEvents:
    """Collects log events of level error, or with a traceback."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        if event["log_level"] >= LogLevel.error or "log_failure" in event:
            self.events.append(event)

    def take(self):
        """Return and forget the texts, which the test has expected."""
        events, self.events = self.events, []
        return [_text(event) for event in events]


def _text(event):
    failure = event.get("log_failure")
    return formatEvent(event) + ("" if failure is None else "\n" + failure.getTraceback())


@pytest.fixture
def logged_errors():
    """Fail a test that logs an error which it does not expect."""
    logged_errors = ErrorEvents()
    globalLogPublisher.addObserver(logged_errors)
    yield logged_errors
    globalLogPublisher.removeObserver(logged_errors)
    assert not logged_errors.take()


@pytest.fixture
def start(setup, tmp_path, logged_errors, request):
    """A function that serves a registry inside a block, like ``testing.serve``."""
    site, _, store = setup.partition("-")

    @asynccontextmanager
    async def start(*, driver=None, prefix="", **plugged):
        if driver is None and setup in BUCKETS:
            driver = make_driver(request.getfixturevalue("object_stores").get(store))
            # The tests are about the registry's own responses.
            settings = plugged.get("settings") or APISettings()
            plugged["settings"] = evolve(settings, redirect=False)
        if driver is None:
            files = store == "files"
            driver = FilesystemDriver(str(tmp_path / "store"), reactor) if files else None
            driver = driver or MemoryDriver(reactor)
        serving = serve(
            reactor, driver=driver, prefix=prefix, use_twisted_site=site == "twisted", **plugged
        )
        async with serving as served:
            yield RegistryClient(served, driver, f"{prefix or '/'}v2/")

    return start


@pytest_twisted.async_yield_fixture
async def api(start):
    """A client of a registry that allows everything."""
    async with start() as api:
        yield api


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()
