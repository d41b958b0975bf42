from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import execute, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.storage.s3.fake_agent import Agent, Response
from twisted_registry.storage.middleware.aws_ip_ranges import (
    RETRY_S,
    AWSClients,
    IPRanges,
    IPRangesError,
    parse_ranges,
)
from twisted_registry.storage.threads import Threads

HALF_DAY_S = 12 * 3600
URL = "https://ranges.example/ip.json"


def document(*four, six=()):
    """Return a document in the format of AWS, of networks and regions."""
    return json.dumps(
        {
            "syncToken": "1",
            "prefixes": [
                {"ip_prefix": net, "region": region, "service": "EC2"} for net, region in four
            ],
            "ipv6_prefixes": [
                {"ipv6_prefix": net, "region": region, "service": "S3"} for net, region in six
            ],
        }
    ).encode()


SOME = document(
    ("192.0.2.0/25", "eu-west-1"),
    ("192.0.2.0/24", "us-east-1"),
    ("198.51.100.7/32", "GLOBAL"),
    six=[("2001:db8::/48", "eu-west-1")],
)


@pytest.mark.parametrize(
    ("address", "regions", "expected"),
    [
        ("192.0.2.0", [], True),
        ("192.0.2.255", [], True),
        ("192.0.3.0", [], False),
        ("192.0.1.255", [], False),
        ("198.51.100.7", [], True),
        ("198.51.100.8", [], False),
        ("0.0.0.0", [], False),
        ("2001:db8::1", [], True),
        ("2001:db8:1::", [], False),
        ("::ffff:192.0.2.1", [], True),
        ("::ffff:192.0.3.1", [], False),
        ("192.0.2.1", ["eu-west-1"], True),
        ("192.0.2.200", ["eu-west-1"], False),
        ("192.0.2.200", ["EU-WEST-1", "us-east-1"], True),
        ("192.0.2.1", ["ap-south-1"], False),
        ("2001:db8::1", ["us-east-1"], False),
        ("", [], False),
        ("unix", [], False),
        ("192.0.2.1, 10.0.0.1", [], False),
    ],
)
def test_addresses_in_ranges(address, regions, expected):
    assert (address in parse_ranges(SOME, regions)) is expected


NETWORKS = st.builds(
    lambda address, bits: ip_network((address, bits), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
)


@given(st.lists(NETWORKS, min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_merged_ranges_contain_the_same_addresses(networks, other):
    ranges = parse_ranges(document(*[(str(net), "x") for net in networks]))
    edges = {int(net.network_address) for net in networks}
    edges |= {int(net.broadcast_address) for net in networks}
    for number in {near for edge in edges for near in (edge - 1, edge, edge + 1)} | {other}:
        if 0 <= number < 2**32:
            address = ip_address(number)
            expected = any(address in net for net in networks)
            assert (str(address) in ranges) is expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no",
        b"[]",
        b"{}",
        b'{"prefixes": 1}',
        b'{"prefixes": [1]}',
        b'{"prefixes": [{}]}',
        b'{"prefixes": [{"ip_prefix": "192.0.2.1/24"}]}',
        b'{"prefixes": [{"ip_prefix": "x"}]}',
        b'{"prefixes": []}',
    ],
)
def test_malformed_documents(content):
    with pytest.raises(IPRangesError):
        parse_ranges(content)


def test_empty_ranges():
    assert "192.0.2.1" not in IPRanges()


class InlineThreads:
    closed = False

    def run_blocking(self, work, *arguments):
        return execute(work, *arguments)

    def close(self):
        self.closed = True
        return succeed(None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def agent():
    return Agent()


@pytest.fixture
def clients(clock, agent):
    return AWSClients(clock, agent, InlineThreads(), ["eu-west-1"], URL)


def respond(agent, content, status=200):
    agent.last.answer.callback(Response(status, body=content))


@pytest.fixture
def warnings():
    events = []

    def observe(event):
        if event["log_level"] is LogLevel.warn:
            events.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def test_lookup_does_not_wait_for_the_download(clients, agent):
    assert "192.0.2.1" not in clients
    assert "192.0.2.1" not in clients
    assert [(request.method, request.url) for request in agent.requests] == [("GET", URL)]
    respond(agent, SOME)
    assert "192.0.2.1" in clients
    assert "192.0.2.200" not in clients


def test_ranges_are_updated_when_they_are_old(clients, agent, clock):
    assert "192.0.2.1" not in clients
    respond(agent, SOME)
    clock.advance(HALF_DAY_S - 1)
    assert "192.0.2.1" in clients
    assert len(agent.requests) == 1
    clock.advance(1)
    assert "192.0.2.1" in clients
    respond(agent, document(("203.0.113.0/24", "eu-west-1")))
    assert "192.0.2.1" not in clients
    assert "203.0.113.1" in clients
    assert len(agent.requests) == 2


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (lambda agent, _: agent.last.answer.errback(ConnectError()), "ConnectError"),
        (lambda agent, _: respond(agent, b"<html>"), "malformed document"),
        (lambda agent, _: respond(agent, b"", 503), "HTTP status 503"),
        (lambda _, clock: clock.advance(60), "TimeoutError"),
    ],
    ids=["connection", "document", "status", "timeout"],
)
def test_failed_update_keeps_the_previous_ranges(clients, agent, clock, warnings, fail, error):
    assert "192.0.2.1" not in clients
    respond(agent, SOME)
    clock.advance(HALF_DAY_S)
    assert "192.0.2.1" in clients
    fail(agent, clock)
    (warning,) = warnings
    assert f"url={URL} error={error}" in warning
    clock.advance(RETRY_S - 1)
    assert "192.0.2.1" in clients
    assert len(agent.requests) == 2
    clock.advance(1)
    assert "192.0.2.1" in clients
    assert len(agent.requests) == 3


def test_close_cancels_the_download(clients, agent, clock, warnings):
    done = []
    assert "192.0.2.1" not in clients
    clients.close().addCallback(done.append)
    assert done == [None]
    assert agent.last.answer.called
    assert clock.getDelayedCalls() == []
    assert warnings == []


def test_close_without_a_download(clients):
    done = []
    clients.close().addCallback(done.append)
    assert done == [None]


@pytest_twisted.ensureDeferred
async def test_local_copy_of_the_document(tmp_path, warnings):
    path = tmp_path / "ip-ranges.json"
    path.write_bytes(SOME)
    for url, is_inside in ((f"file://{path}", True), ("file:///none", False)):
        clients = AWSClients(reactor, Agent(), Threads(reactor, 1, "test"), url=url)
        assert "192.0.2.1" not in clients
        await clients.updating
        assert ("192.0.2.1" in clients) is is_inside
        await clients.close()
    (warning,) = warnings
    assert "No such file" in warning
