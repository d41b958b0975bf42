from __future__ import annotations

import io
import os

import pytest
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    formatEventAsClassicLogText,
)
from zope.interface.verify import verifyObject

from twisted_registry.logs.lines import LineObserver
from twisted_registry.workers.logs import PID_FIELD, EventReceiver, EventSender, ProcessIdObserver


def sent(do):
    """The bytes that a worker writes while ``do`` logs."""
    stream = io.StringIO()
    reporter = EventSender(stream)
    verifyObject(ILogObserver, reporter)
    do(Logger("some.where", observer=LogPublisher(reporter)))
    return stream.getvalue().encode()


def received(*parts, end=True):
    """The events that the first process logs for bytes of a worker."""
    events = []
    reports = EventReceiver(events.append)
    reports.pid = 4711
    for part in parts:
        reports.data_received(part)
    if end:
        reports.finish()
    return events


def fail(log):
    try:
        int("so what")
    except ValueError:
        log.failure("it {what}", what="failed")


def test_an_event_keeps_message_level_and_fields():
    content = sent(lambda log: log.warn("{what} broke", what="it\nall", **{"err.code": "odd"}))
    assert content.count(b"\n") == 1
    (event,) = received(content)
    assert formatEvent(event) == "it\nall broke"
    assert event["log_level"] == LogLevel.warn
    assert event["err.code"] == "odd"
    assert event[PID_FIELD] == 4711


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_arrive_in_pieces_of_any_size(size):
    content = sent(lambda log: [log.info("number {n}", n=n) for n in range(5)])
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    events = received(*parts, end=False)
    assert [formatEvent(event) for event in events] == [f"number {n}" for n in range(5)]


def test_an_event_names_its_process_in_every_log_format():
    (event,) = received(sent(lambda log: log.info("done")))
    stream = io.StringIO()
    LineObserver(stream)(event)
    assert stream.getvalue().endswith("level=info msg=done process.pid=4711\n")
    classic = formatEventAsClassicLogText(event, formatTime=lambda _: "now")
    assert classic == "now [some.where#info 4711] done\n"


def test_a_failure_keeps_its_traceback():
    (event,) = received(sent(fail))
    stream = io.StringIO()
    LineObserver(stream)(event)
    assert 'level=fatal msg="it failed" err.message="invalid literal' in stream.getvalue()
    assert " process.pid=4711\n" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert "ValueError: invalid literal" in stream.getvalue()
    classic = formatEventAsClassicLogText(event)
    assert "\tbuiltins.ValueError: invalid literal" in classic


@pytest.mark.parametrize(
    "content", [b"Fatal Python error", b"[1]", b"{}", b'{"x": 1}', b'{"log_level": 3}', b"\xff"]
)
def test_what_an_interpreter_says(content):
    for parts, end in (((content + b"\n",), False), ((content,), True)):
        (event,) = received(*parts, end=end)
        assert event["text"] == content.decode("utf-8", "replace")
        assert event["log_level"] == LogLevel.error
        assert event[PID_FIELD] == 4711


def test_an_endless_line_is_cut():
    events = received(*[b"x" * 100_000] * 50)
    assert len(events) == 1
    assert len(events[0]["text"]) == 1024 * 1024


def test_events_are_signed():
    events = []
    signed = ProcessIdObserver(events.append)
    verifyObject(ILogObserver, signed)
    signed({"a": 1})
    signed({PID_FIELD: 3})
    assert events == [{"a": 1, PID_FIELD: os.getpid()}, {PID_FIELD: 3}]
