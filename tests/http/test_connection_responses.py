"""Connections in memory: requests, responses and exceptions."""

import gzip

import pytest
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from zope.interface.verify import verifyObject

from tests.http.connection_kit import (
    LAST,
    ask,
    bodies,
    chunks,
    get,
    is_error_response,
    put,
    unchunked,
)
from twisted_registry.http.interfaces import IRequestBody, IStreamingRequest


def test_a_request_is_answered_and_another_may_follow(wire):
    answer = ask(wire, get(b"/hello"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in answer
    assert b"server:" not in answer.lower()
    assert not wire.transport.disconnecting
    assert ask(wire, get(b"/again")).endswith(b"\r\n\r\nagain")


def test_requests_may_arrive_byte_by_byte(wire):
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


def test_head_and_body_are_sent_in_one_write(wire, monkeypatch):
    writes = []
    monkeypatch.setattr(wire.transport, "write", writes.append)
    wire.send(get(b"/hello"))
    assert len(writes) == 1


def test_a_request_offers_what_twisted_web_resources_use(wire, kit):
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
    verifyObject(IStreamingRequest, request)
    verifyObject(IConsumer, request)
    verifyObject(IRequestBody, request.body)
    assert IRequest.providedBy(request)
    assert request.getClientAddress() == wire.transport.getPeer()
    assert request.getHost() == wire.transport.getHost()
    assert request.getSession() is request.getSession()
    request.getSession().expire()
    request.finish()
    assert request.channel is None


def test_a_posted_form_is_parsed_into_args(wire):
    wire.send(
        put(b"/inspect", b"a=b", b"Content-Type: application/x-www-form-urlencoded", method=b"POST")
    )
    assert b"{b'a': [b'b']}" in wire.sent()


def test_a_malformed_form_is_400(wire):
    wire.send(put(b"/inspect", b"--", b"Content-Type: multipart/form-data", method=b"POST"))
    assert is_error_response(wire.sent(), 400)


def test_options_asterisk_is_answered_without_a_resource(wire):
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
    # With a body, which must not be parsed as the next request.
    smuggled = get(b"/admin")
    assert bodies(ask(wire, put(b"/u", smuggled, *upgrade) + get(b"/v"))) == [
        b"u" + smuggled,
        b"v",
    ]
    data = chunks(b"/u", b"abc").replace(b"Host", b"\r\n".join(upgrade) + b"\r\nHost")
    assert bodies(ask(wire, data + get(b"/v"))) == [b"uabc", b"v"]


def test_line_breaks_cannot_be_injected_into_a_response_head(wire):
    answer = ask(wire, get(b"/inject"))
    head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert not [line for line in head if line.startswith((b"X-B", b"X-C", b"X-D"))]
    assert answer.endswith(b"\r\n\r\ninjected")


def test_an_exception_of_a_resource_is_500_without_details(wire, log_events):
    answer = ask(wire, get(b"/boom"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert bodies(answer)[0] == b"500 internal error\n"
    assert b"secret" not in answer.lower()
    assert [event for event in log_events if "log_failure" in event]
    assert ask(wire, get(b"/n")).endswith(b"\r\n\r\nn")


@pytest.mark.parametrize("path", [b"/nowhere", b"/producing"])
def test_an_exception_before_the_response_is_500_without_details(wire, path):
    answer = ask(wire, get(path) + get(b"/n"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert bodies(answer)[1] == b"n"


def test_an_exception_after_the_client_left_is_logged(wire, kit, log_events):
    kit.wire = wire
    assert ask(wire, get(b"/gone")) == b""
    assert [event for event in log_events if "log_failure" in event]


def test_a_malformed_content_length_resets_the_connection(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].setHeader(b"Content-Length", b"many")
    with pytest.raises(ValueError):
        kit.waiting[0].write(b"x")
    kit.waiting[0].processingFailed(Failure(ValueError()))
    assert wire.transport.aborting
    assert wire.sent() == b""


def test_a_response_can_be_encoded(wire):
    answer = ask(wire, get(b"/zip", b"Accept-Encoding: gzip", b"Connection: close"))
    assert b"Content-Encoding: gzip\r\n" in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body.endswith(b"0\r\n\r\n")
    assert gzip.decompress(unchunked(body)) == b"zip"


def test_an_exception_after_the_head_resets_the_connection(wire, log_events):
    answer = ask(wire, get(b"/late_boom"))
    assert b"secret" not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert wire.transport.aborting
    assert [event for event in log_events if "log_failure" in event]


@pytest.mark.parametrize("path", [b"/short", b"/long"])
def test_a_response_that_breaks_its_content_length_resets_the_connection(wire, path):
    answer = ask(wire, get(path) + get(b"/n"))
    assert wire.transport.aborting
    assert answer.count(b"HTTP/1.1") <= 1
    assert b"too long" not in answer


def test_an_unhandled_exception_of_a_body_consumer_is_500(wire, kit, log_events):
    def explode(_sink, _piece):
        raise ValueError("secret")

    kit.on_write = explode
    kit.failed = lambda reason: reason
    answer = ask(wire, put(b"/s/take", b"abc"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert [event for event in log_events if "log_failure" in event]


def test_an_exception_of_a_body_consumer_fails_its_deferred(wire, kit):
    def explode(_sink, _piece):
        raise ValueError("secret")

    kit.on_write = explode
    assert ask(wire, put(b"/s/take", b"abc")) == b""
    assert kit.failures == ["ValueError"]
    kit.waiting[0].setResponseCode(507)
    kit.waiting[0].finish()
    assert wire.sent().startswith(b"HTTP/1.1 507 ")
