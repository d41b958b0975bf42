"""What a metrics observer receives of each request."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tests.api.endpoints import ALL_REQUESTS, DENIED, RefusingController, path_of
from tests.api.setups import SITES
from tests.api.watched_driver import Watched
from tests.support.http_client import connect, head
from twisted_registry.metrics.interfaces import IMetricsObserver
from twisted_registry.storage.memory import MemoryDriver

pytestmark = pytest.mark.setups(*SITES)


@implementer(IMetricsObserver)
class RecordingObserver:
    def __init__(self):
        self.started = []
        self.finished = []
        self.next_finished = None

    def request_started(self, handler):
        self.started.append(handler)

    def request_finished(self, request):
        self.finished.append(request)
        if self.next_finished is not None:
            self.next_finished.callback(None)


@pytest.mark.parametrize(("endpoint", "method"), ALL_REQUESTS)
@pytest_twisted.ensureDeferred
async def test_metrics_of_every_route(start, endpoint, method):
    metrics = RecordingObserver()
    async with start(metrics=metrics) as api:
        body = b"x" if method in {"PUT", "PATCH", "POST"} else None
        response = await api(method, path_of(endpoint), body=body)
        (finished,) = metrics.finished
        assert metrics.started == [finished.handler] == [endpoint.handler]
        assert (finished.method, finished.status) == (method, response.status)
        assert finished.sent_bytes == len(response.body)
        assert finished.duration_s >= 0


@pytest_twisted.ensureDeferred
async def test_an_error_in_an_observer_closes_the_connection(start, log_events):
    """An observer must not raise; if it does, the client does not wait for a response."""

    class Broken(RecordingObserver):
        def request_started(self, handler):
            raise ZeroDivisionError

    async with start(metrics=Broken()) as api:
        connection = await connect(api.served.port)
        connection.send(head("GET", "/v2/", host=api.host))
        await connection.closed
        assert connection.received == b""
        assert any("response incomplete" in event.get("log_format", "") for event in log_events)


@pytest_twisted.ensureDeferred
async def test_metrics_of_refused_requests(start):
    metrics = RecordingObserver()
    async with start(metrics=metrics, access=RefusingController(DENIED)) as api:
        for method, path in (
            ("GET", "x"),
            ("PUT", "a/tags/list"),
            ("GET", "a/tags/list"),
            ("GET", "A/tags/list"),
            ("OPTIONS", "_catalog"),
        ):
            await api(method, path)
    assert [(finished.handler, finished.status) for finished in metrics.finished] == [
        ("unknown", 404),
        ("tags", 405),
        ("tags", 403),
        ("tags", 400),
        ("catalog", 204),
    ]


@pytest_twisted.ensureDeferred
async def test_a_disconnect_is_counted_as_499(start, clock):
    metrics = RecordingObserver()
    held, reached = Deferred(), Deferred()

    def before(number, name):
        reached.callback(None)
        return held

    async with start(driver=Watched(MemoryDriver(clock), before), metrics=metrics) as api:
        connection = await connect(api.served.port)
        connection.send(head("GET", "/v2/a/tags/list", host=api.host))
        await reached
        metrics.next_finished = Deferred()
        connection.abort()
        await metrics.next_finished
    (finished,) = metrics.finished
    assert (finished.handler, finished.status) == ("tags", 499)
