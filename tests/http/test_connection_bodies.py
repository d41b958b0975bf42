"""Connections in memory: bodies of requests."""

import pytest
from twisted.web.iweb import UNKNOWN_LENGTH

from tests.http.connection_kit import (
    MemoryConnection,
    ask,
    bodies,
    chunks,
    get,
    is_error_response,
    put,
)
from tests.http.resources import Sink
from twisted_registry.http.interfaces import BodyAborted, Limits


def test_a_plain_resource_sees_the_whole_body(wire):
    wire.send(get(b"/x", b"Content-Length: 6", method=b"PUT") + b"abc")
    assert wire.sent() == b""
    wire.send(b"def")
    assert bodies(wire.sent()) == [b"xabcdef"]
    assert bodies(ask(wire, chunks(b"/x", b"abc", b"def") + get(b"/n"))) == [b"xabcdef", b"n"]


def test_a_collected_body_above_the_limit_is_413(kit):
    wire = MemoryConnection(kit, limits=Limits(content_bytes=5))
    wire.send(get(b"/x", b"Content-Length: 6", b"Expect: 100-continue", method=b"PUT"))
    assert is_error_response(wire.sent(), 413)
    wire = MemoryConnection(kit, limits=Limits(content_bytes=5))
    wire.send(chunks(b"/x", b"abc", b"def"))
    assert is_error_response(wire.sent(), 413)
    assert bodies(
        ask(MemoryConnection(kit, limits=Limits(content_bytes=5)), put(b"/x", b"abcde"))
    ) == [b"xabcde"]


def test_a_streaming_resource_sees_the_head_first(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT"))
    assert len(kit.sinks) == 1
    wire.send(b"abc")
    assert bytes(kit.sinks[0].received) == b"abc"
    wire.send(b"def" + get(b"/n"))
    assert bodies(wire.sent()) == [b"abcdef 6 2", b"n"]


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (get(b"/s/length"), 0),
        (put(b"/s/length", b""), 0),
        (put(b"/s/length", b"abc"), 3),
        (chunks(b"/s/length"), UNKNOWN_LENGTH),
    ],
)
def test_body_length_is_the_content_length_or_unknown(wire, data, length):
    assert repr(length).encode() in ask(wire, data)


def test_an_empty_body_finishes_at_once(wire, kit):
    assert bodies(ask(wire, get(b"/s/take"))) == [b" 0 0"]
    assert bodies(ask(wire, chunks(b"/s/take"))) == [b" 0 0"]
    assert bodies(ask(wire, put(b"/s/take", b"") + get(b"/n"))) == [b" 0 0", b"n"]


def test_a_body_cannot_be_taken_twice(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT"))
    with pytest.raises(RuntimeError):
        kit.waiting[0].body.startProducing(Sink())


def test_an_unread_body_pauses_the_socket_until_it_is_read(wire, kit):
    wire.send(get(b"/s/wait", b"Content-Length: 6", method=b"PUT"))
    assert wire.transport.producerState == "producing"
    wire.send(b"abc")
    assert wire.transport.producerState == "paused"
    sink = Sink()
    taken = kit.waiting[0].body.startProducing(sink)
    assert bytes(sink.received) == b"abc"
    assert wire.transport.producerState == "producing"
    wire.send(b"def")
    assert taken.called
    kit.waiting[0].finish()
    assert wire.sent().startswith(b"HTTP/1.1 200 ")
    assert not wire.transport.disconnecting


def test_a_paused_body_pauses_the_socket(wire, kit):
    kit.on_write = lambda _sink, _piece: kit.waiting[0].body.pauseProducing()
    wire.send(chunks(b"/s/take", b"abc", b"def"))
    sink = kit.sinks[0]
    assert bytes(sink.received) == b"abc"
    assert wire.transport.producerState == "paused"
    kit.on_write = sink.on_write = None
    kit.waiting[0].body.resumeProducing()
    assert bodies(wire.sent()) == [b"abcdef 6 2"]
    assert wire.transport.producerState == "producing"


def test_pausing_a_body_between_reads_pauses_the_socket(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT") + b"a")
    body = kit.waiting[0].body
    body.pauseProducing()
    assert wire.transport.producerState == "paused"
    body.resumeProducing()
    assert wire.transport.producerState == "producing"


def test_a_stopped_body_is_aborted_and_its_rest_discarded(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT") + b"a")
    kit.waiting[0].body.stopProducing()
    assert kit.failures == ["BodyAborted"]
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    wire.send(b"bcdef" + get(b"/n"))
    assert bodies(wire.sent()) == [b"", b"n"]
    assert bytes(kit.sinks[0].received) == b"a"


def test_cancelling_the_deferred_of_a_body_stops_it(wire, kit):
    wire.send(get(b"/s/wait", b"Content-Length: 6", method=b"PUT"))
    taken = kit.waiting[0].body.startProducing(Sink())
    failures = []
    taken.addErrback(failures.append)
    taken.cancel()
    assert failures[0].check(BodyAborted)
    again = MemoryConnection(kit)
    again.send(get(b"/s/wait", b"Content-Length: 6", method=b"PUT"))
    kit.waiting[1].body.stopProducing()
    kit.waiting[1].body.startProducing(Sink()).addErrback(failures.append)
    assert failures[1].check(BodyAborted)


def test_100_continue_is_sent_when_the_body_is_read(wire, kit):
    head = get(b"/s/wait", b"Content-Length: 5", b"Expect: 100-continue", method=b"PUT")
    wire.send(head)
    assert wire.sent() == b""
    kit.waiting[0].body.startProducing(Sink())
    assert wire.sent() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(b"hello")
    kit.waiting[0].finish()
    assert wire.sent().startswith(b"HTTP/1.1 200 ")
    assert ask(wire, get(b"/x", *head.split(b"\r\n")[2:4], method=b"PUT")).endswith(
        b"Continue\r\n\r\n"
    )


def test_100_continue_is_not_sent_after_the_body_has_come(wire):
    assert b"100 Continue" not in ask(wire, put(b"/x", b"abc", b"Expect: 100-continue"))
    assert b"100 Continue" not in ask(wire, put(b"/s/take", b"abc", b"Expect: 100-continue"))
    assert b"100 Continue" not in ask(
        wire, get(b"/x", b"Content-Length: 1", b"Expect: 100-continue", version=b"HTTP/1.0")
    )


def test_100_continue_is_sent_after_the_response_before_it(wire, kit):
    wire.send(
        get(b"/wait")
        + get(b"/s/take", b"Content-Length: 2", b"Expect: 100-continue", method=b"PUT")
    )
    assert wire.sent() == b""
    kit.waiting[0].finish()
    answer = wire.sent()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_the_small_rest_of_an_unread_body_is_discarded(wire):
    answer = ask(wire, get(b"/s/refuse", b"Content-Length: 6", method=b"PUT") + b"abc")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" not in answer
    assert ask(wire, b"def" + get(b"/n")).endswith(b"\r\n\r\nn")


def test_an_unread_body_that_was_received_is_discarded(kit):
    wire = MemoryConnection(kit, limits=Limits(linger_bytes=1))
    answers = ask(wire, chunks(b"/s/refuse", b"abcdef") + get(b"/n"))
    assert answers.startswith(b"HTTP/1.1 401 ")
    assert answers.endswith(b"\r\n\r\nn")


@pytest.mark.parametrize(
    "data",
    [
        get(b"/s/refuse", b"Content-Length: 9999999", method=b"PUT"),
        get(b"/s/refuse", b"Content-Length: 5", b"Expect: 100-continue", method=b"PUT"),
        chunks(b"/s/refuse", b"abc", tail=b""),
    ],
)
def test_an_unread_body_of_unknown_rest_closes_the_connection(wire, data):
    answer = ask(wire, data)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer
    assert b"Connection: close" in answer
    assert wire.transport.disconnecting
    assert ask(wire, get(b"/smuggled")) == b""
