"""Log lines of requests, and their ids."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.logger import LogLevel, globalLogPublisher

from tests.api.setups import SITES
from twisted_registry.api.request_log import format_seconds
from twisted_registry.api.resource import HANDLERS

ID = "http.request.id"


@pytest.fixture
def events():
    """The events that are logged."""
    found = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


def of_requests(events):
    return [event for event in events if "http.response.status" in event]


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_response_has_the_id_of_its_log_line(api, events):
    response = await api("GET", "a/manifests/1", [("X-Request-ID", "of-a-proxy")])
    assert response.get("X-Request-Id") == "of-a-proxy"
    other = await api("GET", "a/manifests/1")
    first, second = of_requests(events)
    assert first[ID] == "of-a-proxy"
    assert second[ID] == other.get("X-Request-Id")
    assert second["log_level"] == LogLevel.debug
    assert second["err.code"] == "manifest unknown"
    assert second["vars.name"] == "a"
    assert second["vars.reference"] == "1"


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_an_unknown_error_names_its_request(api, events, logged_errors, monkeypatch):
    async def fail(_context):
        raise RuntimeError("a defect")

    monkeypatch.setitem(HANDLERS, ("manifest", "GET"), fail)
    response = await api("GET", "a/manifests/1")
    assert response.status == 500
    request_id = response.get("X-Request-Id")
    (error,) = response.json()["errors"]
    assert error["message"] == f"unknown error, request ID {request_id}"
    (event,) = of_requests(events)
    assert event[ID] == request_id
    assert event["log_level"] == LogLevel.error
    assert logged_errors.take()


@pytest.mark.setups("httpsite-memory")
@pytest_twisted.ensureDeferred
async def test_requests_that_succeed_are_not_logged_by_default(api, events):
    assert (await api("GET", "")).status == 200
    assert of_requests(events) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.000_724_926, "724.926µs"),
        (0.008_331_85, "8.33185ms"),
        (0.5, "500ms"),
        (1.5, "1.5s"),
        (62, "1m2s"),
        (7325.25, "2h2m5.25s"),
    ],
)
def test_times_are_written_as_by_go(seconds, text):
    assert format_seconds(seconds) == text
