"""How the log of a worker reaches that of the first process, which alone writes it.

So each line is whole, wherever the log goes: to standard error, or to what twistd was told. A
worker's standard error is a pipe to the first process, and its events are JSON there, a line each.
What a worker has counted comes the same way, in lines that begin with a mark of their own. Anything
else on it is what an interpreter says when it breaks.

Standard output that several processes write to, with whole lines.

What one process writes to a pipe in one piece may be taken apart by what another writes, if it is
longer than a page or the pipe is full. A lock on the output itself keeps that from happening; it
is the kernel's, for processes, and goes with its holder.
"""

from __future__ import annotations

import fcntl
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

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
    from typing import TextIO

    from _typeshed import ReadableBuffer
    from twisted.logger import LogEvent

    from twisted_registry.metrics.interfaces import ICountsReceiver

log = Logger()

#: Names the process in a line of the log.
PID_FIELD: Final = "process.pid"
_MESSAGE_FIELD: Final = "err.message"
#: A line longer than this is cut.
_MAX_LINE_BYTES: Final = 1024 * 1024


@implementer(ILogObserver)
class EventSender:
    """Sends events to the first process."""

    def __init__(self, stream: TextIO) -> None:
        """Take the stream that the first process reads."""
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        """Send one event."""
        failure = event.get("log_failure")
        if failure is not None:
            # JSON has no word for an exception: its message goes beside it.
            event = {**event, _MESSAGE_FIELD: failure.getErrorMessage()}
        self._stream.write(eventAsJSON(event) + "\n")
        self._stream.flush()


@implementer(ILogObserver)
class ProcessIdObserver:
    """Adds the id of this process to events that name none."""

    def __init__(self, observer: ILogObserver) -> None:
        """Take the observer that is to hear of the events."""
        self._observer = observer

    def __call__(self, event: LogEvent) -> None:
        """Hand one event on."""
        # Asked for each time: twistd makes a daemon of us after it made the observer.
        self._observer({PID_FIELD: os.getpid(), **event})


class EventReceiver:
    """Takes what a worker sends, and logs it here.

    :ivar pid: of the worker.
    """

    def __init__(self, observer: ILogObserver, counted: ICountsReceiver | None = None) -> None:
        """Take the observer that is to hear of the events.

        :param counted: hears what the worker has counted.
        """
        self.pid = 0
        self._observer = observer
        self._counted = counted
        self._pending = b""

    def received(self, data: bytes) -> None:
        """Some bytes came."""
        *lines, rest = (self._pending + data).split(b"\n")
        self._pending = rest[:_MAX_LINE_BYTES]
        for line in lines:
            self._take(line)

    def ended(self) -> None:
        """No more will come."""
        if self._pending:
            self._take(self._pending)
            self._pending = b""

    def _take(self, line: bytes) -> None:
        if self._counted is not None and line.startswith(COUNTS_PREFIX):
            self._counted.update(self.pid, line.removeprefix(COUNTS_PREFIX))
            return
        text = line.decode("utf-8", "replace")
        event = _event(text)
        if event is None:
            # Not our log: the interpreter says something, and it is rarely good.
            Logger("twisted_registry.workers", observer=self._observer).error(
                "{text}", text=text, **{PID_FIELD: self.pid}
            )
            return
        event[PID_FIELD] = self.pid
        failure = event.get("log_failure")
        if failure is not None:
            failure.value = event.get(_MESSAGE_FIELD)
        level = event.get("log_level", LogLevel.info)
        # How twistd's own log calls the origin of a line.
        event["log_system"] = f"{event.get('log_namespace')}#{level.name} {self.pid}"
        self._observer(event)


def _event(text: str) -> LogEvent | None:
    try:
        event = eventFromJSON(text)
    except (ValueError, KeyError, TypeError):
        return None
    return event if isinstance(event, dict) and "log_time" in event else None


class LockedOutput(io.RawIOBase):
    """Writes all of its argument before another process writes anything."""

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor that all of the processes have; it is never closed here."""
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write everything, and answer how many bytes that was."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        # Some devices can not be locked; a line to them goes in one piece anyway.
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
    """A text stream; what one call of ``write`` takes stays together."""
    output = io.BufferedWriter(LockedOutput(descriptor), 1)
    return io.TextIOWrapper(output, "utf-8", "backslashreplace", write_through=True)
