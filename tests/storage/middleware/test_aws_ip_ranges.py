from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from twisted_registry.storage.middleware.aws_ip_ranges import (
    RETRY_S,
    AWSClients,
    IPRanges,
    IPRangesError,
    parse_ranges,
)
from twisted_registry.storage.s3.errors import Unreachable
from twisted_registry.storage.threads import Threads

DAY = 12 * 3600


def document(*four, six=()):
    """A document as AWS publishes them, of networks and regions."""
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
def test_addresses(address, regions, expected):
    assert (address in parse_ranges(SOME, regions)) is expected


NETWORKS = st.builds(
    lambda address, bits: ip_network((address, bits), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
)


@given(st.lists(NETWORKS, min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_addresses_one_by_one(networks, other):
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
def test_what_is_no_document(content):
    with pytest.raises(IPRangesError):
        parse_ranges(content)


def test_no_ranges():
    assert "192.0.2.1" not in IPRanges()


# The ranges over time.


class Server:
    """A transport, whose answers the test gives."""

    def __init__(self):
        self.urls = []
        self.waiting = []
        self.closed = False

    def send(self, what, method, url, headers):
        assert (method, headers) == ("GET", {"host": "ranges.example"})
        self.urls.append(url)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, content, status=200):
        self.waiting.pop(0).callback(Answer(content, status))

    def close(self):
        self.closed = True
        return succeed(None)


class Answer:
    def __init__(self, content, status):
        self.content = content
        self.status = status

    def collect(self, limit):
        assert len(self.content) < limit
        return succeed(self.content)


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
def server():
    return Server()


@pytest.fixture
def clients(clock, server):
    return AWSClients(
        clock, server, InlineThreads(), ["eu-west-1"], "https://ranges.example/ip.json"
    )


@pytest.fixture
def warnings():
    events = []

    def observe(event):
        if event["log_level"] is LogLevel.warn:
            events.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def test_nobody_waits_for_the_ranges(clients, server):
    assert "192.0.2.1" not in clients
    assert "192.0.2.1" not in clients
    assert server.urls == ["https://ranges.example/ip.json"]
    server.answer(SOME)
    assert "192.0.2.1" in clients
    assert "192.0.2.200" not in clients


def test_they_are_renewed(clients, server, clock):
    assert "192.0.2.1" not in clients
    server.answer(SOME)
    clock.advance(DAY - 1)
    assert "192.0.2.1" in clients
    assert len(server.urls) == 1
    clock.advance(1)
    assert "192.0.2.1" in clients
    server.answer(document(("203.0.113.0/24", "eu-west-1")))
    assert "192.0.2.1" not in clients
    assert "203.0.113.1" in clients
    assert len(server.urls) == 2


@pytest.mark.parametrize(
    "fail",
    [
        lambda server: server.waiting.pop(0).errback(Unreachable("GET", "no route")),
        lambda server: server.answer(b"<html>"),
        lambda server: server.answer(b"", 503),
    ],
)
def test_a_failure_leaves_the_old_ones(clients, server, clock, warnings, fail):
    assert "192.0.2.1" not in clients
    server.answer(SOME)
    clock.advance(DAY)
    assert "192.0.2.1" in clients
    fail(server)
    assert len(warnings) == 1
    assert "https://ranges.example/ip.json" in warnings[0]
    clock.advance(RETRY_S - 1)
    assert "192.0.2.1" in clients
    assert len(server.urls) == 2
    clock.advance(1)
    assert "192.0.2.1" in clients
    assert len(server.urls) == 3


def test_closing_gives_up(clients, server, warnings):
    done = []
    assert "192.0.2.1" not in clients
    clients.close().addCallback(done.append)
    assert done == [None]
    assert server.closed
    assert warnings == []


def test_closing_before_anything(clients, server):
    done = []
    clients.close().addCallback(done.append)
    assert done == [None]


@pytest_twisted.ensureDeferred
async def test_a_copy_on_this_machine(tmp_path, warnings):
    path = tmp_path / "ip-ranges.json"
    path.write_bytes(SOME)
    clients = AWSClients(reactor, Server(), Threads(reactor, 1, "test"), url=f"file://{path}")
    assert "192.0.2.1" not in clients
    await clients._updating
    assert "192.0.2.1" in clients
    await clients.close()

    clients = AWSClients(reactor, Server(), Threads(reactor, 1, "test"), url="file:///none")
    assert "192.0.2.1" not in clients
    await clients._updating
    assert "No such file" in warnings[0]
    await clients.close()
