from __future__ import annotations

import io
import json
import re

import pytest
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.python.log import LogPublisher as LegacyLogPublisher
from zope.interface.verify import verifyObject

from twisted_registry.logs.lines import LineObserver, make_observer


class Terminal(io.StringIO):
    def isatty(self):
        return True


def logged(do, stream=None, **options):
    stream = io.StringIO() if stream is None else stream
    observer = make_observer(stream, **options)
    do(Logger(observer=LogPublisher(observer)))
    return stream.getvalue()


def fail_somewhere(log):
    try:
        int("so what")
    except ValueError:
        log.failure("it {what}", what="failed")


def test_text_has_time_level_and_message():
    line = logged(lambda log: log.info("served {name} to {who}", name="a/b", who="me"))
    assert re.fullmatch(
        r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z" level=info msg="served a/b to me"\n', line
    )


def test_text_ends_with_the_configured_fields():
    line = logged(
        lambda log: log.warn("short"), fields={"service": "registry", "where": "cell 7", "no": ""}
    )
    assert line.endswith('level=warning msg=short no="" service=registry where="cell 7"\n')


def test_text_escapes_line_ends_and_control_characters():
    line = logged(lambda log: log.info("{text}", text='a\nb "c" \x1b[31m \\ \x9b1m \ud800'))
    assert line.count("\n") == 1
    assert line.isascii()
    assert r'msg="a\nb \"c\" \u001b[31m \\ \u009b1m \ud800"' in line
    assert 'msg="ä ö"' in logged(lambda log: log.info("ä ö"))


def test_text_of_a_failure_includes_the_traceback_in_its_line():
    text = logged(fail_somewhere)
    assert 'level=fatal msg="it failed" err.message="invalid literal' in text
    assert 'err.traceback="Traceback' in text
    assert "ValueError: invalid literal" in text
    assert text.count("\n") == 1


def test_text_on_a_terminal_is_short():
    def do(log):
        log.info("quite well")
        log.warn("less so")

    text = logged(do, Terminal())
    assert re.fullmatch(r"\d\d:\d\d:\d\d quite well\n\d\d:\d\d:\d\d warning: less so\n", text)


@pytest.mark.parametrize(
    ("formatter", "time", "message"),
    [("json", "time", "msg"), ("logstash", "@timestamp", "message")],
)
def test_json_and_logstash_documents(formatter, time, message):
    def do(log):
        log.error("{what} broke", what="it\nall")
        fail_somewhere(log)

    fields = {"service": "registry", "level": "mine", "odd": object()}
    first, second = map(json.loads, logged(do, formatter=formatter, fields=fields).splitlines())
    assert first[message] == "it\nall broke"
    assert first["level"] == "error"
    assert first["service"] == "registry"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first[time])
    assert (formatter == "logstash") == (first.get("@version") == "1")
    assert "so what" in second["err.message"]
    assert "ValueError" in second["err.traceback"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "fatal"]),
        ("info", ["info", "warning", "error", "fatal"]),
        ("warn", ["warning", "error", "fatal"]),
        ("error", ["error", "fatal"]),
    ],
)
def test_events_below_the_level_are_dropped(level, expected):
    def do(log):
        for each in LogLevel.iterconstants():
            log.emit(each, "x")

    lines = logged(do, level=level, formatter="json").splitlines()
    assert [json.loads(line)["level"] for line in lines] == expected


@pytest.mark.parametrize(
    "text",
    [
        "HTTPSite starting on 5000",
        "HTTPSite starting on '/run/registry.sock'",
        "(TCP Port 5000 Closed)",
        "(Port '/run/registry.sock' Closed)",
    ],
)
def test_details_of_twisted_are_of_the_level_debug(text):
    for level, count in {"info": 0, "debug": 1}.items():
        stream = io.StringIO()
        publisher = LegacyLogPublisher(
            publishPublisher=LogPublisher(make_observer(stream, level)),
            observerPublisher=LogPublisher(),
        )
        publisher.msg(text)
        publisher.msg("a plugin says it")
        assert stream.getvalue().count("\n") == 1 + count


def test_an_event_without_a_level_is_info():
    stream = io.StringIO()
    observer = LineObserver(stream)
    verifyObject(ILogObserver, observer)
    observer({"log_time": 0.0, "log_format": "old"})
    assert stream.getvalue() == 'time="1970-01-01T00:00:00.000000Z" level=info msg=old\n'


def test_only_fields_with_a_dot_in_their_name_are_written():
    """The others may be secrets; they are written only as part of the message."""
    line = logged(lambda log: log.info("done", authorization="secret", **{"err.code": "denied"}))
    assert line.endswith("msg=done err.code=denied\n")


HOSTILE = 'a\nb\r\x00\x1b[31m"\\\x7f\x9b1m\u2028\u202e\ud800\ufffd'


@pytest.mark.parametrize("formatter", ["text", "json", "logstash"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_an_event_is_one_line_without_control_characters(formatter, stream):
    def do(log):
        log.error("it broke: {text}", text=HOSTILE, **{"vars.name": HOSTILE, "other.name": HOSTILE})

    line = logged(do, stream(), formatter=formatter, fields={"site": HOSTILE})
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize(
    ("formatter", "names"),
    [
        ("text", {"time", "level", "msg"}),
        ("json", {"time", "level", "msg"}),
        ("logstash", {"@timestamp", "@version", "level", "message"}),
    ],
)
def test_fields_with_the_name_of_a_part_get_a_prefix(formatter, names):
    fields = dict.fromkeys(("time", "level", "msg", "message", "@version", "type"), "mine")
    line = logged(lambda log: log.info("x"), formatter=formatter, fields=fields)
    for name in fields:
        shown = f"fields.{name}" if name in names else name
        assert (f"{shown}=mine" if formatter == "text" else f'"{shown}": "mine"') in line


def test_fields_of_the_process_are_not_in_lines_of_requests():
    stream = io.StringIO()
    log = Logger(observer=LogPublisher(LineObserver(stream, "json", {"a": 1}, {"version": "2"})))
    log.info("start")
    log.info("request", **{"http.request.id": "7"})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["a"], first["version"]) == (1, "2")
    assert second["a"] == 1
    assert "version" not in second


def test_a_terminal_shows_few_fields_of_a_request():
    fields = {
        "http.request.id": "7",
        "http.request.method": "PUT",
        "http.request.uri": "/v2/",
        "http.response.status": 400,
        "vars.name": "a",
        "err.code": "denied",
        "err.message": "no \x1b[1m",
    }
    text = logged(lambda log: log.info("ended", **fields), Terminal(), fields={"service": "x"})
    assert text[9:] == 'ended method=PUT uri=/v2/ status=400 err.message="no \\u001b[1m"\n'


def test_a_traceback_on_a_terminal_has_lines_of_its_own():
    def do(log):
        log.failure("it failed", Failure(ValueError(HOSTILE)))

    lines = logged(do, Terminal()).split("\n")
    assert lines[1].startswith("Traceback")
    assert all(line.isprintable() for line in lines)


def test_a_terminal_has_colours_for_levels():
    text = logged(lambda log: log.error("bad"), Terminal(), colours=True)
    assert text[9:] == "\x1b[31merror: bad\x1b[0m\n"
    assert "\x1b" not in logged(lambda log: log.info("good"), Terminal(), colours=True)
    assert "\x1b" not in logged(lambda log: log.error("bad"), colours=True)


def test_lines_for_the_journal_begin_with_their_priority():
    stream = io.StringIO()
    observer = LineObserver(stream, priorities=True)
    log = Logger("test", observer=observer)
    for level in LogLevel.iterconstants():
        log.emit(level, "x")
    observer({"log_time": 0.0, "log_format": "no level"})
    starts = re.findall(r"^<(\d)>time=\S+ level=(\w+) ", stream.getvalue(), re.MULTILINE)
    assert starts == [
        *(("7", "debug"), ("6", "info"), ("4", "warning"), ("3", "error"), ("2", "fatal")),
        ("6", "info"),
    ]
