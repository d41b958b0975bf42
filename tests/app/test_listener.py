"""The addresses that are listened on, and what people are told of them."""

from __future__ import annotations

import socket

import pytest
from twisted.internet import reactor
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from zope.interface.verify import verifyObject

from twisted_registry.app.errors import StartError
from twisted_registry.app.listener import TCPEndpoint, describe_address, make_endpoint


@pytest.mark.parametrize(
    ("address", "shown", "host"),
    [
        (IPv4Address("TCP", "192.0.2.1", 80), "http://192.0.2.1:80", "192.0.2.1:80"),
        (IPv4Address("TCP", "0.0.0.0", 5000), "http://0.0.0.0:5000", "127.0.0.1:5000"),
        (IPv6Address("TCP", "::", 5000), "http://[::]:5000", "[::1]:5000"),
        (IPv6Address("TCP", "::1", 5000), "http://[::1]:5000", "[::1]:5000"),
        (UNIXAddress(b"/run/r.sock"), "unix socket /run/r.sock", ""),
        (HostnameAddress(b"x", 1), str(HostnameAddress(b"x", 1)), ""),
    ],
)
def test_addresses_for_people(address, shown, host):
    assert describe_address(address) == (shown, host)


def test_a_burst_of_connections_can_wait():
    """Nobody accepts, since the reactor has no turn; a second attempt would take a second."""
    ports = []
    TCPEndpoint(reactor, 0, "127.0.0.1").listen(Factory()).addCallback(ports.append)
    (port,) = ports
    clients = [socket.socket() for _ in range(100)]
    try:
        for client in clients:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", port.getHost().port))
    finally:
        for client in clients:
            client.close()
        port.stopListening()


def test_endpoints(tmp_path):
    endpoint = make_endpoint(reactor, "tcp:0:interface=127.0.0.1", "", {})
    verifyObject(IStreamServerEndpoint, endpoint)
    path = tmp_path / "sock"
    for environ in ({}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1"}):
        endpoint = make_endpoint(reactor, f"unix:{path}", str(path), environ)
        assert not isinstance(endpoint, AdoptedStreamServerEndpoint)
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file is there, and no socket"):
        make_endpoint(reactor, "", str(tmp_path / "file"), {})
    with pytest.raises(StartError, match="Not a directory"):
        make_endpoint(reactor, "", str(tmp_path / "file/sock"), {})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    make_endpoint(reactor, f"unix:{path}", str(path), {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("description", "is_ours"),
    [
        ("tcp:0", True),
        ("tcp:5000:interface=127.0.0.1", True),
        ("tcp:5000:interface=", True),
        (r"tcp:5000:interface=a\:b\\c", True),
        ("tcp6:5000", True),
        (r"tcp6:5000:interface=\:\:1", True),
        ("tcp:5000:backlog=5", False),
        ("tcp:5000:interface=127.0.0.1:backlog=5", False),
        ("tcp:port=5000", False),
    ],
)
def test_our_way_of_listening_is_that_of_twisted(description, is_ours):
    ours, twisteds = MemoryReactor(), MemoryReactor()
    factory = Factory()
    endpoint = make_endpoint(ours, description, "", {})
    assert isinstance(endpoint, TCPEndpoint) is is_ours
    done = []
    endpoint.listen(factory).addCallback(done.append)
    serverFromString(twisteds, description).listen(factory).addCallback(done.append)
    (port, given, backlog, interface), (expected,) = *ours.tcpServers, twisteds.tcpServers
    assert (port, given, interface) == (expected[0], expected[1], expected[3])
    # All but how many may wait.
    assert backlog == expected[2] or (is_ours and backlog > expected[2])
    assert str(done[0].getHost()) == str(done[1].getHost())
