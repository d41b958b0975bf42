"""Connections in memory: malformed requests, and deadlines."""

import pytest
from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from tests.http.connection_kit import (
    HOST,
    LAST,
    MemoryConnection,
    ask,
    bodies,
    chunks,
    get,
    is_error_response,
)
from tests.http.resources import Sink
from twisted_registry.http.interfaces import Limits


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (get(b"/" + b"a" * 9000), 414),
        (get(b"/", b"X: " + b"a" * 20000), 431),
        (get(b"/", *(b"X%d: 1" % number for number in range(150))), 431),
        (get(b"/", b"Content-Length: 3", b"Transfer-Encoding: chunked", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: chunked", b"Content-Length: 3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 3", b"Content-Length: 4", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 3", b"Content-Length: 3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 3, 3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: +3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: -3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 0x3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 3 3", method=b"PUT"), 400),
        (get(b"/", b"Content-Length:", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 99999999999999999999", method=b"PUT"), 400),
        (get(b"/", b"Content-Length: 9999999999999999999", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: xchunked", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: gzip", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: identity", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: gzip, chunked", method=b"PUT"), 501),
        (get(b"/", b"Transfer-Encoding: chunked, chunked", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: chunked, gzip", method=b"PUT"), 400),
        (
            get(b"/", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", method=b"PUT"),
            400,
        ),
        (get(b"/", b"Transfer-Encoding : chunked", method=b"PUT"), 400),
        (get(b"/", b"Transfer-Encoding: chunked", version=b"HTTP/1.0"), 400),
        (get(b"/", b"X: a", b" folded"), 400),
        (get(b"/", b"X: a", b"\tfolded"), 400),
        (get(b"/", b" X: a"), 400),
        (get(b"/", b"X : a"), 400),
        (get(b"/", b"X\t: a"), 400),
        (get(b"/", b": a"), 400),
        (get(b"/", b"X"), 400),
        (get(b"/", b"X: a\0b"), 400),
        (get(b"/", b"X\0: a"), 400),
        (get(b"/", b"X: a\rb"), 400),
        (get(b"/", b"X: a\nY: b"), 400),
        (get(b"/", b"X: \x7f"), 400),
        (get(b"/", b"X\xff: a"), 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
        (b"GET / HTTP/1.1\rHost: x\r\r", 400),
        (get(b"/\0"), 400),
        (get(b"/\xff"), 400),
        (get(b"/#fragment"), 400),
        (get(b"/a b"), 400),
        (get(b"relative"), 400),
        (get(b""), 400),
        (get(b"*"), 400),
        (get(b"ftp://h/"), 400),
        (get(b"http:///a"), 400),
        (get(b"http://user@h/"), 400),
        (get(b"a:1", method=b"CONNECT"), 400),
        (get(b"/", method=b"CONNECT"), 400),
        (get(b"/", method=b"FOO"), 400),
        (get(b"/", method=b"G ET"), 400),
        (get(b"/", method=b"get"), 400),
        (get(b"/", version=b"HTTP/2.0"), 505),
        (get(b"/", version=b"HTTP/1.2"), 505),
        (get(b"/", version=b"HTTP/0.9"), 505),
        (get(b"/", version=b"HTTP/11"), 400),
        (get(b"/", version=b"http/1.1"), 400),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (chunks(b"/", tail=b"zz\r\n"), 400),
        (chunks(b"/", tail=b"-1\r\n"), 400),
        (chunks(b"/", tail=b"0x1\r\na\r\n"), 400),
        (chunks(b"/", tail=b" 1\r\na\r\n"), 400),
        (chunks(b"/", tail=b"1 \r\na\r\n"), 400),
        (chunks(b"/", tail=b"1\na\r\n"), 400),
        (chunks(b"/", tail=b"1\r\nab\r\n"), 400),
        (chunks(b"/", tail=b"1\r\na\n"), 400),
        (chunks(b"/", tail=b"1;a=\n\r\nb\r\n"), 400),
        (chunks(b"/", tail=b"ffffffffffffffffff\r\n"), 400),
        (chunks(b"/", tail=b"0\r\nX: a\n\r\n\r\n"), 400),
        (chunks(b"/", tail=b"0\r\nX : a\r\n\r\n"), 400),
        (chunks(b"/", tail=b"0\r\nX: " + b"a" * 20000 + b"\r\n\r\n"), 431),
        (chunks(b"/", tail=b"0\r\n" + b"X: a\r\n" * 200 + b"\r\n"), 431),
    ],
)
@pytest.mark.parametrize("cut", [None, 1])
def test_malformed_input_is_refused_once(wire, data, status, cut):
    wire.send(data, cut=cut and (lambda whole: [bytes([b]) for b in whole]))
    answer = wire.sent()
    assert is_error_response(answer, status), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert wire.transport.disconnecting
    wire.send(get(b"/smuggled"))
    assert wire.sent() == b""


def test_garbage_is_refused_after_the_responses_before_it(wire, kit):
    wire.send(get(b"/ok") + get(b"/wait") + b"\x01\x02")
    assert bodies(wire.sent()) == [b"ok"]
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    answer = wire.sent()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert is_error_response(answer[answer.index(b"HTTP/1.1 400") :], 400)
    assert wire.transport.disconnecting


def test_broken_framing_fails_the_request_of_the_body(wire, kit):
    wire.send(chunks(b"/s/take", b"abc", tail=b"zz\r\n"))
    assert is_error_response(wire.sent(), 400)
    assert kit.failures == ["BodyAborted"]
    assert kit.waiting[0].code == 400
    wire = MemoryConnection(kit)
    wire.send(chunks(b"/s/wait", b"abc", tail=b""))
    kit.waiting[-1].body.startProducing(Sink())
    kit.waiting[-1].write(b"begun")
    wire.sent()
    wire.send(b"zz\r\n")
    assert wire.sent() == b""
    assert wire.transport.aborting
    assert kit.events == ["BodyAborted"]


def test_broken_framing_is_refused_after_the_body_before_it(wire, kit):
    wire.send(chunks(b"/s/wait", b"abc", tail=b"zz\r\n"))
    assert wire.sent() == b""
    sink = Sink()
    kit.waiting[0].body.startProducing(sink)
    assert bytes(sink.received) == b"abc"
    assert is_error_response(wire.sent(), 400)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /", b"a" * 1000),
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1000),
        (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 100),
        (b"GET / HTTP/1.1\r\nX", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nX:", b" " * 1000),
        (chunks(b"/s/take", tail=b"1;x="), b"a" * 1000),
        (chunks(b"/s/take", tail=b""), b"0" * 1000),
        (chunks(b"/s/take", tail=b""), b"1;" + b"a" * 1000 + b"\r\nx\r\n"),
        (chunks(b"/s/take", tail=b"0\r\n"), b"X: a\r\n" * 100),
        (chunks(b"/s/take", tail=b"0\r\nX: "), b"a" * 1000),
    ],
)
def test_endless_heads_and_chunk_framing_are_refused(wire, start, more):
    wire.send(start)
    for _ in range(40):
        wire.send(more)
        if wire.transport.disconnecting:
            break
    assert wire.sent().startswith(b"HTTP/1.1 4")
    assert wire.transport.disconnecting


def test_many_small_chunks_are_accepted(wire, kit):
    pieces = [b"x" for _ in range(30000)]
    answer = ask(wire, chunks(b"/s/take", *pieces))
    assert bodies(answer) == [b"xxxxxxxx 30000 30000"]


def test_an_idle_connection_is_closed_after_a_time(kit):
    wire = MemoryConnection(kit, limits=Limits(idle_seconds=60))
    wire.clock.advance(59.5)
    assert not wire.transport.disconnecting
    wire.send(get(b"/a"))
    wire.clock.pump([1] * 59)
    assert not wire.transport.disconnecting
    wire.clock.pump([1] * 2)
    assert wire.transport.disconnecting
    assert wire.sent().count(b"HTTP/1.1") == 1


def test_a_slow_head_is_408(kit):
    wire = MemoryConnection(kit, limits=Limits(header_seconds=20))
    for byte in b"GET / HTTP/1.1\r\n"[:10]:
        wire.send(bytes([byte]))
        wire.clock.advance(1.9)
    assert wire.sent() == b""
    wire.clock.pump([1] * 3)
    assert is_error_response(wire.sent(), 408)
    assert wire.transport.disconnecting


def test_a_stalled_body_is_408(kit):
    wire = MemoryConnection(kit, limits=Limits(body_seconds=10, body_bytes_per_second=0))
    wire.send(get(b"/s/take", b"Content-Length: 50", method=b"PUT"))
    for _ in range(20):
        wire.clock.advance(9)
        wire.send(b"a")
    assert wire.sent() == b""
    wire.clock.pump([1] * 12)
    assert is_error_response(wire.sent(), 408)
    assert kit.failures == ["BodyAborted"]


def test_empty_lines_between_requests_are_not_progress(kit):
    wire = MemoryConnection(kit, limits=Limits(idle_seconds=10))
    for _ in range(6):
        wire.send(b"\r\n")
        wire.clock.advance(2)
    assert wire.transport.disconnecting


def test_chunk_framing_is_not_progress(kit):
    wire = MemoryConnection(kit, limits=Limits(body_seconds=10))
    wire.send(chunks(b"/s/take", b"abc", tail=b"1;"))
    for _ in range(6):
        wire.send(b"x")
        wire.clock.advance(2)
    assert is_error_response(wire.sent(), 408)


def test_the_application_has_no_deadline(kit):
    wire = MemoryConnection(kit)
    wire.send(get(b"/s/wait", b"Content-Length: 50", method=b"PUT"))
    wire.clock.pump([1] * 1000)
    assert not wire.transport.disconnecting
    body = kit.waiting[0].body
    body.startProducing(Sink())
    body.pauseProducing()
    wire.clock.pump([1] * 1000)
    assert not wire.transport.disconnecting


def test_a_client_that_does_not_read_is_reset(kit):
    wire = MemoryConnection(kit, limits=Limits(body_seconds=10))
    wire.send(get(b"/wait"))
    wire.transport.producer.pauseProducing()
    wire.clock.pump([1] * 9)
    assert not wire.transport.aborting
    wire.clock.pump([1] * 3)
    assert wire.transport.aborting


def test_a_client_that_does_not_close_is_reset(kit):
    wire = MemoryConnection(kit, limits=Limits(body_seconds=10))
    wire.send(LAST)
    assert wire.transport.disconnecting
    assert not wire.transport.aborting
    wire.clock.pump([1] * 12)
    assert wire.transport.aborting


def test_no_delayed_call_remains_without_connections(wire):
    assert wire.clock.getDelayedCalls()
    wire.lose(Failure(ConnectionDone()))
    assert not wire.clock.getDelayedCalls()


def test_what_is_no_request_is_logged_with_the_id_of_its_response(kit, log_events):
    connection = MemoryConnection(kit)
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    sent = connection.sent().decode()
    (event,) = [event for event in log_events if "http.request.id" in event]
    assert f"X-Request-Id: {event['http.request.id']}\r\n" in sent
    assert event["log_level"] is LogLevel.debug
    assert event["status"] == 400
