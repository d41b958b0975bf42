"""The OpenTelemetry SDK: provider, exporters, and the thread that sends spans.

The SDK reads most variables (``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_*``, ``OTEL_EXPORTER_OTLP_*``)
itself, from the environment of the process.
"""

from __future__ import annotations

import logging
import sys
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from twisted_registry.tracing.logs import SDKLogHandler
from twisted_registry.tracing.spans import (
    Propagation,
    RequestTracer,
    StorageTracer,
    TracedAgent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent

log = Logger()

#: The name of the service, as in Distribution.
_SERVICE_NAME: Final = "distribution"
#: Seconds for which a stop waits until the last spans are sent.
FLUSH_S: Final = 2.0


def _make_console_exporter() -> SpanExporter:
    # Standard output has the access log.
    return ConsoleSpanExporter(out=sys.stderr)


#: Values of ``OTEL_TRACES_EXPORTER``.
EXPORTERS: Final[Mapping[str, Callable[[], SpanExporter]]] = {
    "otlp": OTLPSpanExporter,
    "console": _make_console_exporter,
}


class Tracing:
    """The tracing of one process.

    :ivar requests: for incoming requests.
    :ivar storage: for calls to drivers.
    """

    def __init__(
        self,
        reactor: Any,
        make_exporters: Sequence[Callable[[], SpanExporter]],
        version: str,
        secrets: Sequence[str] = (),
    ) -> None:
        """Make all parts; no thread is started yet.

        :param make_exporters: make what sends spans.
        :param version: of the service.
        :param secrets: texts that must not be logged.
        :raises ValueError: if a variable that the SDK reads has an invalid value.
        """
        self._reactor = reactor
        self._handler = SDKLogHandler(reactor, secrets)
        # First: exporters complain of variables when they are made.
        logging.getLogger("opentelemetry").addHandler(self._handler)
        self._exporters = [make() for make in make_exporters]
        self._provider = TracerProvider(
            resource=Resource.create(
                {
                    SERVICE_NAME: _SERVICE_NAME,
                    SERVICE_VERSION: version,
                    **OTELResourceDetector().detect().attributes,
                }
            ),
            shutdown_on_exit=False,
        )
        self._tracer = self._provider.get_tracer("twisted_registry", version)
        self._propagation = Propagation(get_global_textmap())
        self.requests = RequestTracer(self._tracer, self._propagation)
        self.storage = StorageTracer(self._tracer)

    def wrap_agent(self, agent: IAgent) -> IAgent:
        """Return an agent whose requests are part of the trace in which they are made.

        Their spans have no path, which may be secret.
        """
        return TracedAgent(agent, self._tracer, self._propagation, shows_path=False)

    def wrap_agent_showing_paths(self, agent: IAgent) -> IAgent:
        """Return the same with paths, for object stores and for issuers of tokens."""
        return TracedAgent(agent, self._tracer, self._propagation, shows_path=True)

    def headers(self) -> Mapping[str, str]:
        """Return the headers that pass the current context on; empty without a span."""
        return self._propagation.headers()

    def start(self) -> None:
        """Begin to send spans, each exporter on a thread."""
        for exporter in self._exporters:
            # Here, since a daemon is a child of the process that has made the service.
            try:
                processor = BatchSpanProcessor(exporter)
            except ValueError as error:
                log.error("tracing: OTEL_BSP_*: {error} No spans are sent.", error=str(error))
            else:
                self._provider.add_span_processor(processor)

    def close(self) -> Deferred[None]:
        """Send the last spans; fires after :data:`FLUSH_S` at the latest."""
        done: Deferred[None] = Deferred()

        def finish() -> None:
            if not done.called:
                done.callback(None)

        def shut_down() -> None:
            self._provider.shutdown()
            self._reactor.callFromThread(finish)

        # A daemon: the SDK may wait for a collector for half a minute.
        Thread(target=shut_down, name="tracing", daemon=True).start()
        done.addTimeout(FLUSH_S, self._reactor)
        return done.addErrback(_log_lost_spans).addBoth(self._remove_handler)

    def _remove_handler(self, _: object) -> None:
        logging.getLogger("opentelemetry").removeHandler(self._handler)


def _log_lost_spans(reason: Failure) -> None:
    reason.trap(DeferredTimeout)
    log.warn("tracing: the last spans were not sent within {seconds:g} s", seconds=FLUSH_S)
