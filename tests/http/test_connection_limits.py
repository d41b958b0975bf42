"""Limits on connections: which ones are closed, and which are refused."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock

from tests.http.connection_kit import Kit, ListeningServer, MemoryTransport, get, put, until
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.proxies import TrustedProxies
from twisted_registry.http.site import HTTPSite


class Crowd:
    """Connections to a site in memory."""

    def __init__(self, proxies=None, **limits):
        self.kit, self.clock = Kit(), Clock()
        self.site = HTTPSite(self.kit.tree(), self.clock, Limits(**limits), trusted_proxies=proxies)

    def connect(self, address="192.0.2.1", data=b""):
        """Open a connection; one that is closed by the server ends with the next turn."""
        peer = address
        if isinstance(address, str):
            peer = (IPv6Address if ":" in address else IPv4Address)("TCP", address, 1)
        transport = MemoryTransport(peerAddress=peer)
        connection = self.site.buildProtocol(None)
        connection.makeConnection(transport)
        if data:
            connection.dataReceived(data)
        return connection

    def reap(self):
        """Report the end of the closed connections, as a reactor does; return them."""
        ended = [each for each in self.site.connections if each.transport.disconnecting]
        for connection in ended:
            connection.connectionLost()
        return ended


def is_refused(connection):
    return connection.transport.aborting


def test_the_connection_that_was_idle_for_longest_makes_room(log_lines):
    crowd = Crowd(connections=3, idle_seconds=1000)
    first, second, third = (crowd.connect() for _ in range(3))
    crowd.clock.advance(1)
    # The first one is used again, so the second one is idle for longest.
    first.dataReceived(get(b"/empty"))
    crowd.clock.advance(1)
    third.dataReceived(get(b"/empty"))
    fourth = crowd.connect()
    assert crowd.reap() == [second]
    fifth = crowd.connect()
    assert crowd.reap() == [first]
    assert not is_refused(fourth)
    assert not is_refused(fifth)
    fifth.dataReceived(get(b"/served"))
    assert b"served" in fifth.transport.value()
    assert log_lines.count(
        "too many connections: limit=3; those that were idle for longest are closed"
    ) == 1  # fmt: skip


def test_room_is_made_for_several_connections_at_once():
    crowd = Crowd(connections=320)
    for _ in range(320):
        crowd.connect()
    crowd.connect()
    assert len(crowd.reap()) == 10
    for _ in range(9):
        crowd.connect()
    assert crowd.reap() == []


def test_connections_that_are_leaving_are_not_counted_twice():
    crowd = Crowd(connections=4)
    for _ in range(4):
        crowd.connect()
    crowd.connect()
    crowd.connect()
    crowd.connect()
    assert len(crowd.reap()) == 3, "one for each new one"
    assert len(crowd.site.connections) == 4


@pytest.mark.parametrize(
    "data",
    [get(b"/wait"), put(b"/s/take", b"abc")[:-1], get(b"/s/wait", b"Content-Length: 5")],
    ids=["answered", "body", "body not read"],
)
def test_a_request_is_never_cut_off_for_a_new_connection(data, log_lines):
    crowd = Crowd(connections=2)
    busy = [crowd.connect(data=data) for _ in range(2)]
    refused = crowd.connect()
    assert is_refused(refused)
    assert crowd.reap() == [refused]
    assert not any(is_refused(each) for each in busy)
    assert "too many connections: limit=2; none is idle, so new ones are refused" in log_lines
    # When one of them is idle again, there is room.
    if crowd.kit.waiting and data == get(b"/wait"):
        crowd.kit.waiting[0].finish()
        crowd.clock.advance(1)
        assert not is_refused(crowd.connect())
        assert crowd.reap() == [busy[0]]


def test_connections_above_a_limit_are_reported():
    crowd, limits = Crowd(connections=2, connections_per_address=1), []
    crowd.site.on_limit = limits.append
    crowd.connect("192.0.2.1")
    crowd.connect("192.0.2.1")
    crowd.reap()
    crowd.connect("192.0.2.2")
    crowd.connect("192.0.2.3")
    assert limits == ["connections_per_address", "connections"]


def test_an_incomplete_head_does_not_protect_a_connection():
    crowd = Crowd(connections=2)
    old = crowd.connect(data=b"GET / HT")
    crowd.clock.advance(1)
    crowd.connect(data=b"G")
    crowd.connect()
    assert crowd.reap() == [old]


def test_one_address_cannot_have_all_connections(log_lines):
    crowd = Crowd(connections_per_address=2)
    first, second = (crowd.connect("192.0.2.1") for _ in range(2))
    other = crowd.connect("192.0.2.2")
    crowd.clock.advance(1)
    crowd.connect("192.0.2.1")
    assert crowd.reap() in ([first], [second])
    assert not is_refused(other)
    for connection in [each for each in crowd.site.connections if each is not other]:
        connection.dataReceived(get(b"/wait"))
    assert is_refused(crowd.connect("192.0.2.1"))
    assert not is_refused(crowd.connect("192.0.2.2"))
    assert any("too many connections of 192.0.2.1: limit=2; " in line for line in log_lines)


def test_the_addresses_of_one_ipv6_network_count_as_one():
    crowd = Crowd(connections_per_address=2)
    for host in ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"):
        crowd.connect(host, get(b"/wait"))
    assert is_refused(crowd.connect("2001:db8:0:1::3"))
    assert not is_refused(crowd.connect("2001:db8:0:2::3"))
    # An IPv4 client of a socket for both versions.
    for _ in range(2):
        assert not is_refused(crowd.connect("::ffff:192.0.2.1", get(b"/wait")))
    assert is_refused(crowd.connect("192.0.2.1"))


def test_unix_sockets_and_configured_proxies_have_no_limit():
    crowd = Crowd(TrustedProxies.parse(["10.0.0.1"]), connections_per_address=1)
    for _ in range(3):
        assert not is_refused(crowd.connect("10.0.0.1", get(b"/wait")))
        assert not is_refused(crowd.connect(UNIXAddress(None), get(b"/wait")))
    # Without configured proxies, the clients of a private network are limited like others.
    crowd = Crowd(connections_per_address=1)
    crowd.connect("10.0.0.1", get(b"/wait"))
    assert is_refused(crowd.connect("10.0.0.1"))
    assert not is_refused(crowd.connect(UNIXAddress(None)))


def test_closed_connections_are_forgotten():
    crowd = Crowd(connections=2, connections_per_address=2)
    for _ in range(5):
        for connection in [crowd.connect(data=get(b"/wait")) for _ in range(2)]:
            assert not is_refused(connection)
            connection.transport.loseConnection()
        crowd.reap()


@pytest.mark.parametrize("kind", ["tcp", "tls", "own-tls", "unix"])
@pytest_twisted.ensureDeferred
async def test_idle_connections_make_room_on_sockets(kind, tmp_path):
    server = ListeningServer(Kit(), kind, tmp_path, limits=Limits(connections=3))
    try:
        idle = [await server.connect() for _ in range(3)]
        for peer in idle:
            peer.transport.write(get(b"/ready"))
            await peer.until(b"ready")
        busy = await server.connect()
        busy.transport.write(get(b"/ready"))
        await busy.until(b"ready")
        await until(lambda: any(peer.closed for peer in idle))
        assert [peer.closed for peer in idle] == [True, False, False]
        assert len(server.site.connections) == 3
    finally:
        await server.close()
