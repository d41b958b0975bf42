"""The channel on a Clock and in memory: order, framing, limits, times, ends."""

import gc
import gzip
import json
import warnings

import pytest
from channel_kit import HOST, LAST, Kit, Memory, Sink, chunks, get, put
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IRequest
from twisted.web.server import Request
from zope.interface.verify import verifyObject

from twisted_registry.api.interfaces import BodyAborted, IRequestBody, IStreamedRequest
from twisted_registry.api.limits import Limits


@pytest.fixture
def kit():
    return Kit()


@pytest.fixture
def wire(kit):
    return Memory(kit)


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def ask(wire, data):
    wire.send(data)
    return wire.sent()


def bodies(answers):
    """The bodies of answers that all have a Content-Length."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        found.append(rest[:length])
        answers = rest[length:]
    return found


def is_refusal(answer, status):
    """A status, the registry's JSON, and the end of the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["errors"][0]
    return (
        head.startswith(b"HTTP/1.1 %d " % status)
        and b"Connection: close" in head
        and error["code"] == ("UNSUPPORTED" if status in {501, 505} else "UNKNOWN")
        and isinstance(error["message"], str)
    )


def unchunked(body):
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        content += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return content


# Answers


def test_a_request_is_answered_and_another_may_follow(wire):
    answer = ask(wire, get(b"/hello"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in answer
    assert b"server:" not in answer.lower()
    assert not wire.transport.disconnecting
    assert ask(wire, get(b"/again")).endswith(b"\r\n\r\nagain")


def test_bytes_may_come_one_at_a_time(wire):
    wire.send(put(b"/x", b"abc") + get(b"/y"), cut=lambda data: [bytes([b]) for b in data])
    assert bodies(wire.sent()) == [b"xabc", b"y"]


def test_pipelined_requests_are_answered_in_order(wire, kit):
    wire.send(get(b"/wait") + get(b"/b") + put(b"/c", b"def") + get(b"/g"))
    assert wire.sent() == b""
    assert wire.transport.producerState == "paused"
    kit.waiting[0].setHeader(b"Content-Length", b"4")
    kit.waiting[0].write(b"late")
    kit.waiting[0].finish()
    assert bodies(wire.sent()) == [b"late", b"b", b"cdef", b"g"]
    assert wire.transport.producerState == "producing"


def test_many_pipelined_requests_do_not_recurse(wire):
    answers = bodies(ask(wire, b"".join(get(b"/%d" % number) for number in range(3000))))
    assert answers == [b"%d" % number for number in range(3000)]


def test_http_1_0_closes(wire):
    answer = ask(wire, get(b"/a", version=b"HTTP/1.0"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\na")
    assert wire.transport.disconnecting


def test_http_1_0_gets_no_chunks(wire):
    answer = ask(wire, get(b"/pieces", version=b"HTTP/1.0"))
    assert answer.endswith(b"\r\n\r\nabcd")
    assert b"Transfer-Encoding" not in answer


def test_a_client_may_ask_to_close(wire):
    answer = ask(wire, LAST + get(b"/never"))
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nlast")
    assert wire.transport.disconnecting


def test_a_resource_may_ask_to_close(wire):
    answer = ask(wire, get(b"/closing"))
    assert answer.count(b"Connection: close\r\n") == 1
    assert wire.transport.disconnecting


def test_an_answer_of_unknown_length_is_chunked(wire):
    answer = ask(wire, get(b"/pieces"))
    assert answer.endswith(b"\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
    assert b"Transfer-Encoding: chunked\r\n" in answer


def test_head_has_the_length_and_no_body(wire, kit):
    answer = ask(wire, get(b"/abc", method=b"HEAD"))
    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    wire.send(get(b"/wait", method=b"HEAD"))
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    assert b"Content-Length: 0\r\n" in wire.sent()
    assert ask(wire, get(b"/n")).endswith(b"\r\n\r\nn")


def test_204_and_304_have_no_body_and_no_length(wire):
    answer = ask(wire, get(b"/nothing"))
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"Content-Length" not in answer
    answer = ask(wire, get(b"/etag", b'If-None-Match: "e"'))
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert b'ETag: "e"' in answer
    assert b"Content-Length" not in answer
    answer = ask(wire, get(b"/modified", b"If-Modified-Since: Thu, 01 Jan 1970 00:16:40 GMT"))
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert b"Last-Modified: Thu, 01 Jan 1970 00:16:40 GMT" in answer


def test_head_and_body_leave_in_one_write(wire, monkeypatch):
    writes = []
    monkeypatch.setattr(wire.transport, "write", writes.append)
    wire.send(get(b"/hello"))
    assert len(writes) == 1


def test_what_resources_use_of_a_request(wire, kit):
    answer = ask(
        wire,
        get(b"/inspect/%41/b?q=1&q=2&r=%41", b"X-One: 1", b"x-one:  2 ", b"Cookie: c=d"),
    )
    assert bodies(answer) == [
        repr(
            (
                b"GET",
                {b"q": [b"1", b"2"], b"r": [b"A"]},
                "2",
                [b"1", b"2"],
                b"d",
                b"x",
                [b"inspect"],
                [b"A", b"b"],
                False,
            )
        ).encode()
    ]
    assert b"Set-Cookie: k=v\r\n" in ask(wire, get(b"/cookie"))
    assert b"Location: /elsewhere\r\n" in ask(wire, get(b"/redirect"))
    wire.send(get(b"/wait"))
    request = kit.waiting[0]
    verifyObject(IStreamedRequest, request)
    verifyObject(IConsumer, request)
    verifyObject(IRequestBody, request.body)
    assert IRequest.providedBy(request)
    assert request.getClientAddress() == wire.transport.getPeer()
    assert request.getHost() == wire.transport.getHost()
    assert request.getSession() is request.getSession()
    request.getSession().expire()
    request.finish()
    assert request.channel is None


def test_a_posted_form_becomes_arguments(wire):
    wire.send(
        put(b"/inspect", b"a=b", b"Content-Type: application/x-www-form-urlencoded", method=b"POST")
    )
    assert b"{b'a': [b'b']}" in wire.sent()


def test_a_form_that_can_not_be_read_is_a_bad_request(wire):
    wire.send(put(b"/inspect", b"--", b"Content-Type: multipart/form-data", method=b"POST"))
    assert is_refusal(wire.sent(), 400)


def test_the_asterisk_is_answered_without_a_resource(wire):
    assert ask(wire, get(b"*", method=b"OPTIONS")).startswith(b"HTTP/1.1 204 ")
    assert ask(wire, get(b"/n")).endswith(b"\r\n\r\nn")


def test_an_absolute_target_replaces_the_host(wire):
    assert ask(wire, get(b"http://h/abs")).endswith(b"\r\n\r\nabs")
    assert b"b'h:1'" not in ask(wire, get(b"http://h:1/inspect"))
    assert b"b'h'" in ask(wire, get(b"http://h:1/inspect"))
    assert b"{b'q': [b'1']}" in ask(wire, get(b"http://h/inspect?q=1"))
    assert ask(wire, get(b"https://h?q")).endswith(b"\r\n\r\n")


def test_an_upgrade_is_ignored(wire):
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA")
    assert bodies(ask(wire, get(b"/u", *upgrade) + get(b"/v"))) == [b"u", b"v"]
    # with a body, which is a body and not the next request
    smuggled = get(b"/admin")
    assert bodies(ask(wire, put(b"/u", smuggled, *upgrade) + get(b"/v"))) == [
        b"u" + smuggled,
        b"v",
    ]
    data = chunks(b"/u", b"abc").replace(b"Host", b"\r\n".join(upgrade) + b"\r\nHost")
    assert bodies(ask(wire, data + get(b"/v"))) == [b"uabc", b"v"]


def test_nothing_can_be_injected_into_a_head(wire):
    answer = ask(wire, get(b"/inject"))
    head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert not [line for line in head if line.startswith((b"X-B", b"X-C", b"X-D"))]
    assert answer.endswith(b"\r\n\r\ninjected")


# Failures


def test_a_resource_that_raises_is_a_clean_500(wire, logged):
    answer = ask(wire, get(b"/boom"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert json.loads(bodies(answer)[0])["errors"][0]["code"] == "UNKNOWN"
    assert b"secret" not in answer.lower()
    assert [event for event in logged if "log_failure" in event]
    assert ask(wire, get(b"/n")).endswith(b"\r\n\r\nn")


@pytest.mark.parametrize("path", [b"/nowhere", b"/producing"])
def test_whatever_raises_before_the_answer_is_a_clean_500(wire, path):
    answer = ask(wire, get(path) + get(b"/n"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert bodies(answer)[1] == b"n"


def test_a_resource_that_raises_for_a_client_that_left(wire, kit, logged):
    kit.wire = wire
    assert ask(wire, get(b"/gone")) == b""
    assert [event for event in logged if "log_failure" in event]


def test_a_length_that_is_none_breaks_the_connection(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].setHeader(b"Content-Length", b"many")
    with pytest.raises(ValueError):
        kit.waiting[0].write(b"x")
    kit.waiting[0].processingFailed(Failure(ValueError()))
    assert wire.transport.aborting
    assert wire.sent() == b""


def test_an_answer_can_be_encoded(wire):
    answer = ask(wire, get(b"/zip", b"Accept-Encoding: gzip", b"Connection: close"))
    assert b"Content-Encoding: gzip\r\n" in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body.endswith(b"0\r\n\r\n")
    assert gzip.decompress(unchunked(body)) == b"zip"


def test_a_resource_that_raises_late_breaks_the_connection(wire, logged):
    answer = ask(wire, get(b"/late_boom"))
    assert b"secret" not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert wire.transport.aborting
    assert [event for event in logged if "log_failure" in event]


@pytest.mark.parametrize("path", [b"/short", b"/long"])
def test_an_answer_unlike_its_length_breaks_the_connection(wire, path):
    answer = ask(wire, get(path) + get(b"/n"))
    assert wire.transport.aborting
    assert answer.count(b"HTTP/1.1") <= 1
    assert b"too long" not in answer


def test_a_body_that_is_taken_badly_is_a_500(wire, kit, logged):
    def explode(_sink, _piece):
        raise ValueError("secret")

    kit.on_write = explode
    kit.failed = lambda reason: reason
    answer = ask(wire, put(b"/s/take", b"abc"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert [event for event in logged if "log_failure" in event]


def test_whoever_took_the_body_hears_what_its_consumer_raised(wire, kit):
    def explode(_sink, _piece):
        raise ValueError("secret")

    kit.on_write = explode
    assert ask(wire, put(b"/s/take", b"abc")) == b""
    assert kit.failures == ["ValueError"]
    kit.waiting[0].setResponseCode(507)
    kit.waiting[0].finish()
    assert wire.sent().startswith(b"HTTP/1.1 507 ")


# Bodies


def test_an_ordinary_resource_sees_the_whole_body(wire):
    wire.send(get(b"/x", b"Content-Length: 6", method=b"PUT") + b"abc")
    assert wire.sent() == b""
    wire.send(b"def")
    assert bodies(wire.sent()) == [b"xabcdef"]
    assert bodies(ask(wire, chunks(b"/x", b"abc", b"def") + get(b"/n"))) == [b"xabcdef", b"n"]


def test_a_collected_body_has_a_limit(kit):
    wire = Memory(kit, limits=Limits(content_bytes=5))
    wire.send(get(b"/x", b"Content-Length: 6", b"Expect: 100-continue", method=b"PUT"))
    assert is_refusal(wire.sent(), 413)
    wire = Memory(kit, limits=Limits(content_bytes=5))
    wire.send(chunks(b"/x", b"abc", b"def"))
    assert is_refusal(wire.sent(), 413)
    assert bodies(ask(Memory(kit, limits=Limits(content_bytes=5)), put(b"/x", b"abcde"))) == [
        b"xabcde"
    ]


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
def test_a_body_knows_its_length(wire, data, length):
    assert repr(length).encode() in ask(wire, data)


def test_an_empty_body_is_over_at_once(wire, kit):
    assert bodies(ask(wire, get(b"/s/take"))) == [b" 0 0"]
    assert bodies(ask(wire, chunks(b"/s/take"))) == [b" 0 0"]
    assert bodies(ask(wire, put(b"/s/take", b"") + get(b"/n"))) == [b" 0 0", b"n"]


def test_a_body_can_not_be_taken_twice(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT"))
    with pytest.raises(RuntimeError):
        kit.waiting[0].body.startProducing(Sink())


def test_a_body_waits_until_it_is_wanted(wire, kit):
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


def test_a_paused_body_stops_the_socket(wire, kit):
    kit.on_write = lambda _sink, _piece: kit.waiting[0].body.pauseProducing()
    wire.send(chunks(b"/s/take", b"abc", b"def"))
    sink = kit.sinks[0]
    assert bytes(sink.received) == b"abc"
    assert wire.transport.producerState == "paused"
    kit.on_write = sink.on_write = None
    kit.waiting[0].body.resumeProducing()
    assert bodies(wire.sent()) == [b"abcdef 6 2"]
    assert wire.transport.producerState == "producing"


def test_pausing_between_two_reads_stops_the_socket(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT") + b"a")
    body = kit.waiting[0].body
    body.pauseProducing()
    assert wire.transport.producerState == "paused"
    body.resumeProducing()
    assert wire.transport.producerState == "producing"


def test_a_body_that_was_stopped_is_aborted(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT") + b"a")
    kit.waiting[0].body.stopProducing()
    assert kit.failures == ["BodyAborted"]
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    wire.send(b"bcdef" + get(b"/n"))
    assert bodies(wire.sent()) == [b"", b"n"]
    assert bytes(kit.sinks[0].received) == b"a"


def test_cancelling_the_body_is_stopping_it(wire, kit):
    wire.send(get(b"/s/wait", b"Content-Length: 6", method=b"PUT"))
    taken = kit.waiting[0].body.startProducing(Sink())
    failures = []
    taken.addErrback(failures.append)
    taken.cancel()
    assert failures[0].check(BodyAborted)
    again = Memory(kit)
    again.send(get(b"/s/wait", b"Content-Length: 6", method=b"PUT"))
    kit.waiting[1].body.stopProducing()
    kit.waiting[1].body.startProducing(Sink()).addErrback(failures.append)
    assert failures[1].check(BodyAborted)


def test_100_continue_goes_out_when_the_body_is_wanted(wire, kit):
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


def test_100_continue_is_not_sent_to_who_does_not_wait(wire):
    assert b"100 Continue" not in ask(wire, put(b"/x", b"abc", b"Expect: 100-continue"))
    assert b"100 Continue" not in ask(wire, put(b"/s/take", b"abc", b"Expect: 100-continue"))
    assert b"100 Continue" not in ask(
        wire, get(b"/x", b"Content-Length: 1", b"Expect: 100-continue", version=b"HTTP/1.0")
    )


def test_100_continue_waits_for_its_turn(wire, kit):
    wire.send(
        get(b"/wait")
        + get(b"/s/take", b"Content-Length: 2", b"Expect: 100-continue", method=b"PUT")
    )
    assert wire.sent() == b""
    kit.waiting[0].finish()
    answer = wire.sent()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_a_small_rest_of_a_body_nobody_took_is_swallowed(wire):
    answer = ask(wire, get(b"/s/refuse", b"Content-Length: 6", method=b"PUT") + b"abc")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" not in answer
    assert ask(wire, b"def" + get(b"/n")).endswith(b"\r\n\r\nn")


def test_a_body_nobody_took_that_is_here_already_is_swallowed(kit):
    wire = Memory(kit, limits=Limits(linger_bytes=1))
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
def test_a_body_nobody_took_whose_end_is_not_in_sight_closes(wire, data):
    answer = ask(wire, data)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer
    assert b"Connection: close" in answer
    assert wire.transport.disconnecting
    assert ask(wire, get(b"/smuggled")) == b""


# Refusals


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
def test_what_is_refused(wire, data, status, cut):
    wire.send(data, cut=cut and (lambda whole: [bytes([b]) for b in whole]))
    answer = wire.sent()
    assert is_refusal(answer, status), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert wire.transport.disconnecting
    wire.send(get(b"/smuggled"))
    assert wire.sent() == b""


def test_garbage_after_good_requests_is_refused_in_its_turn(wire, kit):
    wire.send(get(b"/ok") + get(b"/wait") + b"\x01\x02")
    assert bodies(wire.sent()) == [b"ok"]
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    answer = wire.sent()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert is_refusal(answer[answer.index(b"HTTP/1.1 400") :], 400)
    assert wire.transport.disconnecting


def test_broken_framing_ends_the_request_whose_body_it_is(wire, kit):
    wire.send(chunks(b"/s/take", b"abc", tail=b"zz\r\n"))
    assert is_refusal(wire.sent(), 400)
    assert kit.failures == ["BodyAborted"]
    assert kit.waiting[0].code == 400
    wire = Memory(kit)
    wire.send(chunks(b"/s/wait", b"abc", tail=b""))
    kit.waiting[-1].body.startProducing(Sink())
    kit.waiting[-1].write(b"begun")
    wire.sent()
    wire.send(b"zz\r\n")
    assert wire.sent() == b""
    assert wire.transport.aborting
    assert kit.events == ["BodyAborted"]


def test_broken_framing_waits_for_the_body_before_it(wire, kit):
    wire.send(chunks(b"/s/wait", b"abc", tail=b"zz\r\n"))
    assert wire.sent() == b""
    sink = Sink()
    kit.waiting[0].body.startProducing(sink)
    assert bytes(sink.received) == b"abc"
    assert is_refusal(wire.sent(), 400)


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
def test_nothing_endless_is_read_for_ever(wire, start, more):
    wire.send(start)
    for _ in range(40):
        wire.send(more)
        if wire.transport.disconnecting:
            break
    assert wire.sent().startswith(b"HTTP/1.1 4")
    assert wire.transport.disconnecting


def test_small_chunks_are_not_mistaken_for_frame(wire, kit):
    pieces = [b"x" for _ in range(30000)]
    answer = ask(wire, chunks(b"/s/take", *pieces))
    assert bodies(answer) == [b"xxxxxxxx 30000 30000"]


# Times


def test_an_idle_connection_is_closed(kit):
    wire = Memory(kit, limits=Limits(idle_seconds=60))
    wire.clock.advance(59.5)
    assert not wire.transport.disconnecting
    wire.send(get(b"/a"))
    wire.clock.pump([1] * 59)
    assert not wire.transport.disconnecting
    wire.clock.pump([1] * 2)
    assert wire.transport.disconnecting
    assert wire.sent().count(b"HTTP/1.1") == 1


def test_a_slow_head_is_408(kit):
    wire = Memory(kit, limits=Limits(header_seconds=20))
    for byte in b"GET / HTTP/1.1\r\n"[:10]:
        wire.send(bytes([byte]))
        wire.clock.advance(1.9)
    assert wire.sent() == b""
    wire.clock.pump([1] * 3)
    assert is_refusal(wire.sent(), 408)
    assert wire.transport.disconnecting


def test_a_stalled_body_is_408(kit):
    wire = Memory(kit, limits=Limits(body_seconds=10))
    wire.send(get(b"/s/take", b"Content-Length: 50", method=b"PUT"))
    for _ in range(20):
        wire.clock.advance(9)
        wire.send(b"a")
    assert wire.sent() == b""
    wire.clock.pump([1] * 12)
    assert is_refusal(wire.sent(), 408)
    assert kit.failures == ["BodyAborted"]


def test_empty_lines_between_requests_are_not_progress(kit):
    wire = Memory(kit, limits=Limits(idle_seconds=10))
    for _ in range(6):
        wire.send(b"\r\n")
        wire.clock.advance(2)
    assert wire.transport.disconnecting


def test_the_frame_of_chunks_is_not_progress(kit):
    wire = Memory(kit, limits=Limits(body_seconds=10))
    wire.send(chunks(b"/s/take", b"abc", tail=b"1;"))
    for _ in range(6):
        wire.send(b"x")
        wire.clock.advance(2)
    assert is_refusal(wire.sent(), 408)


def test_the_application_may_take_its_time(kit):
    wire = Memory(kit)
    wire.send(get(b"/s/wait", b"Content-Length: 50", method=b"PUT"))
    wire.clock.pump([1] * 1000)
    assert not wire.transport.disconnecting
    body = kit.waiting[0].body
    body.startProducing(Sink())
    body.pauseProducing()
    wire.clock.pump([1] * 1000)
    assert not wire.transport.disconnecting


def test_a_client_that_takes_nothing_is_reset(kit):
    wire = Memory(kit, limits=Limits(body_seconds=10))
    wire.send(get(b"/wait"))
    wire.transport.producer.pauseProducing()
    wire.clock.pump([1] * 9)
    assert not wire.transport.aborting
    wire.clock.pump([1] * 3)
    assert wire.transport.aborting


def test_a_peer_that_does_not_close_is_reset(kit):
    wire = Memory(kit, limits=Limits(body_seconds=10))
    wire.send(LAST)
    assert wire.transport.disconnecting
    assert not wire.transport.aborting
    wire.clock.pump([1] * 12)
    assert wire.transport.aborting


def test_no_clock_runs_without_connections(wire):
    assert wire.clock.getDelayedCalls()
    wire.lose(Failure(ConnectionDone()))
    assert not wire.clock.getDelayedCalls()


# Leaving


def test_a_client_that_leaves_is_noticed_by_everybody(wire, kit):
    wire.send(get(b"/s/wait", b"Content-Length: 6", method=b"PUT"))
    request = kit.waiting[0]
    failures = []
    request.body.startProducing(Sink()).addErrback(failures.append)
    producer = Recorder()
    request.registerProducer(producer, True)
    wire.lose(Failure(ConnectionAborted()))
    assert failures[0].check(BodyAborted)
    assert kit.events == ["ConnectionAborted"]
    assert producer.calls == ["stop"]
    assert request.code == 499
    # and what it does afterwards does no harm
    request.write(b"x")
    request.unregisterProducer()
    request.registerProducer(producer, True)
    assert producer.calls == ["stop", "stop"]
    sent = []
    request.sendFile(0, 0, 1).addErrback(sent.append)
    request.sendWholeFile(200, b"", 0, 0, 1).addErrback(sent.append)
    assert len(sent) == 2
    request.sendWhole(200, b"", b"nobody is there")
    with pytest.raises(RuntimeError):
        request.finish()


@pytest.mark.parametrize(
    ("method", "query", "head", "body"),
    [
        (b"GET", b"", b"Content-Length: 5\r\n", b"whole"),
        (b"HEAD", b"", b"Content-Length: 5\r\n", b""),
        (b"HEAD", b"?length=9", b"Content-Length: 9\r\n", b""),
        (b"GET", b"?status=304", b"", b""),
        (b"GET", b"?status=204", b"", b""),
        (b"GET", b"?status=404", b"Content-Length: 5\r\n", b"whole"),
    ],
)
def test_a_whole_answer_with_fields_that_are_ready(wire, method, query, head, body):
    wire.send(get(b"/whole" + query, method=method) + LAST)
    first, _, rest = wire.sent().partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %b " % (query[8:] if b"status" in query else b"200"))
    assert lines[1].startswith(b"Date: ")
    assert lines[2] == b"X-Ready: 1"
    assert b"".join(line + b"\r\n" for line in lines[3:]) == head
    assert rest.startswith(body + b"HTTP/1.1 200 OK")


def test_a_whole_answer_that_is_the_last_says_so(wire):
    wire.send(get(b"/whole", b"Connection: close"))
    assert b"Connection: close\r\n\r\nwhole" in wire.sent()


def test_a_finished_request_hears_so(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].finish()
    assert kit.events == ["finished"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kit.waiting[0].finish()
    with pytest.raises(RuntimeError):
        kit.waiting[0].write(b"x")


def test_refusing_nothing_does_nothing(wire):
    wire.channel.refuse_request(400)
    assert wire.sent() == b""
    assert not wire.transport.disconnecting


def test_a_tls_handshake_that_fails_leaves_nothing(wire):
    channel = wire.site.buildProtocol(None)
    channel.connectionLost(Failure(ConnectionDone()))
    assert len(wire.site._channels) == 1


def test_what_follows_the_last_request_is_not_read_for_ever(kit):
    wire = Memory(kit, limits=Limits(linger_bytes=100))
    wire.send(get(b"/wait", b"Connection: close"))
    wire.send(b"x" * 100)
    assert wire.transport.producerState == "producing"
    wire.send(b"x")
    assert wire.transport.producerState == "paused"
    kit.waiting[0].finish()
    assert wire.transport.disconnecting


def test_a_file_after_the_connection_was_lost(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].setHeader(b"Content-Length", b"3")
    kit.waiting[0].write(b"abc")
    wire.channel.abort()
    kit.waiting[0].write(b"more")
    assert wire.sent().endswith(b"abc")


def test_losing_a_request_on_purpose(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].setHeader(b"Content-Length", b"5")
    kit.waiting[0].write(b"abc")
    kit.waiting[0].loseConnection()
    assert wire.transport.disconnecting
    assert not wire.transport.aborting


def test_an_answer_that_only_the_end_delimits_is_broken_visibly(wire, kit):
    wire.send(get(b"/wait", version=b"HTTP/1.0"))
    kit.waiting[0].write(b"abc")
    kit.waiting[0].loseConnection()
    assert wire.transport.aborting


def test_a_half_closed_client_gets_its_answers(wire, kit):
    verifyObject(IHalfCloseableProtocol, wire.channel)
    wire.send(get(b"/wait") + get(b"/b"))
    wire.channel.readConnectionLost()
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    assert bodies(wire.sent()) == [b"", b"b"]
    assert wire.transport.disconnecting


def test_a_half_closed_client_is_not_waited_for_for_ever(kit):
    wire = Memory(kit, limits=Limits(half_closed_seconds=5))
    wire.send(get(b"/wait"))
    wire.channel.readConnectionLost()
    wire.clock.pump([1] * 4)
    assert not wire.transport.aborting
    wire.clock.pump([1] * 3)
    assert wire.transport.aborting


def test_a_client_that_ends_in_the_middle_has_left(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT") + b"abc")
    wire.channel.readConnectionLost()
    assert wire.transport.aborting
    wire = Memory(kit)
    wire.send(b"GET / HT")
    wire.channel.readConnectionLost()
    assert wire.transport.disconnecting
    wire = Memory(kit)
    wire.channel.readConnectionLost()
    assert wire.transport.disconnecting
    wire = Memory(kit)
    wire.send(get(b"/wait") + get(b"/s/take", b"Content-Length: 6", method=b"PUT"))
    wire.channel.readConnectionLost()
    kit.waiting[-1].finish()
    assert wire.transport.disconnecting


# Producers


class Recorder:
    def __init__(self, request=None, pieces=0):
        self.request = request
        self.pieces = pieces
        self.calls = []
        self.resumed = lambda calls: None

    def resumeProducing(self):
        self.calls.append("resume")
        self.resumed(self.calls)
        if self.pieces:
            self.pieces -= 1
            self.request.write(b"x")
            if not self.pieces:
                self.request.unregisterProducer()
                self.request.finish()

    def pauseProducing(self):
        self.calls.append("pause")

    def stopProducing(self):
        self.calls.append("stop")


def test_a_push_producer_is_paused_and_resumed(wire, kit):
    wire.send(get(b"/wait"))
    producer = Recorder()
    kit.waiting[0].registerProducer(producer, True)
    assert producer.calls == []
    wire.transport.producer.pauseProducing()
    wire.transport.producer.resumeProducing()
    assert producer.calls == ["pause", "resume"]
    kit.waiting[0].unregisterProducer()
    wire.transport.producer.pauseProducing()
    assert producer.calls == ["pause", "resume"]
    kit.waiting[0].registerProducer(producer, True)
    assert producer.calls == ["pause", "resume", "pause"]


def test_a_pull_producer_is_asked_until_it_has_no_more(wire, kit):
    wire.send(get(b"/wait", version=b"HTTP/1.0"))
    producer = Recorder(kit.waiting[0], pieces=5)
    producer.resumed = lambda calls: len(calls) == 2 and wire.transport.producer.pauseProducing()
    kit.waiting[0].registerProducer(producer, False)
    wire.clock.pump([0] * 5)
    assert producer.calls == ["resume"] * 2
    wire.transport.producer.resumeProducing()
    wire.clock.pump([0] * 5)
    assert producer.calls == ["resume"] * 5
    assert wire.sent().endswith(b"\r\n\r\nxxxxx")
    assert kit.events == ["finished"]


def test_a_pull_producer_is_stopped_with_the_connection(wire, kit):
    wire.send(get(b"/wait"))
    producer = Recorder(kit.waiting[0], pieces=5)
    kit.waiting[0].registerProducer(producer, False)
    wire.lose(Failure(ConnectionDone()))
    assert producer.calls == ["stop"]
    assert not wire.clock.getDelayedCalls()


def test_the_next_request_waits_for_the_answer_before_it_to_leave(wire, kit):
    wire.send(get(b"/wait") + get(b"/b"))
    wire.transport.producer.pauseProducing()
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    assert len(bodies(wire.sent())) == 1
    wire.transport.producer.resumeProducing()
    assert bodies(wire.sent()) == [b"b"]


def test_closing_waits_for_what_was_written(wire, kit):
    wire.send(get(b"/wait", b"Connection: close"))
    wire.transport.producer.pauseProducing()
    kit.waiting[0].finish()
    assert not wire.transport.disconnecting
    wire.transport.producer.resumeProducing()
    assert wire.transport.disconnecting


# The site


def test_draining_ends_what_is_idle_and_waits_for_the_rest(wire, kit):
    idle = wire.site.buildProtocol(None)
    transport = type(wire.transport)()
    idle.makeConnection(transport)
    wire.send(get(b"/wait") + get(b"/never"))
    done = wire.site.drain()
    assert transport.disconnecting
    assert not done.called
    kit.waiting[0].finish()
    assert b"Connection: close\r\n" in wire.sent()
    assert wire.transport.disconnecting
    assert done.called
    assert wire.site.drain().called


def test_draining_can_be_cut_short(wire, kit):
    wire.send(get(b"/wait"))
    done = wire.site.drain()
    wire.site.abort()
    assert wire.transport.aborting
    assert done.called
    wire.lose(Failure(ConnectionAborted()))
    assert kit.events == ["ConnectionAborted"]


def test_a_listener_that_closes_ends_keep_alive(wire, kit):
    wire.site.doStart()
    wire.send(get(b"/a"))
    wire.site.doStop()
    assert wire.transport.disconnecting
    wire.site.doStart()
    assert not wire.site.draining
    wire.site.doStop()


def test_a_request_leaves_no_work_for_the_collector(wire):
    wire.send(get(b"/a"))
    gc.collect()
    wire.send(get(b"/b") * 10)
    assert gc.collect() == 0


def test_what_is_relied_on_in_twisted_is_there():
    """Names of twisted.web's Request that are not its public interface."""

    class Channel:
        transport = None

        class site:  # noqa: N801
            _parsePOSTFormSubmission = True

        def getPeer(self):
            return None

        getHost = getPeer

    mine = vars(Request(Channel()))
    assert {"notifications", "channel", "client", "host", "content"} - {"content"} <= set(mine)
    assert {"requestHeaders", "responseHeaders", "received_cookies", "cookies"} <= set(mine)
    assert Request._disconnected is False
    assert Request._encoder is None
    assert Request.producer is None
    assert Request.startedWriting == Request.finished == Request.chunked == 0
