"""A collector of spans over OTLP/HTTP."""

from __future__ import annotations

import gzip

import pytest
from attrs import define, field, frozen

from tests.support.post_server import PostServer

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="install the extra test"
)


@frozen
class CollectedSpan:
    """A span as it arrived.

    :ivar kind: 1 internal, 2 server, 3 client.
    :ivar status: 0 unset, 2 error.
    """

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    status: int
    attributes: dict
    service: dict


def _decode(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def decode(body):
    """Return the spans of a request of the protocol."""
    request = trace_service.ExportTraceServiceRequest.FromString(body)
    return [
        CollectedSpan(
            span.name, span.kind, span.trace_id.hex(), span.span_id.hex(),
            span.parent_span_id.hex(), span.status.code, _decode(span.attributes),
            _decode(resource.resource.attributes),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]  # fmt: skip


@define(eq=False)
class OTLPCollector(PostServer):
    """Collects spans.

    :ivar spans: all so far.
    :ivar paths: of the requests.
    """

    spans: list = field(init=False, factory=list)
    paths: list = field(init=False, factory=list)

    @property
    def url(self):
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def named(self, name):
        """Return the spans with a name."""
        return [span for span in [*self.spans] if span.name == name]

    def ancestors(self, span):
        """Return the names of the spans above one, from the nearest on."""
        by_id = {each.id: each for each in [*self.spans]}
        names = []
        while span.parent in by_id:
            span = by_id[span.parent]
            names.append(span.name)
        return names

    def respond(self, path, headers, body):
        """Decode spans."""
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.paths.append(path)
        self.spans += decode(body)
        return 200
