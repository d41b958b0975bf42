"""Spans of requests, of driver calls, and of requests to other services.

The current span is a context variable. Twisted copies the context into every coroutine and
generator that waits, so that what a handler awaits finds the span of its request. Callbacks do not:
the body of a request is therefore delivered in the context of its request.

Names and attributes are those of CNCF Distribution 3 (``METHOD /path``; ``Stat`` and the like with
``io.cncf.distribution.storage.*``) and of OpenTelemetry's semantic conventions for HTTP. No span
has a query, a header except User-Agent, or the text of an error: they may contain secrets.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from attrs import frozen
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
    use_span,
)
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from twisted_registry.storage.interfaces import DISTRIBUTION_ACTIONS, IStorageTracer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, Tracer
    from twisted.internet.defer import Deferred
    from twisted.web.iweb import IBodyProducer, IResponse

    from twisted_registry.http.request import StreamingRequest

_T = TypeVar("_T")

#: The prefix of Distribution's own attributes.
_PREFIX: Final = "io.cncf.distribution."
#: Requests that load balancers and kubelets repeat for ever.
_PROBES: Final = frozenset({b"/livez", b"/readyz", b"/startupz"})


@frozen
class Propagation:
    """Reads and writes the headers that pass a context on (W3C Trace Context, W3C Baggage).

    :ivar propagator: as ``OTEL_PROPAGATORS`` says.
    """

    propagator: TextMapPropagator

    def read(self, get_values: Callable[[bytes], Sequence[bytes]]) -> Context:
        """Return the context of a request; empty without one.

        :param get_values: returns the values of a header, given its name in lower case.
        """
        carrier = {}
        for name in self.propagator.fields:
            values = get_values(name.lower().encode("ascii"))
            if values:
                carrier[name] = b",".join(values).decode("latin-1")
        return self.propagator.extract(carrier, Context()) if carrier else Context()

    def headers(self, context: Context | None = None) -> Mapping[str, str]:
        """Return the headers that pass a context on; empty if it has no span.

        :param context: by default the current one.
        """
        carrier: dict[str, str] = {}
        if has_span(context):
            self.propagator.inject(carrier, context)
        return carrier


def has_span(context: Context | None = None) -> bool:
    """Return whether a context, or the current one, is part of a trace."""
    return bool(get_current_span(context).get_span_context().is_valid)


@frozen
class RequestTracer:
    """Makes a span of every incoming request, except probes."""

    _tracer: Tracer
    _propagation: Propagation

    def begin(self, request: StreamingRequest) -> None:
        """Begin a request, in the context of its span; see ``HTTPSite.begin_request``."""
        if request.path in _PROBES:
            request.begin()
        else:
            # A pipelined request begins in the context of the one before it.
            copy_context().run(self._begin, request)

    def _begin(self, request: StreamingRequest) -> None:
        parent = self._propagation.read(request.getHeaderValues)
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        span = self._tracer.start_span(
            f"{method} {path}",
            parent,
            SpanKind.SERVER,
            {"http.request.method": method, "url.path": path},
        )
        if span.is_recording():
            span.set_attributes(_describe_client(request))
        # Not detached: the context ends with the request.
        attach(set_span_in_context(span, parent))
        request.trace_id = format_trace_id(span.get_span_context().trace_id)
        if request.head.length != 0:
            request.body.context = copy_context()
        request.notifyFinish().addBoth(_end_server_span, request, span)
        request.begin()


def _describe_client(request: StreamingRequest) -> Mapping[str, str]:
    client = request.client_info
    agent = request.headerFields.get(b"user-agent", b"").decode("utf-8", "replace")
    scheme = client.scheme or ("https" if request.isSecure() else "http")
    found = {"client.address": client.address, "user_agent.original": agent, "url.scheme": scheme}
    return {name: value for name, value in found.items() if value}


def _end_server_span(_: object, request: StreamingRequest, span: Span) -> None:
    span.set_attribute("http.response.status_code", request.code)
    span.set_attribute("http.response.body.size", request.sentLength)
    if request.code >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


@implementer(IStorageTracer)
@frozen
class StorageTracer:
    """Makes a span of every driver call that a recorded request causes."""

    _tracer: Tracer

    def run(
        self,
        driver: str,
        action: str,
        path: str,
        call: Callable[[], Deferred[_T]],
        is_breakdown: Callable[[BaseException | None], bool],
    ) -> Deferred[_T]:
        """Make a call; see the interface."""
        if not get_current_span().is_recording():
            return call()
        span = self._tracer.start_span(
            DISTRIBUTION_ACTIONS.get(action, action),
            attributes={
                f"{_PREFIX}storage.driver.name": driver,
                f"{_PREFIX}storage.path": f"/{path}",
            },
        )

        def end(result: _T | Failure) -> _T | Failure:
            if isinstance(result, Failure):
                _set_error(span, result, is_error=is_breakdown(result.value))
            span.end()
            return result

        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                result = call()
        except Exception:
            end(Failure())
            raise
        answer: Deferred[_T] = result.addBoth(end)
        return answer


@implementer(IAgent)
@frozen
class TracedAgent:
    """Makes a span of each request that belongs to a trace, and passes the context on.

    The trace is that of the headers, if they have one, and otherwise that of the current span. A
    span ends with the head of the response.

    :ivar shows_path: whether spans have the path, which may be secret.
    """

    _agent: IAgent
    _tracer: Tracer
    _propagation: Propagation
    _shows_path: bool

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request."""
        headers = Headers() if headers is None else headers.copy()
        parent = self._propagation.read(lambda name: headers.getRawHeaders(name) or ())
        if not has_span(parent):
            parent = get_current()
        if not has_span(parent):
            return self._agent.request(method, uri, headers, bodyProducer)
        span = self._start_span(method.decode("ascii"), uri.decode("ascii"), parent)
        for name, value in self._propagation.headers(set_span_in_context(span, parent)).items():
            headers.setRawHeaders(name, [value])
        try:
            sending = self._agent.request(method, uri, headers, bodyProducer)
        except Exception:
            _end_failed(Failure(), span)
            raise
        answer: Deferred[IResponse] = sending.addCallbacks(
            _end_client_span, _end_failed, callbackArgs=(span,), errbackArgs=(span,)
        )
        return answer

    def _start_span(self, method: str, uri: str, parent: Context) -> Span:
        parts = urlsplit(uri)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": parts.scheme,
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }
        name = method
        if self._shows_path:
            attributes["url.path"] = parts.path
            name = f"{method} {parts.path}"
        return self._tracer.start_span(name, parent, SpanKind.CLIENT, attributes)


def _end_client_span(response: IResponse, span: Span) -> IResponse:
    span.set_attribute("http.response.status_code", response.code)
    # 404 answers the question whether something exists.
    if response.code >= 400 and response.code != 404:
        span.set_status(Status(StatusCode.ERROR))
    span.end()
    return response


def _end_failed(failure: Failure, span: Span) -> Failure:
    _set_error(span, failure, is_error=True)
    span.end()
    return failure


def _set_error(span: Span, failure: Failure, *, is_error: bool) -> None:
    """Set the kind of an error, without its text, which may contain secrets."""
    span.set_attribute("error.type", type(failure.value).__name__)
    if is_error:
        span.set_status(Status(StatusCode.ERROR))
