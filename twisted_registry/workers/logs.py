"""Logs of several processes: whole lines, written by one process at a time.

Log events of a worker go through its standard error, a pipe to the first process, which alone
writes the log: to standard error, or to where twistd logs. An event is one line of JSON. Counts of
a worker are lines that begin with :data:`~twisted_registry.metrics.interfaces.COUNTS_PREFIX`, and
answers to the first process are lines that begin with :data:`ANSWER_PREFIX`. Any other line is
written by the Python interpreter, for example when it crashes.

The access log is written to standard output by all processes. A write to a pipe can be interleaved
with writes of other processes if it is longer than a page, or if the pipe is full. So each line is
written under a lock of the kernel on the output (``fcntl.lockf``), which ends with its process.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    eventAsJSON,
    eventFromJSON,
)
from zope.interface import implementer

from twisted_registry.metrics.interfaces import COUNTS_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from _typeshed import ReadableBuffer
    from twisted.logger import LogEvent

    from twisted_registry.metrics.interfaces import ICountsReceiver

#: How a line with an answer begins; a JSON list of its number and its text follows.
ANSWER_PREFIX: Final = b"answer "
#: The field of a log line with the id of the process.
PID_FIELD: Final = "process.pid"
_MESSAGE_FIELD: Final = "err.message"
#: A longer line without an end is cut.
_MAX_LINE_BYTES: Final = 1024 * 1024


@implementer(ILogObserver)
@frozen(eq=False)
class EventSender:
    """Writes events of a worker to the pipe to the first process.

    :ivar stream: the pipe: the standard error of the worker.
    """

    stream: TextIO

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        failure = event.get("log_failure")
        if failure is not None:
            # An exception is not part of the JSON, so its message is a field.
            event = {**event, _MESSAGE_FIELD: failure.getErrorMessage()}
        self.stream.write(eventAsJSON(event) + "\n")
        self.stream.flush()


@implementer(ILogObserver)
@frozen(eq=False)
class ProcessIdObserver:
    """Adds the id of this process to events without one.

    :ivar observer: receives the events.
    """

    observer: ILogObserver

    def __call__(self, event: LogEvent) -> None:
        """Forward one event."""
        # Not cached: twistd forks a daemon after the observer was made.
        self.observer({PID_FIELD: os.getpid(), **event})


@define(eq=False)
class EventReceiver:
    """Logs the events of a worker in the first process.

    :ivar observer: receives the events.
    :ivar counts_receiver: receives the counts of the worker; None if metrics are disabled.
    :ivar on_answer: receives number and text of the answers of the worker.
    :ivar pid: the id of the worker's process.
    """

    observer: ILogObserver
    counts_receiver: ICountsReceiver | None = None
    on_answer: Callable[[int, str], object] | None = None
    pid: int = field(init=False, default=0)
    _pending: bytes = field(init=False, default=b"")

    def data_received(self, data: bytes) -> None:
        """Handle the lines that are complete with these bytes from the pipe."""
        *lines, rest = (self._pending + data).split(b"\n")
        self._pending = rest[:_MAX_LINE_BYTES]
        for line in lines:
            self._line_received(line)

    def finish(self) -> None:
        """Handle an incomplete last line: the worker has ended."""
        if self._pending:
            self._line_received(self._pending)
            self._pending = b""

    def _line_received(self, line: bytes) -> None:
        if self.counts_receiver is not None and line.startswith(COUNTS_PREFIX):
            self.counts_receiver.update(self.pid, line.removeprefix(COUNTS_PREFIX))
            return
        if self.on_answer is not None and line.startswith(ANSWER_PREFIX):
            number, answer = json.loads(line.removeprefix(ANSWER_PREFIX))
            self.on_answer(number, answer)
            return
        text = line.decode("utf-8", "replace")
        event = _decode_event(text)
        if event is None:
            # Written by the interpreter, usually because it crashes.
            Logger("twisted_registry.workers", observer=self.observer).error(
                "{text}", text=text, **{PID_FIELD: self.pid}
            )
            return
        event[PID_FIELD] = self.pid
        failure = event.get("log_failure")
        if failure is not None:
            failure.value = event.get(_MESSAGE_FIELD)
        level = event.get("log_level", LogLevel.info)
        # The origin of a line in twistd's own log.
        event["log_system"] = f"{event.get('log_namespace')}#{level.name} {self.pid}"
        self.observer(event)


def write_answer(stream: TextIO, number: int, text: str) -> None:
    """Answer the first process.

    :param stream: the standard error of the worker.
    :param number: of the question.
    """
    stream.write(f"{ANSWER_PREFIX.decode()}{json.dumps([number, text])}\n")
    stream.flush()


def _decode_event(text: str) -> LogEvent | None:
    try:
        event = eventFromJSON(text)
    except (ValueError, KeyError, TypeError):
        return None
    return event if isinstance(event, dict) and "log_time" in event else None


class LockedOutput(io.RawIOBase):
    """Writes its argument completely before another process writes to the same output."""

    def __init__(self, descriptor: int) -> None:
        """Write to a descriptor that all processes share; it is not closed here."""
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Return True: it can only be written to."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write everything, and return the number of bytes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        # Some devices cannot be locked; they take a line in one write anyway.
        with suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        finally:
            with suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return size


def open_locked_output(descriptor: int) -> TextIO:
    """Return a text stream over :class:`LockedOutput`: one ``write`` is never interleaved."""
    output = io.BufferedWriter(LockedOutput(descriptor), 1)
    return io.TextIOWrapper(output, "utf-8", "backslashreplace", write_through=True)
