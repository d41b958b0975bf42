"""Connections in memory: clients that leave, producers, draining."""

import gc
import warnings

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.http.connection_kit import LAST, MemoryConnection, bodies, get
from tests.http.resources import Sink
from twisted_registry.http.interfaces import BodyAborted, Limits


def test_a_lost_connection_fails_request_body_and_producer(wire, kit):
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
    # What the Resource does afterwards has no effect.
    request.write(b"x")
    request.unregisterProducer()
    request.registerProducer(producer, True)
    assert producer.calls == ["stop", "stop"]
    failures.clear()
    request.sendFileResponse(200, b"", 0, 0, 1).addErrback(failures.append)
    assert len(failures) == 1
    request.sendResponse(200, b"", b"too late")
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
def test_send_response_sends_head_and_body(wire, method, query, head, body):
    wire.send(get(b"/whole" + query, method=method) + LAST)
    first, _, rest = wire.sent().partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %b " % (query[8:] if b"status" in query else b"200"))
    assert lines[1].startswith(b"Date: ")
    assert lines[2] == b"X-Ready: 1"
    assert lines[3].startswith(b"X-Request-Id: ")
    assert b"".join(line + b"\r\n" for line in lines[4:]) == head
    assert rest.startswith(body + b"HTTP/1.1 200 OK")


def test_send_response_announces_the_close(wire):
    wire.send(get(b"/whole", b"Connection: close"))
    assert b"Connection: close\r\n\r\nwhole" in wire.sent()


def test_a_finished_request_cannot_be_written_to(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].finish()
    assert kit.events == ["finished"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kit.waiting[0].finish()
    with pytest.raises(RuntimeError):
        kit.waiting[0].write(b"x")


def test_refuse_request_without_a_request_does_nothing(wire):
    wire.connection.refuse_request(400)
    assert wire.sent() == b""
    assert not wire.transport.disconnecting


def test_a_connection_lost_before_it_was_made_is_ignored(wire):
    channel = wire.site.buildProtocol(None)
    channel.connectionLost(Failure(ConnectionDone()))
    assert len(wire.site.connections) == 1


def test_data_after_the_last_request_is_limited(kit):
    wire = MemoryConnection(kit, limits=Limits(linger_bytes=100))
    wire.send(get(b"/wait", b"Connection: close"))
    wire.send(b"x" * 100)
    assert wire.transport.producerState == "producing"
    wire.send(b"x")
    assert wire.transport.producerState == "paused"
    kit.waiting[0].finish()
    assert wire.transport.disconnecting


def test_a_response_is_not_continued_after_an_abort(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].setHeader(b"Content-Length", b"3")
    kit.waiting[0].write(b"abc")
    wire.connection.abort()
    kit.waiting[0].write(b"more")
    assert wire.sent().endswith(b"abc")


def test_lose_connection_closes_after_what_was_written(wire, kit):
    wire.send(get(b"/wait"))
    kit.waiting[0].setHeader(b"Content-Length", b"5")
    kit.waiting[0].write(b"abc")
    kit.waiting[0].loseConnection()
    assert wire.transport.disconnecting
    assert not wire.transport.aborting


def test_an_unfinished_response_without_framing_is_reset(wire, kit):
    wire.send(get(b"/wait", version=b"HTTP/1.0"))
    kit.waiting[0].write(b"abc")
    kit.waiting[0].loseConnection()
    assert wire.transport.aborting


def test_a_half_closed_client_gets_its_responses(wire, kit):
    verifyObject(IHalfCloseableProtocol, wire.connection)
    wire.send(get(b"/wait") + get(b"/b"))
    wire.connection.readConnectionLost()
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    assert bodies(wire.sent()) == [b"", b"b"]
    assert wire.transport.disconnecting


def test_a_half_closed_client_is_reset_after_a_time(kit):
    wire = MemoryConnection(kit, limits=Limits(half_closed_seconds=5))
    wire.send(get(b"/wait"))
    wire.connection.readConnectionLost()
    wire.clock.pump([1] * 4)
    assert not wire.transport.aborting
    wire.clock.pump([1] * 3)
    assert wire.transport.aborting


def test_a_client_that_half_closes_inside_a_request_has_left(wire, kit):
    wire.send(get(b"/s/take", b"Content-Length: 6", method=b"PUT") + b"abc")
    wire.connection.readConnectionLost()
    assert wire.transport.aborting
    wire = MemoryConnection(kit)
    wire.send(b"GET / HT")
    wire.connection.readConnectionLost()
    assert wire.transport.disconnecting
    wire = MemoryConnection(kit)
    wire.connection.readConnectionLost()
    assert wire.transport.disconnecting
    wire = MemoryConnection(kit)
    wire.send(get(b"/wait") + get(b"/s/take", b"Content-Length: 6", method=b"PUT"))
    wire.connection.readConnectionLost()
    kit.waiting[-1].finish()
    assert wire.transport.disconnecting


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


def test_a_pull_producer_is_resumed_until_it_unregisters(wire, kit):
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


def test_the_next_request_waits_until_the_response_is_sent(wire, kit):
    wire.send(get(b"/wait") + get(b"/b"))
    wire.transport.producer.pauseProducing()
    kit.waiting[0].setHeader(b"Content-Length", b"0")
    kit.waiting[0].finish()
    assert len(bodies(wire.sent())) == 1
    wire.transport.producer.resumeProducing()
    assert bodies(wire.sent()) == [b"b"]


def test_closing_waits_until_the_response_is_sent(wire, kit):
    wire.send(get(b"/wait", b"Connection: close"))
    wire.transport.producer.pauseProducing()
    kit.waiting[0].finish()
    assert not wire.transport.disconnecting
    wire.transport.producer.resumeProducing()
    assert wire.transport.disconnecting


def test_draining_closes_idle_connections_and_waits_for_busy_ones(wire, kit):
    idle = wire.site.buildProtocol(None)
    transport = type(wire.transport)()
    idle.makeConnection(transport)
    idle.dataReceived(get(b"/a"))
    wire.send(get(b"/wait") + get(b"/never"))
    done = wire.site.drain()
    assert transport.disconnecting
    assert not done.called
    kit.waiting[0].finish()
    assert b"Connection: close\r\n" in wire.sent()
    assert wire.transport.disconnecting
    assert done.called
    assert wire.site.drain().called


def test_draining_answers_the_first_request_of_a_new_connection(wire):
    done = wire.site.drain()
    assert not wire.transport.disconnecting
    assert not done.called
    wire.send(get(b"/a"))
    assert b"HTTP/1.1 200" in wire.sent()
    assert wire.transport.disconnecting
    assert done.called


def test_draining_closes_a_new_connection_without_a_request_after_two_seconds(wire):
    done = wire.site.drain()
    wire.clock.pump([1, 1])
    assert wire.transport.disconnecting
    assert done.called


def test_draining_does_not_hurry_a_request_that_has_begun(wire):
    request = get(b"/a")
    wire.send(request[:5])
    done = wire.site.drain()
    wire.clock.pump([1, 1, 1])
    assert not done.called
    wire.send(request[5:])
    assert b"HTTP/1.1 200" in wire.sent()
    assert done.called


def test_abort_ends_draining(wire, kit):
    wire.send(get(b"/wait"))
    done = wire.site.drain()
    wire.site.abort()
    assert wire.transport.aborting
    assert done.called
    wire.lose(Failure(ConnectionAborted()))
    assert kit.events == ["ConnectionAborted"]


def test_disconnect_resets_only_unanswered_connections(wire, kit):
    wire.send(get(b"/wait"))
    answered = wire.site.buildProtocol(None)
    transport = type(wire.transport)()
    answered.makeConnection(transport)
    answered.dataReceived(get(b"/a"))
    wire.site.drain()
    left = wire.site.disconnect()
    assert wire.transport.aborting
    assert transport.disconnecting
    assert not transport.aborting
    wire.lose(Failure(ConnectionAborted()))
    assert not left.called
    answered.connectionLost(Failure(ConnectionDone()))
    assert left.called
    assert wire.site.disconnect().called
    assert kit.events == ["ConnectionAborted"]


def test_disconnect_lets_a_sending_client_read_the_response(wire):
    wire.send(get(b"/s/refuse", b"Content-Length: 9000000", method=b"PUT"))
    wire.site.disconnect()
    assert not wire.transport.aborting


def test_closing_the_listener_ends_keep_alive(wire, kit):
    wire.site.doStart()
    wire.send(get(b"/a"))
    wire.site.doStop()
    assert wire.transport.disconnecting
    wire.site.doStart()
    assert not wire.site.draining
    wire.site.doStop()


def test_a_request_makes_no_reference_cycles(wire):
    wire.send(get(b"/a"))
    gc.collect()
    wire.send(get(b"/b") * 10)
    assert gc.collect() == 0
