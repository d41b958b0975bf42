from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from tests.storage.s3.fake_agent import Response, Sink, endless, failure_of, no_result, result_of
from twisted_registry.storage.s3.errors import InvalidResponse, Unreachable
from twisted_registry.storage.s3.transport import IdleTimeout, S3Response

IDLE = 30


@pytest.fixture
def clock():
    clock = Clock()
    yield clock
    assert clock.getDelayedCalls() == []


@pytest.fixture
def make(clock):
    return lambda response: S3Response("GetObject images/a", response, clock, IDLE)


def test_status_length_and_headers(make):
    answer = make(Response(206, {"ETag": "one", "X": "ü"}, b"12345"))
    assert (answer.status, answer.length) == (206, 5)
    assert answer.header("etag") == "one"
    assert answer.header("x") == "ü"
    assert answer.header("none") == ""
    assert make(endless()).length is None


def test_body_that_arrived_with_the_head(make):
    sink = Sink()
    assert result_of(make(Response(body=b"12345")).deliver(sink)) is None
    assert sink.content == b"12345"
    assert (sink.registered, sink.producer) == (1, None)
    assert result_of(make(Response(body=b"12345")).collect(5)) == b"12345"
    assert result_of(make(Response()).collect(0)) == b""


def test_body_in_pieces_with_delays_below_the_timeout(make, clock):
    response, sink = endless(length=6), Sink()
    done = make(response).deliver(sink)
    for data in (b"ab", b"cd", b"ef"):
        clock.advance(IDLE - 1)
        response.send(data)
    no_result(done)
    producer = sink.producer
    response.end()
    assert result_of(done) is None
    assert sink.content == b"abcdef"
    assert not response.connection.dropped
    # Calls after the end have no effect.
    producer.pauseProducing()
    producer.resumeProducing()


def test_body_without_a_length(make):
    response = endless()
    done = make(response).collect(10)
    response.send(b"abc")
    response.end()
    assert result_of(done) == b"abc"


@pytest.mark.parametrize(
    ("end", "error", "text"),
    [
        ("cut", Unreachable, "the connection was lost after 3 of 6 bytes"),
        ("end", Unreachable, "the response ended after 3 of 6 bytes"),
        ("end_somewhere", InvalidResponse, "the response has no length and no end"),
    ],
)
@pytest.mark.parametrize("way", ["deliver", "collect"])
def test_incomplete_body_is_an_error(make, way, end, error, text):
    response, sink = endless(length=6), Sink()
    answer = make(response)
    done = answer.deliver(sink) if way == "deliver" else answer.collect(10)
    response.send(b"abc")
    getattr(response, end)()
    failed = failure_of(done, error).value
    assert str(failed) == f"GetObject images/a: {text}"
    assert failed.retryable
    assert sink.producer is None


def test_lost_connection_fails_a_body_without_a_length(make):
    response = endless()
    done = make(response).collect(10)
    response.send(b"abc")
    response.cut()
    assert "connection was lost after 3 bytes" in str(failure_of(done, Unreachable).value)


def test_idle_body_times_out(make, clock):
    response, sink = endless(length=6), Sink()
    done = make(response).deliver(sink)
    response.send(b"abc")
    clock.advance(IDLE - 1)
    no_result(done)
    clock.advance(1)
    error = failure_of(done, Unreachable).value
    assert "no data for 30 s after 3 of 6 bytes" in str(error)
    assert error.retryable
    assert response.connection.dropped
    # Later data and the end of the connection are ignored.
    response.send(b"def")
    response.cut()
    assert sink.content == b"abc"
    assert sink.producer is None


def test_paused_body_has_no_timeout(make, clock):
    response, sink = endless(length=6), Sink(pause_after=1)
    done = make(response).deliver(sink)
    response.send(b"abc")
    assert response.connection.paused
    # Data that was decrypted before the pause may still arrive.
    response.send(b"de")
    assert response.connection.paused
    clock.advance(100 * IDLE)
    no_result(done)
    sink.pause_after = None
    sink.producer.resumeProducing()
    assert not response.connection.paused
    response.send(b"f")
    response.end()
    assert result_of(done) is None
    assert sink.content == b"abcdef"


def test_resumed_body_has_the_timeout_again(make, clock):
    response, sink = endless(length=6), Sink()
    done = make(response).deliver(sink)
    sink.producer.pauseProducing()
    clock.advance(100 * IDLE)
    sink.producer.resumeProducing()
    clock.advance(IDLE)
    failure_of(done, Unreachable)


def test_consumer_may_pause_during_registration(make):
    class Busy(Sink):
        def registerProducer(self, producer, streaming):
            super().registerProducer(producer, streaming)
            producer.pauseProducing()

    response, sink = endless(length=3), Busy()
    done = make(response).deliver(sink)
    assert response.connection.paused
    sink.producer.resumeProducing()
    assert not response.connection.paused
    response.send(b"abc")
    response.end()
    assert result_of(done) is None


def test_consumer_may_pause_and_resume_during_registration(make):
    class Hesitant(Sink):
        def registerProducer(self, producer, streaming):
            super().registerProducer(producer, streaming)
            producer.pauseProducing()
            producer.resumeProducing()

    response, sink = endless(length=3), Hesitant()
    done = make(response).deliver(sink)
    assert not response.connection.paused
    response.send(b"abc")
    response.end()
    assert result_of(done) is None


@pytest.mark.parametrize("leave", ["cancel", "stop", "close"])
def test_stopping_drops_the_connection(make, leave):
    response, sink = endless(length=6), Sink()
    answer = make(response)
    done = answer.deliver(sink)
    response.send(b"abc")
    {"cancel": done.cancel, "stop": sink.producer.stopProducing, "close": answer.close}[leave]()
    failure_of(done, CancelledError)
    assert response.connection.dropped
    assert sink.producer is None
    response.cut()
    answer.close()


def test_consumer_may_stop_during_a_write(make):
    class Leaver(Sink):
        def write(self, data):
            super().write(data)
            self.producer.stopProducing()

    response, sink = Response(body=b"abc"), Leaver()
    failure_of(make(response).deliver(sink), CancelledError)
    assert response.connection.dropped


def test_collect_refuses_a_body_above_the_limit(make):
    response = endless()
    done = make(response).collect(5)
    response.send(b"abc")
    response.send(b"def")
    error = failure_of(done, InvalidResponse).value
    assert "more than 5 bytes" in str(error)
    assert not error.retryable
    assert response.connection.dropped
    response.send(b"ghi")


def test_close_before_reading_drops_the_connection(make):
    response = endless(length=6)
    answer = make(response)
    answer.close()
    assert response.connection.dropped
    response.cut()
    answer.close()


def test_close_after_reading_keeps_the_connection(make):
    response = Response(body=b"abc")
    answer = make(response)
    result_of(answer.collect(3))
    answer.close()
    assert not response.connection.dropped


def test_body_can_be_read_once(make):
    answer = make(Response(body=b"abc"))
    result_of(answer.collect(3))
    with pytest.raises(AssertionError):
        answer.collect(3)


def test_expired_idle_timeout_does_not_restart(clock):
    ends = []
    idle_timeout = IdleTimeout(clock, lambda: ends.append(clock.seconds()))
    idle_timeout.restart(5)
    clock.advance(5)
    idle_timeout.restart(5)
    idle_timeout.cancel()
    clock.advance(5)
    assert ends == [5]
    assert idle_timeout.expired
