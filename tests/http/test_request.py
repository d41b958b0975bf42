"""Requests that are not made by twisted.web's constructors, and yet are what these make."""

from __future__ import annotations

import pytest
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface.verify import verifyObject

from tests.http.connection_kit import get
from twisted_registry.api.context import get_header_values, header
from twisted_registry.http.interfaces import IStreamingRequest, Limits
from twisted_registry.http.parser import RequestParser
from twisted_registry.http.request import StreamingRequest


def head_of(data):
    parser = RequestParser(Limits())
    parser.feed(data)
    return parser.events[0]


@pytest.fixture
def made(kit, wire):
    """A request of ours for some bytes, not rendered."""

    def make(data):
        return StreamingRequest(wire.channel, head_of(data))

    return make


def test_every_attribute_of_twisted_is_there(made, wire):
    """Names that twisted.web's constructors set, some of them not public."""
    mine = made(get(b"/a?b=c"))
    theirs = Request(wire.channel)
    for name, value in vars(theirs).items():
        assert type(getattr(mine, name)) is type(value), name
    for name in ("notifications", "cookies", "received_cookies", "client", "host", "queued"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.args == {b"b": [b"c"]}
    verifyObject(IStreamingRequest, mine)


def test_what_else_is_relied_on_in_twisted_is_there():
    assert Request._disconnected is False
    assert Request._encoder is None
    assert Request.producer is None
    assert Request.startedWriting == Request.finished == Request.chunked == 0
    assert callable(Request._cleanup)


FIELDS = (b"X-One: 1", b"x-one: 2", b"Accept: a", b"Name: \xff")


def test_headers_are_read_off_the_head(made):
    request = made(get(b"/", *FIELDS))
    assert header(request, "x-one") == "2"
    assert header(request, "name") == "\ufffd"
    assert header(request, "missing") is None
    assert get_header_values(request, "x-one") == ["1", "2"]
    assert get_header_values(request, "accept") == ["a"]
    single = made(get(b"/", b"Accept: a"))
    assert get_header_values(single, "accept") == ["a"]
    assert get_header_values(single, "x-one") == []
    assert "requestHeaders" not in vars(single), "made although nobody asked for it"


def test_a_resource_in_front_may_change_headers(made):
    request = made(get(b"/", b"Authorization: mine"))
    request.requestHeaders.setRawHeaders(b"authorization", [b"yours", b"theirs"])
    request.requestHeaders.removeHeader(b"host")
    assert header(request, "authorization") == "theirs"
    assert get_header_values(request, "authorization") == ["yours", "theirs"]
    assert header(request, "host") is None
    request.requestHeaders = Headers({b"x": [b"1"]})
    assert header(request, "x") == "1"


def test_the_host_of_an_absolute_target_counts(made):
    request = made(get(b"http://y/path"))
    assert header(request, "host") == "y"
    assert request.requestHeaders.getRawHeaders(b"host") == [b"y"]
