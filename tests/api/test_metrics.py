"""What is counted and timed of each request, by whoever measures."""

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
class Metrics:
    def __init__(self):
        self.began = []
        self.over = []
        self.waiting = None

    def request_started(self, handler):
        self.began.append(handler)

    def request_finished(self, request):
        self.over.append(request)
        if self.waiting is not None:
            self.waiting.callback(None)


@pytest.mark.parametrize(("endpoint", "method"), ALL_REQUESTS)
@pytest_twisted.ensureDeferred
async def test_metrics_of_every_route(start, endpoint, method):
    metrics = Metrics()
    async with start(metrics=metrics) as api:
        body = b"x" if method in {"PUT", "PATCH", "POST"} else None
        response = await api(method, path_of(endpoint), body=body)
        (over,) = metrics.over
        assert metrics.began == [over.handler] == [endpoint.handler]
        assert (over.method, over.status) == (method, response.status)
        assert over.sent_bytes == len(response.body)
        assert over.duration_s >= 0


@pytest_twisted.ensureDeferred
async def test_an_error_in_an_observer_closes_the_connection(start, log_events):
    """It may not raise; if it does, nobody waits for an answer that will not come."""

    class Broken(Metrics):
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
    metrics = Metrics()
    async with start(metrics=metrics, access=RefusingController(DENIED)) as api:
        for method, path in (
            ("GET", "x"),
            ("PUT", "a/tags/list"),
            ("GET", "a/tags/list"),
            ("GET", "A/tags/list"),
            ("OPTIONS", "_catalog"),
        ):
            await api(method, path)
    assert [(over.handler, over.status) for over in metrics.over] == [
        ("unknown", 404),
        ("tags", 405),
        ("tags", 403),
        ("tags", 400),
        ("catalog", 204),
    ]


@pytest_twisted.ensureDeferred
async def test_a_disconnect_is_counted_as_499(start, clock):
    metrics = Metrics()
    held, reached = Deferred(), Deferred()

    def before(number, name):
        reached.callback(None)
        return held

    async with start(driver=Watched(MemoryDriver(clock), before), metrics=metrics) as api:
        connection = await connect(api.served.port)
        connection.send(head("GET", "/v2/a/tags/list", host=api.host))
        await reached
        metrics.waiting = Deferred()
        connection.abort()
        await metrics.waiting
    (over,) = metrics.over
    assert (over.handler, over.status) == ("tags", 499)
