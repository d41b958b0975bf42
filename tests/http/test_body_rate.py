"""Bodies that arrive slowly: the minimum rate, and what is not counted against it."""

from __future__ import annotations

import pytest

from tests.http.connection_kit import Kit, MemoryConnection, chunks, get, is_error_response, put
from twisted_registry.http.deadlines import MinimumRate
from twisted_registry.http.interfaces import Limits

WINDOW_S = 60
RATE = 100


@pytest.fixture
def slow_wire():
    """A connection whose bodies need 100 bytes per second, over a window of 60 seconds."""
    limits = Limits(body_seconds=WINDOW_S, body_bytes_per_second=RATE)
    return MemoryConnection(Kit(), limits=limits)


def begin_upload(wire, length=10**9):
    wire.send(get(b"/s/take", b"Content-Length: %d" % length, method=b"PUT"))


def seconds_until_end(wire, piece, interval, limit):
    """Send a piece in each interval; return after how many seconds the server has given up."""
    for elapsed in range(limit):
        if wire.transport.disconnecting:
            return elapsed
        if elapsed % interval == 0:
            wire.send(piece)
        wire.clock.advance(1)
    return None


@pytest.mark.parametrize(("piece", "interval"), [(b"a", 1), (b"a", 10), (b"a" * 500, 10)])
def test_a_body_that_trickles_is_408(slow_wire, piece, interval):
    begin_upload(slow_wire)
    ended = seconds_until_end(slow_wire, piece, interval, 10 * WINDOW_S)
    assert WINDOW_S <= ended <= 2 * WINDOW_S + interval
    assert is_error_response(slow_wire.sent(), 408)
    assert slow_wire.kit.failures == ["BodyAborted"]


def test_a_chunked_body_that_trickles_is_408(slow_wire):
    slow_wire.send(chunks(b"/s/take", b"a", tail=b""))
    # The framing is more than the rate, the data is not.
    ended = seconds_until_end(slow_wire, b"1;" + b"x" * 1000 + b"\r\na\r\n", 1, 10 * WINDOW_S)
    assert ended is not None
    assert b"HTTP/1.1 4" in slow_wire.sent()


def test_a_body_that_is_collected_has_the_minimum_rate_too(slow_wire):
    slow_wire.send(get(b"/x", b"Content-Length: 100000", method=b"PUT"))
    assert seconds_until_end(slow_wire, b"a", 10, 10 * WINDOW_S) <= WINDOW_S + 11
    assert is_error_response(slow_wire.sent(), 408)


@pytest.mark.parametrize("interval", [1, 5, 30, 59])
def test_a_slow_uplink_that_keeps_the_rate_succeeds(slow_wire, interval):
    """However its packets are spread, as long as no pause is longer than the window."""
    size = RATE * interval
    begin_upload(slow_wire, 40 * size)
    for _ in range(40):
        slow_wire.clock.pump([1] * interval)
        slow_wire.send(b"a" * size)
    assert b"aaaaaaaa %d 40" % (40 * size) in slow_wire.sent()


def test_a_sender_may_pause_for_the_window_after_each_fast_part(slow_wire):
    begin_upload(slow_wire, 50_000)
    for _ in range(5):
        slow_wire.clock.pump([1] * (WINDOW_S - 1))
        slow_wire.send(b"a" * 10_000)
    assert b"aaaaaaaa 50000 5" in slow_wire.sent()


def test_back_pressure_of_the_store_is_not_counted(slow_wire):
    begin_upload(slow_wire, 2000)
    body = slow_wire.kit.waiting[0].body
    for _ in range(20):
        # The store is busy; the client has one second for each piece of 100 bytes.
        body.pauseProducing()
        slow_wire.clock.pump([1] * 300)
        body.resumeProducing()
        slow_wire.clock.advance(1)
        slow_wire.send(b"a" * 100)
    assert b"aaaaaaaa 2000 20" in slow_wire.sent()


def test_back_pressure_gives_no_time_back(slow_wire):
    begin_upload(slow_wire)
    body = slow_wire.kit.waiting[0].body
    waited = 0
    while not slow_wire.transport.disconnecting:
        body.pauseProducing()
        slow_wire.clock.pump([1] * 30)
        body.resumeProducing()
        slow_wire.clock.pump([1] * 10)
        slow_wire.send(b"a")
        waited += 10
        assert waited <= WINDOW_S + 10
    assert is_error_response(slow_wire.sent(), 408)


def test_time_before_the_application_reads_is_not_counted(slow_wire):
    slow_wire.send(get(b"/s/wait", b"Content-Length: 100", method=b"PUT"))
    slow_wire.clock.pump([1] * 500)
    request = slow_wire.kit.waiting[0]
    received = []
    request.body.startProducing(type("List", (), {"write": received.append})())
    slow_wire.clock.pump([1] * (WINDOW_S - 2))
    slow_wire.send(b"a" * 100)
    assert b"".join(received) == b"a" * 100
    assert not slow_wire.transport.disconnecting


def test_each_body_has_a_window_of_its_own(slow_wire):
    for _ in range(3):
        slow_wire.send(put(b"/s/take", b"a" * 10)[:-1])
        slow_wire.clock.pump([1] * (WINDOW_S - 2))
        slow_wire.send(b"a")
        assert b"aaaaaaaa 10 2" in slow_wire.sent()


def test_without_a_minimum_rate_only_a_stall_ends_a_body():
    wire = MemoryConnection(Kit(), limits=Limits(body_seconds=60, body_bytes_per_second=0))
    begin_upload(wire)
    assert seconds_until_end(wire, b"a", 30, 3600) is None
    wire.clock.pump([1] * 62)
    assert is_error_response(wire.sent(), 408)


def test_the_rate_is_kept_on_average():
    rate = MinimumRate(10, 60)
    assert rate.update(0, 0, waiting=True) == 60
    assert rate.update(20, 0, waiting=True) == 40
    assert rate.update(20, 100, waiting=True) == 50
    assert rate.update(30, 10_000, waiting=False) == 60, "at most the window"
    assert rate.update(500, 10_000, waiting=True) == 60, "not waiting"
    assert rate.update(560, 10_000, waiting=True) == 0
