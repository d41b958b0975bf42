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
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure
from twisted.web.client import RequestGenerationFailed, ResponseNeverReceived

from tests.storage.s3.fake_agent import Response, Sink, endless, failure_of, no_result, result_of
from twisted_registry.storage.s3.errors import Stalled, Unreachable
from twisted_registry.storage.s3.transport import WRITE_BYTES, Timeouts, Transport

TIMEOUTS = Timeouts(connect_s=10, response_s=40, stored_s=60, idle_s=20)


@pytest.fixture
def transport(clock, agent):
    return Transport(clock, agent, timeouts=TIMEOUTS)


def get(transport, **options):
    return transport.send("GetObject b/k", "GET", "http://h/b/k?x=%2F", {"host": "h"}, **options)


def test_request_and_response(transport, agent):
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
        (ConnectTimeout("slow"), "User timeout caused connection failure: slow."),
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
def test_network_errors_are_unreachable(transport, agent, error, text):
    sending = get(transport)
    agent.last.answer.errback(error)
    failed = failure_of(sending, Unreachable).value
    assert isinstance(failed, Stalled) is isinstance(error, ConnectTimeout)
    assert text in str(failed)
    assert failed.retryable
    assert failed.status == 0


def test_programming_errors_are_not_translated(transport, agent):
    sending = get(transport)
    agent.last.answer.errback(TypeError("bug"))
    failure_of(sending, TypeError)


def test_missing_response_times_out(transport, agent, clock):
    sending = get(transport)
    clock.advance(TIMEOUTS.response_s - 1)
    no_result(sending)
    clock.advance(1)
    failed = failure_of(sending, Stalled).value
    assert "no progress for 40 s" in str(failed)
    assert failed.retryable


def test_response_timeout_can_be_longer(transport, agent, clock):
    sending = get(transport, response_timeout_s=300)
    clock.advance(299)
    no_result(sending)
    agent.last.answer.callback(endless())
    # Stores send white space meanwhile.
    collecting = result_of(sending).collect(10)
    clock.advance(299)
    no_result(collecting)
    clock.advance(1)
    failure_of(collecting, Stalled)


def test_slow_upload_within_the_idle_timeout(transport, agent, clock):
    sending = get(transport, content=b"x" * (3 * WRITE_BYTES))
    sink, body = Sink(pause_after=1), agent.last.body
    sink.producer = body
    body.startProducing(sink)
    for _ in range(3):
        clock.advance(TIMEOUTS.idle_s - 1)
        body.resumeProducing()
    # The request was sent; the store has to store it.
    clock.advance(TIMEOUTS.stored_s - 1)
    no_result(sending)
    agent.last.answer.callback(Response())
    result_of(sending)


def test_stalled_upload_times_out(transport, agent, clock):
    sending = get(transport, content=b"x" * (3 * WRITE_BYTES))
    sink, body = Sink(pause_after=1), agent.last.body
    sink.producer = body
    body.startProducing(sink)
    clock.advance(TIMEOUTS.idle_s)
    assert "no progress for 20 s" in str(failure_of(sending, Stalled).value)


def test_timeout_during_an_upload_is_unreachable(transport, agent, clock):
    """While a body is sent, a cancelled request fails with RequestGenerationFailed."""
    sending = get(transport, content=b"x")
    agent.last.answer._canceller = lambda answer: answer.errback(
        RequestGenerationFailed([Failure(CancelledError())])
    )
    clock.advance(TIMEOUTS.stored_s)
    failure_of(sending, Stalled)


@pytest.mark.parametrize(
    "error",
    [None, ConnectingCancelledError("h"), RequestGenerationFailed([Failure(CancelledError())])],
)
def test_cancelling_a_request(transport, agent, error):
    sending = get(transport)
    if error is not None:
        agent.last.answer._canceller = lambda answer: answer.errback(error)
    sending.cancel()
    failure_of(sending, CancelledError)


def test_closed_transport_sends_nothing(transport, agent):
    result_of(transport.close())
    assert "are closed" in str(failure_of(get(transport), Unreachable).value)
    assert agent.requests == []
