"""Where an event comes from: the request whose coroutine runs, and the line of code."""

from __future__ import annotations

import sys
import uuid
from typing import Final

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from twisted_registry.http.request_id import REQUEST_ID_FIELD, current_request_id

#: Identifies this start of the registry in logs and notifications. Workers use that of the first
#: process.
INSTANCE_ID: Final = str(uuid.uuid4())
#: The key of an event with function and ``file:line`` of its caller.
CALLER_KEY: Final = "log_caller"
#: The field with the id of the trace: its name in OpenTelemetry's convention for logs.
TRACE_ID_FIELD: Final = "trace_id"
#: Modules between the code that logs and an observer.
_SKIPPED: Final = (
    *("twisted.logger", "twisted_registry.logs", "twisted_registry.workers.logs"),
    "twisted_registry.tracing.logs",
)


@implementer(ILogObserver)
@frozen(eq=False)
class RequestIdObserver:
    """Adds the id of the current request to events without one.

    :ivar observer: receives the events.
    """

    observer: ILogObserver

    def __call__(self, event: LogEvent) -> None:
        """Forward one event."""
        request_id = current_request_id.get()
        if request_id and REQUEST_ID_FIELD not in event:
            event = {**event, REQUEST_ID_FIELD: request_id}
        self.observer(event)


@implementer(ILogObserver)
@frozen(eq=False)
class CallerObserver:
    """Adds the function and the line of code that have logged an event.

    :ivar observer: receives the events.
    """

    observer: ILogObserver

    def __call__(self, event: LogEvent) -> None:
        """Forward one event."""
        # That of a worker's event is known.
        self.observer({CALLER_KEY: _find_caller(), **event})


def _find_caller() -> tuple[str, str]:
    frame = sys._getframe(1)  # noqa: SLF001 - the way that the standard library documents
    while frame.f_back is not None and _is_skipped(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    code, module = frame.f_code, frame.f_globals.get("__name__", "")
    return f"{module}.{code.co_qualname}", f"{code.co_filename}:{frame.f_lineno}"


def _is_skipped(module: str) -> bool:
    return module.startswith(_SKIPPED)
