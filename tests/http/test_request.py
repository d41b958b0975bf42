"""Requests have what twisted.web's constructors would set, although these are not called."""

from __future__ import annotations

import pytest
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface.verify import verifyObject

from tests.http.connection_kit import get
from twisted_registry.http.interfaces import IStreamingRequest, Limits
from twisted_registry.http.parser import RequestParser
from twisted_registry.http.request import StreamingRequest


def head_of(data):
    parser = RequestParser(Limits())
    parser.feed(data)
    return parser.events[0]


@pytest.fixture
def make_request(kit, wire):
    """A function that makes a request of bytes without running it."""

    def make(data):
        return StreamingRequest(wire.connection, head_of(data))

    return make


def test_a_request_has_every_attribute_that_twisted_sets(make_request, wire):
    """The constructors set some names that are not public."""
    request = make_request(get(b"/a?b=c"))
    channel = wire.connection
    channel.getPeer, channel.getHost = wire.transport.getPeer, wire.transport.getHost
    expected = Request(channel)
    for name, value in vars(expected).items():
        assert type(getattr(request, name)) is type(value), name
    for name in ("notifications", "cookies", "received_cookies", "client", "host", "queued"):
        assert getattr(request, name) == getattr(expected, name)
    assert request.args == {b"b": [b"c"]}
    verifyObject(IStreamingRequest, request)


def test_twisted_has_the_class_attributes_that_are_relied_on():
    assert Request._disconnected is False
    assert Request._encoder is None
    assert Request.producer is None
    assert Request.startedWriting == Request.finished == Request.chunked == 0
    assert callable(Request._cleanup)


FIELDS = (b"X-One: 1", b"x-one: 2", b"Accept: a", b"Name: \xff")


def test_headers_are_read_without_making_request_headers(make_request):
    request = make_request(get(b"/", *FIELDS))
    assert request.headerFields[b"x-one"] == b"2"
    assert request.headerFields[b"name"] == b"\xff"
    assert b"missing" not in request.headerFields
    assert request.getHeaderValues(b"x-one") == [b"1", b"2"]
    assert request.getHeaderValues(b"accept") == [b"a"]
    single = make_request(get(b"/", b"Accept: a"))
    assert single.getHeaderValues(b"accept") == (b"a",)
    assert single.getHeaderValues(b"x-one") == ()
    assert "requestHeaders" not in vars(single), "made without need"


def test_changed_request_headers_are_seen(make_request):
    request = make_request(get(b"/", b"Authorization: first"))
    request.requestHeaders.setRawHeaders(b"authorization", [b"second", b"third"])
    request.requestHeaders.removeHeader(b"host")
    assert request.headerFields[b"authorization"] == b"third"
    assert request.getHeaderValues(b"authorization") == [b"second", b"third"]
    assert b"host" not in request.headerFields
    request.requestHeaders = Headers({b"x": [b"1"]})
    assert request.headerFields[b"x"] == b"1"


def test_the_host_of_an_absolute_target_replaces_the_header(make_request):
    request = make_request(get(b"http://y/path"))
    assert request.headerFields[b"host"] == b"y"
    assert request.requestHeaders.getRawHeaders(b"host") == [b"y"]
