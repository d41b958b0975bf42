"""Credentials of requests, and presigned URLs."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from tests.storage.s3.fake_agent import (
    CREDENTIALS,
    NOW,
    Agent,
    Response,
    failure_of,
    make_sender,
    refusal,
    result_of,
)
from tests.storage.s3.sender_helpers import GET, FakeCredentials, collect, run
from twisted_registry.storage.s3.address import aws_address, endpoint_address
from twisted_registry.storage.s3.credentials import Credentials, CredentialsError
from twisted_registry.storage.s3.errors import AccessDenied, BadCredentials
from twisted_registry.storage.s3.interfaces import Operation
from twisted_registry.storage.s3.sigv4 import Signer


def test_request_fails_without_credentials(clock):
    agent = Agent()
    sender = make_sender(
        clock, agent, credentials=FakeCredentials(fail(CredentialsError("none found")))
    )
    error = failure_of(sender.send(GET, collect), BadCredentials).value
    assert "none found" in str(error)
    assert agent.requests == []


def test_current_credentials_sign_each_request(clock):
    agent = Agent(*[Response() for _ in range(3)])
    source = FakeCredentials(
        *(succeed(Credentials(*pair)) for pair in [("A", "s"), ("A", "s"), ("B", "s", "token")])
    )
    sender = make_sender(clock, agent, credentials=source)
    for _ in range(3):
        result_of(run(sender, clock))
    used = [request.headers["authorization"].partition("/")[0] for request in agent.requests]
    assert [text[-1] for text in used] == ["A", "A", "B"]
    assert [request.headers.get("x-amz-security-token") for request in agent.requests] == [
        None, None, "token",
    ]  # fmt: skip
    result_of(sender.close())
    assert source.closed


def test_request_waits_for_credentials(clock):
    waiting = Deferred()
    agent = Agent(Response())
    sending = make_sender(clock, agent, credentials=FakeCredentials(waiting)).send(GET, collect)
    assert agent.requests == []
    waiting.callback(Credentials("A", "s"))
    result_of(sending)


def test_presigned_url_has_the_given_address(clock):
    sender = make_sender(clock, Agent())
    public = endpoint_address("images", "https://images.example", path_style=True)
    url = result_of(sender.presign(public, "GET", "a b", 1200))
    assert url.startswith("https://images.example/images/a%20b?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    expected = Signer(CREDENTIALS.credentials, "us-east-1").query(
        "GET", "images.example", "/images/a%20b", (), 1200, NOW
    )
    assert url.endswith(f"?{expected}")


def test_presigned_url_has_the_region_of_the_bucket(clock):
    address = aws_address("images", "eu-west-1")
    sender = make_sender(clock, Agent(), address=address)
    assert "%2Feu-west-1%2Fs3%2F" in result_of(sender.presign(address, "GET", "a", 1))


OLD, NEW = Credentials("OLD", "s", "token"), Credentials("NEW", "s", "other")


def access_keys(agent):
    return [
        request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        for request in agent.requests
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ExpiredToken"),
        (403, "InvalidAccessKeyId"),
        (400, "InvalidToken"),
        (403, "SignatureDoesNotMatch"),
    ],
)
def test_refused_credentials_are_renewed_at_once(clock, status, code):
    agent = Agent(refusal(status, code), Response())
    source = FakeCredentials(succeed(OLD), succeed(NEW), renewed=[succeed(NEW)])
    # The clock does not advance: there is no delay.
    result_of(make_sender(clock, agent, credentials=source).send(GET, collect))
    assert access_keys(agent) == ["OLD", "NEW"]
    assert source.refused == [OLD]


@pytest.mark.parametrize("status", [400, 403])
def test_refusal_of_a_head_without_a_code_renews_credentials(clock, status):
    agent = Agent(Response(status), Response())
    source = FakeCredentials(succeed(OLD), succeed(NEW), renewed=[succeed(NEW)])
    head = Operation("HeadObject", "HEAD", "a")
    result_of(make_sender(clock, agent, credentials=source).send(head, collect))
    assert access_keys(agent) == ["OLD", "NEW"]


def test_the_content_of_a_refused_request_is_sent_again(clock):
    agent = Agent(refusal(400, "ExpiredToken"), Response())
    source = FakeCredentials(succeed(OLD), succeed(NEW), renewed=[succeed(NEW)])
    put = Operation("PutObject", "PUT", "a", content=[b"con", b"tent"])
    result_of(make_sender(clock, agent, credentials=source).send(put, collect))
    assert [request.sent for request in agent.requests] == [b"content", b"content"]


@pytest.mark.parametrize(
    "renew",
    [lambda: succeed(OLD), lambda: fail(CredentialsError("gone")), lambda: succeed(NEW)],
    ids=["same", "none", "other"],
)
def test_credentials_are_renewed_once_for_a_request(clock, renew):
    agent = Agent(*[refusal(403, "InvalidAccessKeyId") for _ in range(2)])
    source = FakeCredentials(succeed(OLD), succeed(NEW), renewed=[renew()])
    sender = make_sender(clock, agent, credentials=source)
    error = failure_of(sender.send(GET, collect), BadCredentials).value
    assert error.code == "InvalidAccessKeyId"
    assert len(source.refused) == 1


def test_other_refusals_do_not_renew_credentials(clock):
    agent = Agent(refusal(403, "AccessDenied"))
    source = FakeCredentials(succeed(OLD))
    failure_of(make_sender(clock, agent, credentials=source).send(GET, collect), AccessDenied)
    assert source.refused == []
