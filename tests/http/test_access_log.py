"""The lines of the access log."""

from io import StringIO

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.http.connection_kit import Kit, MemoryConnection, get
from twisted_registry.http.interfaces import IAccessLog
from twisted_registry.http.proxies import TrustedProxies
from twisted_registry.http.site import AccessLog


@pytest.fixture
def stream():
    return StringIO()


@pytest.fixture
def logged_wire(stream):
    return MemoryConnection(Kit(), access_log=AccessLog(stream))


def test_a_request_is_logged_in_combined_format(logged_wire, stream):
    verifyObject(IAccessLog, logged_wire.site.access_log)
    logged_wire.clock.advance(0.5)
    logged_wire.send(get(b"/hello?a=b", b"Referer: http://r/", b"User-Agent: docker/26"))
    assert stream.getvalue() == (
        '192.168.1.1 - - [01/Jan/1970:00:00:00 +0000] "GET /hello?a=b HTTP/1.1" 200 5'
        ' "http://r/" "docker/26"\n'
    )


def test_missing_values_are_logged_as_dashes(logged_wire, stream):
    logged_wire.clock.advance(30)
    logged_wire.send(get(b"/empty", method=b"HEAD"))
    assert stream.getvalue() == (
        '192.168.1.1 - - [01/Jan/1970:00:00:30 +0000] "HEAD /empty HTTP/1.1" 200 - "-" "-"\n'
    )


def test_only_a_verified_user_is_logged(logged_wire, stream):
    logged_wire.send(get(b"/wait", b"Authorization: Basic YTpi"))
    logged_wire.kit.waiting[0].user = b"ann o"
    logged_wire.kit.waiting[0].finish()
    assert " - ann\\x20o [" in stream.getvalue()
    logged_wire.send(get(b"/x", b"Authorization: Basic YTpi"))
    assert stream.getvalue().splitlines()[1].startswith("192.168.1.1 - - [")


def test_a_client_cannot_inject_into_a_log_line(logged_wire, stream):
    logged_wire.send(get(b'/a"b', b'User-Agent: a"\\\t\xe9\x85b', b'Referer: " 200 5 "'))
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'GET /a\\"b HTTP' in line
    assert '"a\\"\\\\\\x09\\xe9\\x85b"' in line
    assert '"\\" 200 5 \\""' in line


def test_a_client_that_leaves_early_is_logged_as_499(logged_wire, stream):
    logged_wire.send(get(b"/wait"))
    logged_wire.lose(Failure(ConnectionLost()))
    assert '"GET /wait HTTP/1.1" 499 - ' in stream.getvalue()


def test_a_client_on_a_unix_socket_is_logged_without_address(logged_wire, stream):
    logged_wire.transport.peerAddr = UNIXAddress(None)
    logged_wire.send(get(b"/a"))
    assert stream.getvalue().startswith("- - - [")
    assert stream.getvalue().endswith('"-" "-"\n')


def test_the_proxy_is_logged_first_and_the_client_that_it_reports_last(logged_wire, stream):
    logged_wire.send(get(b"/a", b"X-Forwarded-For: 198.51.100.1"))
    line = stream.getvalue()
    assert line.startswith('192.168.1.1 - - [01/Jan/1970:00:00:00 +0000] "GET /a HTTP/1.1" ')
    assert line.endswith(' "-" "-" "198.51.100.1"\n')


def test_a_client_that_is_no_proxy_is_logged_without_what_it_claims(stream):
    wire = MemoryConnection(
        Kit(), access_log=AccessLog(stream), trusted_proxies=TrustedProxies.parse(["10.0.0.0/8"])
    )
    wire.send(get(b"/a", b"X-Forwarded-For: 198.51.100.1", b"Forwarded: for=198.51.100.1"))
    assert stream.getvalue().startswith("192.168.1.1 - - [")
    assert stream.getvalue().endswith('"-" "-"\n')


def test_a_failing_access_log_does_not_break_responses(logged_wire):
    class Full:
        def write(self, text):
            raise OSError

    events = []
    logged_wire.site.access_log = AccessLog(Full())
    globalLogPublisher.addObserver(events.append)
    try:
        logged_wire.send(get(b"/a"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert logged_wire.sent().endswith(b"\r\n\r\na")
    assert [event for event in events if "log_failure" in event]


def test_duration_counts_from_the_head(logged_wire):
    logged_wire.send(get(b"/wait"))
    logged_wire.clock.advance(3)
    assert logged_wire.kit.waiting[0].duration == 3
