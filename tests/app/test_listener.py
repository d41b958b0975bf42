"""Endpoints of addresses, and their description in the log."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from zope.interface.verify import verifyObject

from twisted_registry.app.listener import describe_address, make_endpoint
from twisted_registry.config.http import Address, parse_address
from twisted_registry.frame.errors import StartError


@pytest.mark.parametrize(
    ("address", "text", "host"),
    [
        (IPv4Address("TCP", "192.0.2.1", 80), "http://192.0.2.1:80", "192.0.2.1:80"),
        (IPv4Address("TCP", "0.0.0.0", 5000), "http://0.0.0.0:5000", "127.0.0.1:5000"),
        (IPv6Address("TCP", "::", 5000), "http://[::]:5000", "localhost:5000"),
        (IPv6Address("TCP", "::1", 5000), "http://[::1]:5000", "[::1]:5000"),
        (UNIXAddress(b"/run/r.sock"), "unix socket /run/r.sock", ""),
        (HostnameAddress(b"x", 1), str(HostnameAddress(b"x", 1)), ""),
    ],
)
def test_describe_address(address, text, host):
    assert describe_address(address) == (text, host)


def test_a_burst_of_connections_waits_in_the_backlog():
    """The reactor does not run, so none is accepted; a client would retry after a second."""
    ports = []
    endpoint = make_endpoint(parse_address("127.0.0.1:0"), reactor, {})
    endpoint.listen(Factory()).addCallback(ports.append)
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


ANY_ADDRESS = parse_address(":0")


def can_connect(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(5)
        return client.connect_ex((host, port)) == 0


@pytest_twisted.ensureDeferred
async def test_a_port_without_host_is_on_ipv4_and_ipv6():
    endpoint = make_endpoint(ANY_ADDRESS, reactor, {})
    verifyObject(IStreamServerEndpoint, endpoint)
    port = await endpoint.listen(Factory())
    try:
        number = port.getHost().port
        assert port.getHost() == IPv6Address("TCP", "::", number)
        assert can_connect("127.0.0.1", number)
        assert can_connect("::1", number)
        with pytest.raises(CannotListenError, match="in use"):
            await make_endpoint(parse_address(f":{number}"), reactor, {}).listen(Factory())
    finally:
        await port.stopListening()


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL])
@pytest_twisted.ensureDeferred
async def test_a_port_without_host_is_on_ipv4_if_the_machine_has_no_ipv6(monkeypatch, number):
    class WithoutIPv6(socket.socket):
        def __init__(self, family=socket.AF_INET, *more, **named):
            if family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().__init__(family, *more, **named)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    port = await make_endpoint(ANY_ADDRESS, reactor, {}).listen(Factory())
    monkeypatch.undo()
    try:
        assert port.getHost() == IPv4Address("TCP", "0.0.0.0", port.getHost().port)
        assert can_connect("127.0.0.1", port.getHost().port)
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_other_failures_of_the_dual_stack_socket_are_no_reason_for_ipv4(monkeypatch):
    class Exhausted(socket.socket):
        def __init__(self, family=socket.AF_INET, *more, **named):
            if family == socket.AF_INET6:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            super().__init__(family, *more, **named)

    monkeypatch.setattr(socket, "socket", Exhausted)
    with pytest.raises(CannotListenError, match="Too many open files"):
        await make_endpoint(ANY_ADDRESS, reactor, {}).listen(Factory())


def unix_endpoint(path, environ=None):
    return make_endpoint(parse_address(str(path), unix=True), reactor, environ or {})


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1"}]
)
def test_variables_of_systemd_for_other_processes_are_ignored(tmp_path, environ):
    endpoint = unix_endpoint(tmp_path / "sock", environ)
    assert not isinstance(endpoint, AdoptedStreamServerEndpoint)


def test_a_file_that_is_not_a_socket_is_kept(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(StartError, match="file exists, and is not a socket"):
        unix_endpoint(path)
    with pytest.raises(StartError, match="Not a directory"):
        unix_endpoint(path / "sock")
    assert path.exists()


def test_a_stale_socket_is_removed(tmp_path):
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    unix_endpoint(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("description", "has_large_backlog"),
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
def test_a_tcp_endpoint_is_that_of_twisted_with_a_larger_backlog(description, has_large_backlog):
    reactors = MemoryReactor(), MemoryReactor()
    factory, ports = Factory(), []
    endpoint = make_endpoint(Address(description, description), reactors[0], {})
    verifyObject(IStreamServerEndpoint, endpoint)
    endpoint.listen(factory).addCallback(ports.append)
    serverFromString(reactors[1], description).listen(factory).addCallback(ports.append)
    (port, _, backlog, interface), (expected,) = *reactors[0].tcpServers, reactors[1].tcpServers
    assert (port, interface) == (expected[0], expected[3])
    assert backlog > expected[2] if has_large_backlog else backlog == expected[2]
    assert str(ports[0].getHost()) == str(ports[1].getHost())
