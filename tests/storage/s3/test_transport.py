from __future__ import annotations

import pytest
from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionLost,
    DNSLookupError,
)
from twisted.python.failure import Failure
from twisted.web.client import RequestGenerationFailed, ResponseNeverReceived

from tests.storage.s3.fake_agent import Response, Sink, failure_of, no_result, result_of
from twisted_registry.storage.s3.errors import Unreachable
from twisted_registry.storage.s3.transport import WRITE_BYTES, Timeouts, Transport

TIMES = Timeouts(connect=10, answer=40, idle=20)


@pytest.fixture
def transport(clock, agent):
    return Transport(clock, agent, timeouts=TIMES)


def get(transport, **options):
    return transport.send("GetObject b/k", "GET", "http://h/b/k?x=%2F", {"host": "h"}, **options)


def test_a_request_and_its_answer(transport, agent):
    sending = get(transport)
    no_result(sending)
    assert (agent.last.method, agent.last.url) == ("GET", "http://h/b/k?x=%2F")
    assert agent.last.headers == {"host": "h"}
    assert agent.last.body is None
    agent.last.answer.callback(Response(404, body=b"no"))
    answer = result_of(sending)
    assert answer.status == 404
    assert result_of(answer.collect(10)) == b"no"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectError("refused"), "An error occurred while connecting: refused."),
        (DNSLookupError("no such name"), "DNS lookup failed: no such name."),
        (
            ResponseNeverReceived([Failure(ConnectionLost("reset"))]),
            "Connection to the other side was lost in a non-clean fashion: reset.",
        ),
        (
            ResponseNeverReceived([Failure(SSL.Error([("lib", "", "verify failed")]))]),
            "TLS: verify failed",
        ),
        (ResponseNeverReceived([Failure(SSL.SysCallError(-1, "EOF"))]), "TLS: -1; EOF"),
        (ResponseNeverReceived([Failure(SSL.ZeroReturnError())]), "TLS: ZeroReturnError"),
        (RequestGenerationFailed([Failure(ConnectionLost())]), "was lost in a non-clean"),
    ],
)
def test_without_an_answer(transport, agent, error, text):
    sending = get(transport)
    agent.last.answer.errback(error)
    failed = failure_of(sending, Unreachable).value
    assert text in str(failed)
    assert failed.retryable
    assert failed.status == 0


def test_a_mistake_of_ours_is_none_of_the_network(transport, agent):
    sending = get(transport)
    agent.last.answer.errback(TypeError("ours"))
    failure_of(sending, TypeError)


def test_silence(transport, agent, clock):
    sending = get(transport)
    clock.advance(TIMES.connect + TIMES.answer - 1)
    no_result(sending)
    clock.advance(1)
    failed = failure_of(sending, Unreachable).value
    assert "no sign of life for 50 s" in str(failed)
    assert failed.retryable


def test_some_answers_take_longer(transport, agent, clock):
    sending = get(transport, response_timeout=300)
    clock.advance(309)
    no_result(sending)
    clock.advance(1)
    failure_of(sending, Unreachable)


def test_a_body_that_is_taken_slowly(transport, agent, clock):
    sending = get(transport, content=b"x" * (3 * WRITE_BYTES))
    sink, body = Sink(pause_after=1), agent.last.body
    sink.producer = body
    body.startProducing(sink)
    for _ in range(3):
        clock.advance(TIMES.idle - 1)
        body.resumeProducing()
    # Now the store has everything, and may think about it.
    clock.advance(TIMES.answer - 1)
    no_result(sending)
    agent.last.answer.callback(Response())
    result_of(sending)


def test_a_body_that_is_not_taken(transport, agent, clock):
    sending = get(transport, content=b"x" * (3 * WRITE_BYTES))
    sink, body = Sink(pause_after=1), agent.last.body
    sink.producer = body
    body.startProducing(sink)
    clock.advance(TIMES.idle)
    assert "no sign of life for 20 s" in str(failure_of(sending, Unreachable).value)


def test_an_agent_that_words_a_cancellation_in_its_own_way(transport, agent, clock):
    """While a body is being sent, a cancelled request fails to be generated."""
    sending = get(transport, content=b"x")
    agent.last.answer._canceller = lambda answer: answer.errback(
        RequestGenerationFailed([Failure(CancelledError())])
    )
    clock.advance(TIMES.connect + TIMES.answer)
    failure_of(sending, Unreachable)


@pytest.mark.parametrize(
    "error",
    [None, ConnectingCancelledError("h"), RequestGenerationFailed([Failure(CancelledError())])],
)
def test_leaving(transport, agent, error):
    sending = get(transport)
    if error is not None:
        agent.last.answer._canceller = lambda answer: answer.errback(error)
    sending.cancel()
    failure_of(sending, CancelledError)


def test_closed(transport, agent):
    result_of(transport.close())
    assert "are closed" in str(failure_of(get(transport), Unreachable).value)
    assert agent.requests == []
