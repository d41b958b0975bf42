"""Traces and logs: ids of traces in the log, and the complaints of the SDK."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from opentelemetry.trace import format_trace_id, get_current_span
from twisted.logger import ILogObserver, Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.logger import LogEvent

log = Logger()

#: Seconds between two complaints: each batch that a collector does not take would be one.
_COMPLAINT_INTERVAL_S: Final = 60.0


@implementer(ILogObserver)
@frozen(eq=False)
class TraceIdObserver:
    """Adds the id of the current trace to events.

    :ivar observer: receives the events.
    :ivar field: the name of the field.
    """

    observer: ILogObserver
    field: str

    def __call__(self, event: LogEvent) -> None:
        """Forward one event."""
        context = get_current_span().get_span_context()
        if context.is_valid:
            event = {**event, self.field: format_trace_id(context.trace_id)}
        self.observer(event)


class SDKLogHandler(logging.Handler):
    """Writes warnings of the OpenTelemetry SDK to the log, one a minute.

    The SDK logs on its own threads, through the standard library.
    """

    def __init__(self, reactor: Any, secrets: Sequence[str]) -> None:
        """Make the handler.

        :param secrets: texts that are left out of messages.
        """
        super().__init__(logging.WARNING)
        self._reactor = reactor
        self._secrets = secrets
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _COMPLAINT_INTERVAL_S
        message = record.getMessage()
        for secret in self._secrets:
            message = message.replace(secret, "***")
        self._reactor.callFromThread(log.warn, "tracing: {message}", message=message)
