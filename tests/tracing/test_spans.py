"""Spans of requests, driver calls and outgoing requests, in this process."""

from __future__ import annotations

from io import StringIO

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface.verify import verifyObject

pytest.importorskip("opentelemetry.sdk", reason="install the extra test")

from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, get_current_span

from tests.http.connection_kit import Kit, MemoryConnection, get, put
from twisted_registry.http.site import AccessLog
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.interfaces import IStorageTracer, PathNotFound, StorageError
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tracing.spans import (
    Propagation,
    RequestTracer,
    StorageTracer,
    TracedAgent,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


@pytest.fixture
def propagation():
    return Propagation(get_global_textmap())


@pytest.fixture
def stream():
    return StringIO()


@pytest.fixture
def traced_wire(tracer, propagation, stream):
    wire = MemoryConnection(Kit(), access_log=AccessLog(stream))
    wire.site.begin_request = RequestTracer(tracer, propagation).begin
    return wire


def trace_of(span):
    return f"{span.context.trace_id:032x}"


def test_a_request_is_a_span_without_its_query(traced_wire, exporter, stream):
    traced_wire.send(get(b"/hello?secret=1", b"User-Agent: docker/26"))
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /hello"
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "url.path": "/hello",
        "url.scheme": "http",
        "client.address": "192.168.1.1",
        "user_agent.original": "docker/26",
        "http.response.status_code": 200,
        "http.response.body.size": 5,
    }
    assert stream.getvalue().endswith(f' "docker/26" trace_id={trace_of(span)}\n')


@pytest.mark.parametrize(
    ("fields", "is_continued"),
    [
        ([f"traceparent: {PARENT}"], True),
        ([f"TraceParent: {PARENT}", "tracestate: a=1", "tracestate: b=2"], True),
        ([], False),
        (["traceparent: 00-nonsense"], False),
        ([f"traceparent: {PARENT}", f"traceparent: {PARENT}"], False),
    ],
)
def test_a_trace_of_the_client_is_continued(traced_wire, exporter, fields, is_continued):
    traced_wire.send(get(b"/hello", *(field.encode() for field in fields)))
    (span,) = exporter.get_finished_spans()
    assert (trace_of(span) == TRACE) is is_continued
    if len(fields) == 3 and is_continued:
        assert dict(span.context.trace_state) == {"a": "1", "b": "2"}


def test_requests_of_one_connection_have_a_trace_each(traced_wire, exporter):
    traced_wire.send(get(b"/hello") + get(b"/hello") + put(b"/other", b"body") + get(b"/hello"))
    spans = exporter.get_finished_spans()
    assert len({trace_of(span) for span in spans}) == len(spans) == 4
    assert [span.parent for span in spans] == [None] * 4
    assert not get_current_span().get_span_context().is_valid


def test_a_client_that_leaves_ends_the_span(traced_wire, exporter):
    traced_wire.send(get(b"/wait"))
    assert exporter.get_finished_spans() == ()
    traced_wire.lose(Failure(ConnectionLost()))
    (span,) = exporter.get_finished_spans()
    assert span.attributes["http.response.status_code"] == 499


def test_a_failed_request_is_an_error(traced_wire, exporter, log_lines):
    traced_wire.send(get(b"/boom"))
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.events == ()


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/startupz"])
def test_probes_are_no_spans(traced_wire, exporter, path):
    traced_wire.send(get(path))
    assert traced_wire.sent().startswith(b"HTTP/1.1 200")
    assert exporter.get_finished_spans() == ()


def test_a_body_is_delivered_in_the_context_of_its_request(traced_wire, exporter):
    seen = []
    traced_wire.kit.on_write = lambda *_: seen.append(get_current_span().get_span_context())
    request = put(b"/s/take", b"first second")
    traced_wire.send(request[:-6])
    traced_wire.send(request[-6:])
    (span,) = exporter.get_finished_spans()
    assert len(seen) == 2
    assert {context.span_id for context in seen} == {span.context.span_id}


class FakeAgent:
    """Answers as it is told.

    :ivar answer: returns the Deferred of a response.
    """

    def __init__(self, answer):
        self.answer = answer
        self.headers = None

    def request(self, method, uri, headers=None, bodyProducer=None):
        self.headers = headers
        return self.answer()


class FakeResponse:
    def __init__(self, code):
        self.code = code


URL = b"https://user:secret@hooks.example/secret-path?token=secret"


@pytest.fixture
def send(tracer, propagation):
    """Send a request within a trace; returns the agent's headers, and the result."""

    def send(answer, *, shows_path=False, fields=None):
        inner = FakeAgent(answer)
        agent = TracedAgent(inner, tracer, propagation, shows_path)
        verifyObject(IAgent, agent)
        results = []
        agent.request(b"POST", URL, fields).addBoth(results.append)
        return inner.headers, results

    return send


@pytest.mark.parametrize(("code", "is_error"), [(200, 0), (307, 0), (404, 0), (403, 1), (503, 1)])
def test_an_outgoing_request_is_a_child_without_secrets(send, tracer, exporter, code, is_error):
    response = FakeResponse(code)
    with tracer.start_as_current_span("parent"):
        headers, results = send(lambda: succeed(response), fields=Headers({"A": ["b"]}))
    child, parent = exporter.get_finished_spans()
    assert results == [response]
    assert child.name == "POST"
    assert child.parent.span_id == parent.context.span_id
    assert dict(child.attributes) == {
        "http.request.method": "POST",
        "url.scheme": "https",
        "server.address": "hooks.example",
        "server.port": 443,
        "http.response.status_code": code,
    }
    assert (child.status.status_code is StatusCode.ERROR) is bool(is_error)
    (sent,) = headers.getRawHeaders("traceparent")
    assert sent.startswith(f"00-{trace_of(child)}-{child.context.span_id:016x}-")
    assert headers.getRawHeaders("A") == ["b"]


def test_an_error_is_named_without_its_text(send, tracer, exporter):
    with tracer.start_as_current_span("parent"):
        _, (failure,) = send(lambda: fail(OSError("https://user:secret@hooks.example")))
    failure.trap(OSError)
    child, _ = exporter.get_finished_spans()
    assert child.attributes["error.type"] == "OSError"
    assert child.status.status_code is StatusCode.ERROR
    assert "secret" not in child.to_json()


def test_the_path_is_shown_where_it_is_no_secret(send, tracer, exporter):
    with tracer.start_as_current_span("parent"):
        send(lambda: succeed(FakeResponse(200)), shows_path=True)
    child, _ = exporter.get_finished_spans()
    assert child.name == "POST /secret-path"
    assert "token" not in child.to_json()


def test_a_request_outside_of_a_trace_is_no_span(send, exporter):
    headers, _ = send(lambda: succeed(FakeResponse(200)))
    assert not headers.hasHeader("traceparent")
    assert exporter.get_finished_spans() == ()


def test_a_trace_in_the_headers_is_continued(send, exporter):
    send(lambda: succeed(FakeResponse(200)), fields=Headers({"traceparent": [PARENT]}))
    (span,) = exporter.get_finished_spans()
    assert trace_of(span) == TRACE


class BrokenDriver(MemoryDriver):
    """Fails, or never ends."""

    error = None

    def get(self, path, limit):
        return Deferred() if self.error is None else fail(self.error)

    def delete(self, path, *, durable=True):
        raise RuntimeError("secret")


@pytest.fixture
def driver(tracer):
    storage_tracer = StorageTracer(tracer)
    verifyObject(IStorageTracer, storage_tracer)
    return CheckedDriver(BrokenDriver(Clock()), Clock(), tracer=storage_tracer)


@pytest.mark.parametrize(
    ("error", "is_error"), [(PathNotFound("a/b"), False), (StorageError("a/b", "secret"), True)]
)
def test_a_driver_call_is_a_child(driver, tracer, exporter, error, is_error):
    driver.driver.error = error
    with tracer.start_as_current_span("parent"):
        driver.get("a/b", 1).addErrback(lambda reason: reason.trap(type(error)))
    call, parent = exporter.get_finished_spans()
    assert call.name == "GetContent"
    assert call.parent.span_id == parent.context.span_id
    assert dict(call.attributes) == {
        "io.cncf.distribution.storage.driver.name": "inmemory",
        "io.cncf.distribution.storage.path": "/a/b",
        "error.type": type(error).__name__,
    }
    assert (call.status.status_code is StatusCode.ERROR) is is_error


def test_a_driver_that_raises_ends_the_span(driver, tracer, exporter, log_lines):
    with tracer.start_as_current_span("parent"):
        driver.delete("a").addErrback(lambda reason: reason.trap(StorageError))
    call, _ = exporter.get_finished_spans()
    assert call.attributes["error.type"] == "RuntimeError"
    assert "secret" not in call.to_json()


def test_a_driver_call_ends_with_its_deferred(driver, tracer, exporter):
    with tracer.start_as_current_span("parent"):
        waiting = driver.get("a", 1)
        assert get_current_span().name == "parent"
    assert [span.name for span in exporter.get_finished_spans()] == ["parent"]
    waiting.addErrback(lambda _: None).cancel()
    assert [span.name for span in exporter.get_finished_spans()] == ["parent", "GetContent"]


def test_a_driver_call_outside_of_a_request_is_no_span(driver, exporter):
    driver.stat("a").addErrback(lambda reason: reason.trap(PathNotFound))
    assert exporter.get_finished_spans() == ()
