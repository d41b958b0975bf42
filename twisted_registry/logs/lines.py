"""Log lines in the formats of Distribution: logfmt text, JSON and logstash.

The names of the fields are those of Distribution, since operators and their tools rely on them. An
event is one line, whatever its texts contain: control characters are escaped. Only on a terminal a
traceback has lines of its own; there, text is short, and has colours unless ``NO_COLOR`` is set.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from attrs import define, field
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from zope.interface import implementer, provider

from twisted_registry.http.request_id import REQUEST_ID_FIELD
from twisted_registry.logs.context import CALLER_KEY, TRACE_ID_FIELD

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The names of the levels in the logs of Distribution.
LEVEL_NAMES: Final[Mapping[Any, str]] = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "fatal",
}
#: What Twisted reports of its own parts, for its programmers: these lines are of the level debug.
_TWISTED_DETAILS: Final = re.compile(
    r".* starting on .*|\(.*Port .* Closed\)|Main loop terminated\.", re.DOTALL
)
_TWISTED_NAMESPACES: Final = frozenset({"log_legacy", "twisted.internet.base"})
#: The priorities of the levels in syslog(3).
_PRIORITIES: Final[Mapping[Any, int]] = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
#: Values that logrus writes without quotes: letters, digits and some other characters.
_UNQUOTED: Final = re.compile(r"[\w./@^+-]+\Z")
#: The values of ``log.level``: the lowest level that is written.
_THRESHOLDS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
#: Names that a line has already. A field of the same name gets a prefix, as in Distribution.
_RESERVED: Final = {
    "text": ("time", "level", "msg"),
    "json": ("time", "level", "msg"),
    "logstash": ("@timestamp", "@version", "level", "message"),
}
_CLASH_PREFIX: Final = "fields."
#: Fields of requests that are shown on a terminal.
_SHORT_FIELDS: Final = {
    "http.request.method": "method",
    "http.request.uri": "uri",
    "http.response.status": "status",
}
_LONG_PREFIXES: Final = ("http.", "vars.", "auth.", "err.code")
#: Colours of the levels on a terminal (ECMA-48 SGR).
_COLOURS: Final = {"debug": "2", "warning": "33", "error": "31", "fatal": "1;31"}


def make_observer(
    stream: TextIO,
    level: str = "info",
    formatter: str = "text",
    fields: Mapping[str, Any] | None = None,
    *,
    colours: bool = False,
) -> ILogObserver:
    """Make an observer that writes a line for each event.

    :param level: the lowest level that is written: ``error``, ``warn``, ``info`` or ``debug``.
    :param formatter: ``text``, ``json`` or ``logstash``.
    :param fields: added to every line.
    :param colours: whether a terminal shows colours.
    """
    lines = LineObserver(stream, formatter, dict(fields or {}), colours=colours)
    return filter_level(level, lines)


def filter_level(level: str, observer: ILogObserver) -> ILogObserver:
    """Return an observer that forwards events of a level or above.

    :param level: ``error``, ``warn``, ``info`` or ``debug``.
    """
    predicates: list[Any] = [LogLevelFilterPredicate(_THRESHOLDS[level])]
    if level != "debug":
        predicates.append(_drop_twisted_details)
    return FilteringLogObserver(observer, predicates)


@provider(ILogFilterPredicate)
def _drop_twisted_details(event: LogEvent) -> Any:
    if event.get("log_namespace") in _TWISTED_NAMESPACES and _TWISTED_DETAILS.fullmatch(
        formatEvent(event)
    ):
        return PredicateResult.no
    return PredicateResult.maybe


@implementer(ILogObserver)
@define(eq=False)
class ReplaceableObserver:
    """Forwards events to an observer that can be replaced.

    :ivar observer: receives the events.
    """

    observer: ILogObserver

    def __call__(self, event: LogEvent) -> None:
        """Forward one event."""
        self.observer(event)


@implementer(ILogObserver)
@define(eq=False)
class LineObserver:
    """Writes events as lines to a text stream.

    :ivar stream: gets each line in one ``write``.
    :ivar formatter: ``text``, ``json`` or ``logstash``.
    :ivar fields: added to every line.
    :ivar process_fields: added to the lines that are not about a request.
    :ivar colours: whether a terminal shows colours.
    :ivar priorities: whether each line begins with its priority, as ``<6>``; see sd-daemon(3).
    """

    stream: TextIO
    formatter: str = "text"
    fields: Mapping[str, Any] = field(factory=dict)
    process_fields: Mapping[str, Any] = field(factory=dict)
    colours: bool = field(default=False, kw_only=True)
    priorities: bool = field(default=False, kw_only=True)
    _is_terminal_text: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._is_terminal_text = self.formatter == "text" and self.stream.isatty()

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        line = self._terminal_text(event) if self._is_terminal_text else self._line(event)
        if self.priorities:
            line = f"<{_PRIORITIES.get(event.get('log_level'), 6)}>{line}"
        self.stream.write(line + "\n")
        self.stream.flush()

    def _line(self, event: LogEvent) -> str:
        extra = {} if REQUEST_ID_FIELD in event else {**self.process_fields}
        extra.update(self.fields)
        extra.update(event_fields(event))
        failure = event.get("log_failure")
        if failure is not None:
            extra["err.traceback"] = failure.getTraceback().rstrip()
        formatter = self.formatter
        for name in _RESERVED[formatter]:
            if name in extra:
                extra[_CLASH_PREFIX + name] = extra.pop(name)
        time = datetime.fromtimestamp(event["log_time"], UTC)
        stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        level, message = level_name(event), formatEvent(event)
        if formatter == "text":
            tail = "".join([f" {name}={_quote(_as_text(extra[name]))}" for name in sorted(extra)])
            return f'time="{stamp}" level={level} msg={_quote(message)}{tail}'
        document = {name: extra[name] for name in sorted(extra)}
        if formatter == "logstash":
            document |= {"@timestamp": stamp, "@version": "1", "level": level, "message": message}
        else:
            document |= {"level": level, "msg": message, "time": stamp}
        return json.dumps(document, default=str)

    def _terminal_text(self, event: LogEvent) -> str:
        time = datetime.fromtimestamp(event["log_time"], UTC).astimezone()
        level = level_name(event)
        text = "" if level == "info" else f"{level}: "
        text += escape_controls(formatEvent(event))
        for name, value in event_fields(event).items():
            if name in _SHORT_FIELDS or not name.startswith(_LONG_PREFIXES):
                text += f" {_SHORT_FIELDS.get(name, name)}={_quote(_as_text(value))}"
        colour = _COLOURS.get(level) if self.colours else None
        if colour is not None:
            text = f"\x1b[{colour}m{text}\x1b[0m"
        failure = event.get("log_failure")
        if failure is not None:
            lines = failure.getTraceback().rstrip().split("\n")
            text = "\n".join([text, *map(escape_controls, lines)])
        return f"{time:%H:%M:%S} {text}"


def level_name(event: LogEvent) -> str:
    """Return the level of an event, as Distribution names it."""
    return LEVEL_NAMES.get(event.get("log_level"), "info")


def event_fields(event: LogEvent) -> dict[str, Any]:
    """Return the fields of an event that are written beside its message.

    Their names contain a dot. The others are part of the message, or may be secrets.
    """
    fields = {name: value for name, value in event.items() if "." in name or name == TRACE_ID_FIELD}
    failure = event.get("log_failure")
    if failure is not None:
        fields["err.message"] = failure.getErrorMessage()
    if CALLER_KEY in event:
        fields["func"], fields["file"] = event[CALLER_KEY]
    return fields


def escape_controls(text: str) -> str:
    """Return a text in which everything that does not print is escaped, line ends as well."""
    if text.isprintable():
        return text
    escaped = (
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
    return "".join(escaped)


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def _quote(text: str) -> str:
    # Control characters, also those above ASCII, must not reach a terminal: escape them.
    if _UNQUOTED.match(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
