"""Log lines in the formats of Distribution: logfmt text, JSON and logstash.

The names of the fields are those of Distribution, since operators and their tools rely on them. On
a terminal, text has a short time and no quotes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from attrs import define, field
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from zope.interface import implementer

from twisted_registry.app.tracing import TRACE_ID_FIELD

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The names of the levels in the logs of Distribution.
_LEVELS = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "fatal",
}
#: The values of ``log.level``: the lowest level that is written.
_THRESHOLDS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def make_observer(
    stream: TextIO,
    level: str = "info",
    formatter: str = "text",
    fields: Mapping[str, Any] | None = None,
) -> ILogObserver:
    """Make an observer that writes a line for each event.

    :param level: the lowest level that is written: ``error``, ``warn``, ``info`` or ``debug``.
    :param formatter: ``text``, ``json`` or ``logstash``.
    :param fields: added to every line.
    """
    return filter_level(level, LineObserver(stream, formatter, dict(fields or {})))


def filter_level(level: str, observer: ILogObserver) -> ILogObserver:
    """Return an observer that forwards events of a level or above.

    :param level: ``error``, ``warn``, ``info`` or ``debug``.
    """
    return FilteringLogObserver(observer, [LogLevelFilterPredicate(_THRESHOLDS[level])])


@implementer(ILogObserver)
@define(eq=False)
class LineObserver:
    """Writes events as lines to a text stream.

    :ivar formatter: ``text``, ``json`` or ``logstash``.
    :ivar fields: added to every line.
    """

    stream: TextIO
    formatter: str = "text"
    fields: Mapping[str, Any] = field(factory=dict)

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        time = datetime.fromtimestamp(event["log_time"], UTC)
        level = _LEVELS.get(event.get("log_level"), "info")
        message = formatEvent(event)
        # Fields whose names contain a dot are written; the others are part of the message.
        fields = {key: value for key, value in event.items() if "." in key or key == TRACE_ID_FIELD}
        extra = {**self.fields, **fields}
        failure = event.get("log_failure")
        if failure is not None:
            extra["err.message"] = failure.getErrorMessage()
        if self.formatter == "text":
            line = _text(time, level, message, extra, terminal=self.stream.isatty())
            if failure is not None:
                line += "\n" + failure.getTraceback().rstrip()
        else:
            if failure is not None:
                extra["err.traceback"] = failure.getTraceback()
            stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
            line = json.dumps(_document(self.formatter, stamp, level, message, extra), default=str)
        self.stream.write(line + "\n")
        self.stream.flush()


def _document(
    formatter: str, stamp: str, level: str, message: str, extra: Mapping[str, Any]
) -> dict[str, Any]:
    if formatter == "logstash":
        head = {"@timestamp": stamp, "@version": "1", "level": level, "message": message}
    else:
        head = {"level": level, "msg": message, "time": stamp}
    return {**extra, **head}


def _text(
    time: datetime, level: str, message: str, extra: Mapping[str, Any], *, terminal: bool
) -> str:
    tail = "".join(f" {key}={_quote(str(value))}" for key, value in extra.items())
    if terminal:
        prefix = "" if level == "info" else f"{level}: "
        return f"{time.astimezone():%H:%M:%S} {prefix}{message}{tail}"
    stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f'time="{stamp}" level={level} msg={_quote(message)}{tail}'


def _quote(text: str) -> str:
    plain = text and all(character.isalnum() or character in "-._/@^+" for character in text)
    # Control characters, also those above ASCII, must not reach a terminal: escape them.
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
