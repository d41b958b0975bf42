"""Size limits of responses, and endpoints that do not log."""

from __future__ import annotations

import pytest
from attrs import define
from OpenSSL.SSL import Error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from twisted_registry.http.client import (
    BodyTooLong,
    QuietEndpoint,
    describe_error,
    read_limited_body,
)


class Response:
    """A response whose body the test delivers."""

    def __init__(self):
        self.aborted = False
        self.protocol = None

    def deliverBody(self, protocol):
        self.protocol = protocol
        protocol.makeConnection(self)

    def stopProducing(self):
        self.aborted = True

    def end(self, reason):
        self.protocol.connectionLost(Failure(reason))


@pytest.fixture
def response():
    return Response()


def start_reading(response, limit):
    """Return lists that get the body, or the failure."""
    bodies, failures = [], []
    reading = Deferred.fromCoroutine(read_limited_body(response, limit))
    reading.addCallbacks(bodies.append, failures.append)
    return reading, bodies, failures


@pytest.mark.parametrize("reason", [ResponseDone(), PotentialDataLoss()])
def test_a_body_up_to_the_limit_is_returned(response, reason):
    _, bodies, _ = start_reading(response, 6)
    response.protocol.dataReceived(b"abc")
    response.protocol.dataReceived(b"def")
    response.end(reason)
    assert bodies == [b"abcdef"]
    assert not response.aborted


def test_a_longer_body_closes_the_connection_and_fails(response):
    _, _, failures = start_reading(response, 5)
    response.protocol.dataReceived(b"abc")
    response.protocol.dataReceived(b"def")
    assert response.aborted
    response.end(ConnectionLost())
    assert failures[0].check(BodyTooLong)


def test_a_body_that_is_cut_short_fails(response):
    _, _, failures = start_reading(response, 6)
    response.protocol.dataReceived(b"abc")
    response.end(ConnectionLost())
    assert failures[0].check(ConnectionLost)


def test_cancelling_closes_the_connection(response):
    reading, _, failures = start_reading(response, 6)
    reading.cancel()
    assert response.aborted
    response.end(ConnectionLost())
    assert failures[0].check(CancelledError)


@define
class Endpoint:
    factory: Factory | None = None

    def connect(self, factory):
        self.factory = factory
        return "connecting"


def test_a_quiet_endpoint_silences_its_factories():
    endpoint = Endpoint()
    factory = Factory()
    assert QuietEndpoint(endpoint).connect(factory) == "connecting"
    assert endpoint.factory is factory
    assert not factory.noisy


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (ResponseNeverReceived([Failure(ValueError("a\nb"))]), "a b"),
        (ResponseNeverReceived([Failure(ResponseFailed([Failure(KeyError())]))]), "KeyError"),
        (
            ResponseNeverReceived([Failure(Error([("SSL routines", "", "certificate expired")]))]),
            "certificate expired",
        ),
        (Error([]), "Error"),
    ],
)
def test_an_error_is_described_in_one_line(error, text):
    assert describe_error(error) == text
