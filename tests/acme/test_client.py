"""The ACME client."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.b64 import b64encode
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from tests.acme.acme_server import BASE, DIRECTORY, Server
from twisted_registry.acme.client import ACMEClient, ACMEError, format_problem

NOW = 784111700.0  # a little before the date of the example in RFC 9110


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def clock():
    made = Clock()
    made.rightNow = NOW
    return made


@pytest.fixture
def client(server, clock):
    return ACMEClient(clock, BASE, ec.generate_private_key(ec.SECP256R1()), server)


def result(coroutine):
    """The result of a coroutine that does not wait."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (found,) = results
    if isinstance(found, Failure):
        found.raiseException()
    return found


def refused(coroutine):
    """The error of a coroutine."""
    with pytest.raises(ACMEError) as caught:
        result(coroutine)
    return caught.value


def test_new_account_signs_by_its_url(server, client):
    assert result(client.register("a@b.example")) == DIRECTORY["meta"]["termsOfService"]
    made = server.said[-1]
    assert made.payload == {"termsOfServiceAgreed": True, "contact": ["mailto:a@b.example"]}
    assert made.protected.keys() == {"alg", "nonce", "url", "jwk"}
    assert made.protected["alg"] == "ES256"
    server.answer("/x", 200, {"status": "valid"})
    assert result(client.post(f"{BASE}/x")).document == {"status": "valid"}
    read = server.said[-1]
    assert read.payload is None
    assert read.protected["kid"] == f"{BASE}/account/1"
    assert "jwk" not in read.protected
    # One nonce was fetched; each response contains the next one.
    assert [said.method for said in server.said] == ["GET", "HEAD", "POST", "POST"]


def test_existing_account_accepts_no_terms(server, client):
    server.answers.pop(f"{BASE}/account")
    server.answer("/account", 200, {}, Location=f"{BASE}/account/1")
    assert result(client.register("")) is None
    assert server.said[-1].payload == {"termsOfServiceAgreed": True}


def test_rejected_nonce_is_replaced(server, client):
    server.answers.pop(f"{BASE}/account")
    server.refuse("/account", 400, "badNonce")
    server.answer("/account", 200, {}, Location="x")
    result(client.register(""))
    first, second = (said.protected["nonce"] for said in server.said[-2:])
    assert first != second


def test_request_is_given_up_if_every_nonce_is_rejected(server, client):
    result(client.register(""))
    server.refuse("/x", 400, "badNonce", "no")
    assert str(refused(client.post(f"{BASE}/x"))) == f"{BASE}/x: status 400: badNonce: no"
    assert len([said for said in server.said if said.url == f"{BASE}/x"]) == 5


def test_error_has_reason_and_retry_after(server, client):
    result(client.register(""))
    server.answer(
        "/x",
        429,
        {
            "type": "urn:ietf:params:acme:error:rateLimited",
            "detail": "too many\n certificates",
            "subproblems": [{"detail": "for a.example"}],
        },
        Retry_After="7200",
    )
    error = refused(client.post(f"{BASE}/x"))
    assert str(error) == f"{BASE}/x: status 429: rateLimited: too many certificates; for a.example"
    assert error.retry_after == 7200
    server.answer("/y", 503, b"<html>", Retry_After="Sun, 06 Nov 1994 08:49:37 GMT")
    error = refused(client.post(f"{BASE}/y"))
    assert str(error) == f"{BASE}/y: status 503"
    assert error.retry_after == 784111777 - NOW
    server.answer("/z", 503, b"[]", Retry_After="soon")
    assert refused(client.post(f"{BASE}/z")).retry_after == 0


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"\xff"])
def test_response_that_is_not_a_json_object_is_an_error(server, client, content):
    server.answers[BASE][0] = (200, {}, content)
    assert str(refused(client.register(""))) == f"{BASE}: the response is not a JSON object"


def test_missing_url_is_an_error(server, client):
    server.answers[BASE][0] = (200, {}, b'{"newAccount": 1}')
    assert str(refused(client.register(""))) == f"{BASE}: the directory has no newAccount"
    server.answers[BASE][0] = (200, {}, json.dumps(DIRECTORY).encode())
    server.answers.pop(f"{BASE}/account")
    server.answer("/account", 200)
    assert "the response has no account URL" in str(refused(client.register("")))


def test_redirects_are_not_followed(server, client):
    server.answers[BASE][0] = (302, {"Location": ["http://elsewhere"]}, b"")
    assert str(refused(client.register(""))) == f"{BASE}: status 302"


def test_large_response_is_an_error(server, client):
    server.answers[BASE][0] = (200, {}, bytes(300 * 1024))
    assert "longer than 262144 bytes" in str(refused(client.register("")))


def test_malformed_nonce_is_an_error(server, client):
    result(client.register(""))
    server.answer("/x", 200, {})
    server.sends_malformed_nonces = True
    result(client.post(f"{BASE}/x"))
    assert "the nonce is malformed" in str(refused(client.post(f"{BASE}/x")))


def test_unreachable_server_is_an_error(server, client):
    server.answers[BASE][0] = (ResponseNeverReceived([Failure(Refused())]), {}, b"")
    assert str(refused(client.register(""))).startswith(f"{BASE}: Connection was refused")


def test_request_times_out(server, client, clock):
    server.answers[BASE][0] = (None, {}, b"")
    waiting = Deferred.fromCoroutine(client.register(""))
    clock.advance(29)
    assert not waiting.called
    clock.advance(1)
    failures = []
    waiting.addErrback(failures.append)
    assert failures[0].getErrorMessage() == f"{BASE}: no response within 30 s"
    assert not clock.getDelayedCalls()


def test_key_authorization_contains_the_thumbprint(clock, server):
    key = ec.generate_private_key(ec.SECP256R1())
    client = ACMEClient(clock, BASE, key, server)
    numbers = key.public_key().public_numbers()
    x, y = (b64encode(number.to_bytes(32, "big")).decode() for number in (numbers.x, numbers.y))
    members = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'  # RFC 7638
    thumbprint = b64encode(hashlib.sha256(members.encode()).digest()).decode()
    assert client.authorization("token") == f"token.{thumbprint}"


def test_problem_without_details():
    assert format_problem({}) == ""
    assert format_problem({"type": "about:blank", "detail": "a"}) == "about:blank: a"
