"""The channel on a Clock and in memory: clients that leave, producers, draining."""

import gc
import warnings

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.http.connection_kit import LAST, Memory, bodies, get
from tests.http.resources import Sink
from twisted_registry.http.interfaces import BodyAborted, Limits

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
    request.sendFileResponse(200, b"", 0, 0, 1).addErrback(sent.append)
    assert len(sent) == 2
    request.sendResponse(200, b"", b"nobody is there")
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
    assert len(wire.site.connections) == 1


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


def test_a_stop_closes_what_is_answered_and_resets_the_rest(wire, kit):
    wire.send(get(b"/wait"))
    answered = wire.site.buildProtocol(None)
    transport = type(wire.transport)()
    answered.makeConnection(transport)
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


def test_a_stop_leaves_who_still_sends_to_read_our_answer(wire):
    wire.send(get(b"/s/refuse", b"Content-Length: 9000000", method=b"PUT"))
    wire.site.disconnect()
    assert not wire.transport.aborting


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
