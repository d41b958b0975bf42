"""Requests to an ACME server."""

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
from twisted_registry.acme.client import ACMEClient, ACMEError, told

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
    """What it comes to, at once."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (found,) = results
    if isinstance(found, Failure):
        found.raiseException()
    return found


def refused(coroutine):
    """Why it fails."""
    with pytest.raises(ACMEError) as caught:
        result(coroutine)
    return caught.value


def test_an_account_is_made_once_and_signs_by_its_name(server, client):
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
    # One nonce was fetched; each answer has brought the next.
    assert [said.method for said in server.said] == ["GET", "HEAD", "POST", "POST"]


def test_an_account_that_is_there_agrees_to_nothing(server, client):
    server.answers.pop(f"{BASE}/account")
    server.answer("/account", 200, {}, Location=f"{BASE}/account/1")
    assert result(client.register("")) is None
    assert server.said[-1].payload == {"termsOfServiceAgreed": True}


def test_a_used_nonce_is_replaced(server, client):
    server.answers.pop(f"{BASE}/account")
    server.refuse("/account", 400, "badNonce")
    server.answer("/account", 200, {}, Location="x")
    result(client.register(""))
    first, second = (said.protected["nonce"] for said in server.said[-2:])
    assert first != second


def test_nonces_that_are_never_good_come_to_an_end(server, client):
    result(client.register(""))
    server.refuse("/x", 400, "badNonce", "no")
    assert str(refused(client.post(f"{BASE}/x"))) == f"{BASE}/x: answered 400: badNonce: no"
    assert len([said for said in server.said if said.url == f"{BASE}/x"]) == 5


def test_a_refusal_says_why_and_for_how_long(server, client):
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
    assert (
        str(error) == f"{BASE}/x: answered 429: rateLimited: too many certificates; for a.example"
    )
    assert error.retry_after == 7200
    server.answer("/y", 503, b"<html>", Retry_After="Sun, 06 Nov 1994 08:49:37 GMT")
    error = refused(client.post(f"{BASE}/y"))
    assert str(error) == f"{BASE}/y: answered 503"
    assert error.retry_after == 784111777 - NOW
    server.answer("/z", 503, b"[]", Retry_After="soon")
    assert refused(client.post(f"{BASE}/z")).retry_after == 0


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"\xff"])
def test_what_is_no_document_is_refused(server, client, content):
    server.answers[BASE][0] = (200, {}, content)
    assert str(refused(client.register(""))) == f"{BASE}: answered with no JSON object"


def test_a_directory_has_to_name_what_is_needed(server, client):
    server.answers[BASE][0] = (200, {}, b'{"newAccount": 1}')
    assert str(refused(client.register(""))) == f"{BASE}: names no newAccount"
    server.answers[BASE][0] = (200, {}, json.dumps(DIRECTORY).encode())
    server.answers.pop(f"{BASE}/account")
    server.answer("/account", 200)
    assert "answered without the account's URL" in str(refused(client.register("")))


def test_redirects_are_not_followed(server, client):
    server.answers[BASE][0] = (302, {"Location": ["http://elsewhere"]}, b"")
    assert str(refused(client.register(""))) == f"{BASE}: answered 302"


def test_an_answer_is_not_longer_than_is_sane(server, client):
    server.answers[BASE][0] = (200, {}, bytes(300 * 1024))
    assert "longer than 262144 bytes" in str(refused(client.register("")))


def test_a_nonce_that_is_none_is_refused(server, client):
    result(client.register(""))
    client._nonce = "a"
    assert "gave a nonce that is none" in str(refused(client.post(f"{BASE}/x")))


def test_who_can_not_be_reached_is_named(server, client):
    server.answers[BASE][0] = (ResponseNeverReceived([Failure(Refused())]), {}, b"")
    assert str(refused(client.register(""))).startswith(
        f"{BASE}: ConnectionRefusedError: Connection"
    )


def test_who_does_not_answer_is_given_up(server, client, clock):
    server.answers[BASE][0] = (None, {}, b"")
    waiting = Deferred.fromCoroutine(client.register(""))
    clock.advance(29)
    assert not waiting.called
    clock.advance(1)
    failures = []
    waiting.addErrback(failures.append)
    assert failures[0].getErrorMessage() == f"{BASE}: no answer within 30 s"
    assert not clock.getDelayedCalls()


def test_a_key_authorization_names_the_account(clock, server):
    key = ec.generate_private_key(ec.SECP256R1())
    client = ACMEClient(clock, BASE, key, server)
    numbers = key.public_key().public_numbers()
    x, y = (b64encode(number.to_bytes(32, "big")).decode() for number in (numbers.x, numbers.y))
    members = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'  # RFC 7638
    thumbprint = b64encode(hashlib.sha256(members.encode()).digest()).decode()
    assert client.authorization("token") == f"token.{thumbprint}"


def test_problems_in_one_line():
    assert told({}) == ""
    assert told({"type": "about:blank", "detail": "a"}) == "about:blank: a"
