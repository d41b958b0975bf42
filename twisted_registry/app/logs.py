"""Log lines in the shapes that Distribution writes: logfmt text, JSON, logstash.

Operators and their tools look for these fields, so the names stay. Where text goes to a terminal,
the time is short and the quotes are left out.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Mapping

#: twisted.logger's levels, in the words of Distribution's logs.
_LEVELS = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "fatal",
}
#: The configuration's words for the lowest level that is written.
_THRESHOLDS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def make_observer(
    stream: TextIO,
    level: str = "info",
    formatter: Literal["text", "json", "logstash"] | str = "text",  # noqa: PYI051
    fields: Mapping[str, Any] | None = None,
) -> ILogObserver:
    """Make an observer that writes a line for each event.

    :param level: ``error``, ``warn``, ``info`` or ``debug``: nothing below it is written.
    :param formatter: the shape of a line.
    :param fields: added to every line.
    """
    return filter_level(level, LineObserver(stream, formatter, dict(fields or {})))


def filter_level(level: str, observer: ILogObserver) -> ILogObserver:
    """Let *observer* hear of nothing below ``error``, ``warn``, ``info`` or ``debug``."""
    predicate = LogLevelFilterPredicate(_THRESHOLDS[level])
    filtered: ILogObserver = FilteringLogObserver(observer, [predicate])
    return filtered


@implementer(ILogObserver)
class LineObserver:
    """Writes events as lines to a text stream."""

    def __init__(
        self, stream: TextIO, formatter: str = "text", fields: Mapping[str, Any] | None = None
    ) -> None:
        self.stream = stream
        self.formatter = formatter
        self.fields = {} if fields is None else fields

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        time = datetime.fromtimestamp(event["log_time"], UTC)
        level = _LEVELS.get(event.get("log_level"), "info")
        message = formatEvent(event)
        # Fields with a dot in their name are meant to be found again; the others are in the text.
        extra = {**self.fields, **{key: value for key, value in event.items() if "." in key}}
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
        shown = "" if level == "info" else f"{level}: "
        return f"{time.astimezone():%H:%M:%S} {shown}{message}{tail}"
    stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f'time="{stamp}" level={level} msg={_quote(message)}{tail}'


def _quote(text: str) -> str:
    plain = text and all(character.isalnum() or character in "-._/@^+" for character in text)
    # What could steer a terminal is not all below the space: then nothing but ASCII.
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
