"""Credentials of requests, and presigned URLs."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed

from tests.storage.s3.fake_agent import (
    CREDENTIALS,
    NOW,
    Agent,
    Response,
    failure_of,
    make_sender,
    result_of,
)
from tests.storage.s3.sender_helpers import GET, FakeCredentials, collect, run
from twisted_registry.storage.s3.address import aws_address, endpoint_address
from twisted_registry.storage.s3.credentials import Credentials, CredentialsError
from twisted_registry.storage.s3.errors import BadCredentials
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
