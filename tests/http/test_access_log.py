"""The access log's lines."""

from io import StringIO

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.http.connection_kit import Kit, Memory, get
from twisted_registry.http.interfaces import IAccessLog
from twisted_registry.http.site import AccessLog


@pytest.fixture
def stream():
    return StringIO()


@pytest.fixture
def wire(stream):
    return Memory(Kit(), access_log=AccessLog(stream))


def test_a_line_in_combined_format(wire, stream):
    verifyObject(IAccessLog, wire.site.access_log)
    wire.clock.advance(0.5)
    wire.send(get(b"/hello?a=b", b"Referer: http://r/", b"User-Agent: docker/26"))
    assert stream.getvalue() == (
        '192.168.1.1 - - [01/Jan/1970:00:00:00 +0000] "GET /hello?a=b HTTP/1.1" 200 5'
        ' "http://r/" "docker/26"\n'
    )


def test_what_is_missing_is_a_dash(wire, stream):
    wire.clock.advance(30)
    wire.send(get(b"/empty", method=b"HEAD"))
    assert stream.getvalue() == (
        '192.168.1.1 - - [01/Jan/1970:00:00:30 +0000] "HEAD /empty HTTP/1.1" 200 - "-" "-"\n'
    )


def test_the_user_is_whoever_the_api_has_verified(wire, stream):
    wire.send(get(b"/wait", b"Authorization: Basic YTpi"))
    wire.kit.waiting[0].user = b"ann o"
    wire.kit.waiting[0].finish()
    assert " - ann\\x20o [" in stream.getvalue()
    wire.send(get(b"/x", b"Authorization: Basic YTpi"))
    assert stream.getvalue().splitlines()[1].startswith("192.168.1.1 - - [")


def test_nothing_can_be_injected_into_a_line(wire, stream):
    wire.send(get(b'/a"b', b'User-Agent: a"\\\t\xe9\x85b', b'Referer: " 200 5 "'))
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'GET /a\\"b HTTP' in line
    assert '"a\\"\\\\\\x09\\xe9\\x85b"' in line
    assert '"\\" 200 5 \\""' in line


def test_a_client_that_did_not_wait_is_logged(wire, stream):
    wire.send(get(b"/wait"))
    wire.lose(Failure(ConnectionLost()))
    assert '"GET /wait HTTP/1.1" 499 - ' in stream.getvalue()


def test_a_unix_socket_has_no_address(wire, stream):
    wire.channel.peer = UNIXAddress(None)
    wire.send(get(b"/a"))
    assert stream.getvalue().startswith("- - - [")


def test_a_log_that_can_not_be_written_harms_nobody(wire):
    class Full:
        def write(self, text):
            raise OSError

    events = []
    wire.site.access_log = AccessLog(Full())
    globalLogPublisher.addObserver(events.append)
    try:
        wire.send(get(b"/a"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert wire.sent().endswith(b"\r\n\r\na")
    assert [event for event in events if "log_failure" in event]


def test_a_request_knows_how_long_it_took(wire):
    wire.send(get(b"/wait"))
    wire.clock.advance(3)
    assert wire.kit.waiting[0].duration == 3
