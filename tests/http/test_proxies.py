"""Whose headers about clients are believed, and which client they name."""

from __future__ import annotations

from io import StringIO

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, eventAsText, globalLogPublisher

from tests.http.connection_kit import (
    Kit,
    ListeningServer,
    MemoryConnection,
    MemoryTransport,
    get,
    until,
)
from twisted_registry.config.http import DEFAULT_TRUSTED_PROXIES
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.proxies import PRIVATE_NETWORKS, TrustedProxies, private_proxies
from twisted_registry.http.site import AccessLog


def client_of(headers, *hops, proxies=None):
    """Return what is known about the client of a request with these pairs of headers."""
    values = {}
    for name, value in headers:
        values.setdefault(name, []).append(value.encode())
    return (proxies or private_proxies()).describe_client(
        hops or ("10.0.0.1",),
        {name: found[-1] for name, found in values.items()},
        lambda name: values.get(name, ()),
    )


def forwarded_for(*values):
    return [(b"x-forwarded-for", value) for value in values]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "::1", "10.255.0.1", "172.16.0.1", "172.31.255.255", "192.168.3.4",
     "169.254.1.1", "fd00::1", "fc12::1", "fe80::1", "fe80::1%eth0", ""],
)  # fmt: skip
def test_private_addresses_and_unix_sockets_are_trusted_by_default(address):
    assert private_proxies().trusts(address)


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "172.15.0.1", "172.32.0.1", "100.64.0.1", "8.8.8.8", "2001:db8::1", "fec0::1",
     "::2", "::ffff:192.0.2.1", "unknown", "0.0.0.0", "::"],
)  # fmt: skip
def test_other_addresses_are_not_trusted_by_default(address):
    assert not private_proxies().trusts(address)


def test_the_configuration_has_the_same_default():
    assert DEFAULT_TRUSTED_PROXIES == PRIVATE_NETWORKS


def test_configured_proxies_replace_the_default():
    proxies = TrustedProxies.parse(["192.0.2.0/24", "2001:db8::7"])
    assert proxies.trusts("192.0.2.99")
    assert proxies.trusts("2001:db8::7")
    assert not proxies.trusts("2001:db8::8")
    assert not proxies.trusts("127.0.0.1")
    assert not proxies.trusts(""), "the word unix was not given"
    assert TrustedProxies.parse(["unix"]).trusts("")
    assert not TrustedProxies.parse([]).trusts("127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "10.0.0.1"),
        (forwarded_for("198.51.100.1"), "198.51.100.1"),
        # The client claims an address, and the proxy appends the true one.
        (forwarded_for("203.0.113.9, 198.51.100.1"), "198.51.100.1"),
        (forwarded_for("203.0.113.9", "198.51.100.1"), "198.51.100.1"),
        (forwarded_for("127.0.0.1, 198.51.100.1, 192.168.0.2"), "198.51.100.1"),
        (forwarded_for("203.0.113.9, 198.51.100.1, 192.168.0.2, fd00::3"), "198.51.100.1"),
        # Clients on private addresses.
        (forwarded_for("192.168.0.9"), "192.168.0.9"),
        (forwarded_for("192.168.0.9, 192.168.0.2"), "192.168.0.9"),
        # Ports, and other spellings.
        (forwarded_for("198.51.100.1:4711"), "198.51.100.1"),
        (forwarded_for("[2001:DB8::1]:4711"), "2001:db8::1"),
        (forwarded_for("2001:db8:0:0::1"), "2001:db8::1"),
        (forwarded_for("::ffff:198.51.100.1"), "198.51.100.1"),
        (forwarded_for(" ,198.51.100.1 , "), "198.51.100.1"),
        # What is no address hides everything before it.
        (forwarded_for("198.51.100.1, unknown"), "10.0.0.1"),
        (forwarded_for("198.51.100.1, nonsense, 192.168.0.2"), "192.168.0.2"),
        (forwarded_for("198.51.100.1\x1b[31m"), "10.0.0.1"),
        (forwarded_for("fe80::1%\x1b[31m"), "10.0.0.1"),
        (forwarded_for("999.1.1.1"), "10.0.0.1"),
        (forwarded_for(""), "10.0.0.1"),
        # Other headers.
        ([(b"forwarded", "for=198.51.100.1")], "198.51.100.1"),
        ([(b"forwarded", 'For="[2001:db8::1]:99";proto=https, for=10.2.3.4')], "2001:db8::1"),
        ([(b"forwarded", "for=203.0.113.9, for=198.51.100.1;by=10.0.0.1")], "198.51.100.1"),
        ([(b"forwarded", 'for="203.0.113.9, for=198.51.100.1')], "198.51.100.1"),
        ([(b"forwarded", "for=_hidden")], "10.0.0.1"),
        ([(b"forwarded", "proto=https")], "10.0.0.1"),
        ([(b"x-real-ip", "198.51.100.1")], "198.51.100.1"),
        ([(b"x-real-ip", "198.51.100.1"), *forwarded_for("198.51.100.2")], "198.51.100.2"),
        ([(b"forwarded", "for=198.51.100.1"), *forwarded_for("198.51.100.2")], "198.51.100.2"),
    ],
)  # fmt: skip
def test_the_client_is_the_right_most_address_that_is_not_a_trusted_proxy(headers, client):
    found = client_of(headers)
    assert (found.address, found.peer) == (client, "10.0.0.1")


def test_nothing_is_believed_from_a_peer_that_is_no_proxy():
    headers = [
        *forwarded_for("10.0.0.1"),
        *[(b"x-forwarded-host", "evil"), (b"x-forwarded-proto", "https")],
        *[(b"forwarded", "for=10.0.0.1;host=evil;proto=https"), (b"x-real-ip", "10.0.0.1")],
    ]
    found = client_of(headers, "192.0.2.1")
    assert (found.address, found.peer) == ("192.0.2.1", "192.0.2.1")
    assert (found.host, found.scheme) == ("", "")


def test_a_long_chain_is_not_followed():
    found = client_of(forwarded_for("198.51.100.1," + ",".join(["10.0.0.2"] * 8000)))
    assert found.address == "10.0.0.2"


@given(
    st.lists(st.text(max_size=70), max_size=4), st.sampled_from([b"x-forwarded-for", b"forwarded"])
)
def test_an_address_is_always_an_ip_address(values, name):
    address = client_of([(name, value) for value in values]).address
    assert set(address) <= set("0123456789abcdef:."), address


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (IPv4Address("TCP", "10.0.0.1", 1), "198.51.100.1"),
        (IPv6Address("TCP", "::ffff:10.0.0.1", 1), "198.51.100.1"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "198.51.100.1"),
        (UNIXAddress(b"/run/socket"), "198.51.100.1"),
        (UNIXAddress(None), "198.51.100.1"),
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
    ],
)
def test_a_request_has_the_address_of_its_client(peer, client):
    wire = MemoryConnection(Kit())
    wire.transport.peerAddr = peer
    wire.send(get(b"/wait", b"X-Forwarded-For: 198.51.100.1"))
    request = wire.kit.waiting[0]
    assert request.client_address == client
    wire.connection.abort()
    assert request.client_info.address == client, "also after its end"


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls", "own-tls"])
@pytest_twisted.ensureDeferred
async def test_the_client_is_known_when_its_connection_is_lost(kind, tmp_path):
    lines = StringIO()
    server = ListeningServer(Kit(), kind, tmp_path, access_log=AccessLog(lines))
    try:
        peer = await server.connect()
        peer.transport.write(get(b"/wait", b"X-Forwarded-For: 198.51.100.1"))
        await until(lambda: server.kit.waiting)
        peer.transport.abortConnection()
        await until(lambda: server.kit.events)
    finally:
        await server.close()
    assert lines.getvalue().endswith(' 499 - "-" "-" "198.51.100.1"\n')
    assert lines.getvalue().startswith("- - - [" if kind == "unix" else "127.0.0.1 - - [")


def test_each_request_of_a_connection_has_its_own_client():
    wire = MemoryConnection(Kit())
    for field in (b"X-Forwarded-For: 198.51.100.1", b"X-A: b", b"X-Forwarded-For: 198.51.100.2"):
        wire.send(get(b"/wait", field))
        wire.kit.waiting[-1].finish()
    addresses = [request.client_address for request in wire.kit.waiting]
    assert addresses == ["198.51.100.1", "192.168.1.1", "198.51.100.2"]


def test_ignored_headers_are_a_warning_once_an_hour():
    wire, warnings = MemoryConnection(Kit(), limits=Limits(idle_seconds=10**6)), []

    def observe(event):
        if event["log_level"] is LogLevel.warn:
            warnings.append(eventAsText(event))

    wire.transport.peerAddr = IPv4Address("TCP", "192.0.2.1", 1)
    globalLogPublisher.addObserver(observe)
    try:
        for expected in (1, 1, 1, 2):
            wire.send(get(b"/wait", b"X-Forwarded-Proto: https"))
            request = wire.kit.waiting.pop()
            assert request.client_address == "192.0.2.1"
            request.finish()
            assert len(warnings) == expected
            wire.clock.advance(1200)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert "headers are ignored: peer=192.0.2.1; if it is a proxy, add it to" in warnings[0]


def connect_by_haproxy(peer, **options):
    """Return a connection to an endpoint with the PROXY protocol, and its kit."""
    memory, kit = MemoryReactorClock(), Kit()
    site = MemoryConnection(kit, **options).site
    serverFromString(memory, "haproxy:tcp:5000").listen(site)
    protocol = memory.tcpServers[0][1].buildProtocol(None)
    protocol.makeConnection(MemoryTransport(peerAddress=peer))
    protocol.dataReceived(b"PROXY TCP4 198.51.100.1 10.0.0.9 999 80\r\n")
    return protocol, kit


@pytest.mark.parametrize(
    ("peer", "client"), [("10.0.0.1", "198.51.100.1"), ("192.0.2.1", "192.0.2.1")]
)
def test_the_proxy_protocol_is_believed_from_trusted_proxies_only(peer, client):
    protocol, kit = connect_by_haproxy(IPv4Address("TCP", peer, 1))
    protocol.dataReceived(get(b"/wait"))
    protocol.dataReceived(get(b"/wait", b"X-Forwarded-For: 203.0.113.9"))
    for request in kit.waiting:
        assert (request.client_info.address, request.client_info.peer) == (client, peer)
    kit.waiting[0].finish()
    assert kit.waiting[1].client_address == client, "the client of the proxy is not trusted"
