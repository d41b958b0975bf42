"""Addresses: HOST:PORT, socket paths and endpoint strings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from twisted_registry.config.http import parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "endpoint"),
    [
        (":5000", "", 5000, "tcp:5000"),
        ("127.0.0.1:0", "127.0.0.1", 0, "tcp:0:interface=127.0.0.1"),
        ("localhost:5000", "localhost", 5000, "tcp:5000:interface=localhost"),
        ("registry.example:443", "registry.example", 443, "tcp:443:interface=registry.example"),
        ("[::1]:5000", "::1", 5000, r"tcp6:5000:interface=\:\:1"),
        ("tcp:5000:interface=127.0.0.1", "127.0.0.1", 5000, "tcp:5000:interface=127.0.0.1"),
        (r"tcp6:80:interface=\:\:1", "::1", 80, r"tcp6:80:interface=\:\:1"),
        ("tcp:port=80", "", 80, "tcp:port=80"),
    ],
)
def test_tcp_addresses(text: str, host: str, port: int, endpoint: str):
    address = parse_address(text)
    assert (address.host, address.port, address.endpoint) == (host, port, endpoint)
    assert address.text == text
    assert address.path == ""
    assert address.dual_stack == (text == ":5000")


def test_socket_paths():
    address = parse_address("/run/a:b=c.sock", unix=True)
    assert (address.path, address.port) == ("/run/a:b=c.sock", None)
    assert address.endpoint == r"unix:/run/a\:b\=c.sock"
    assert parse_address("unix:/run/x.sock:mode=660").path == "/run/x.sock"
    assert parse_address("unix:address=/run/x.sock").path == "/run/x.sock"


@pytest.mark.parametrize(
    "text",
    ["systemd:domain=INET:index=0", "systemd:domain=UNIX:name=http", "haproxy:tcp:5000"],
)
def test_other_endpoint_strings_are_kept(text: str):
    address = parse_address(text)
    assert (address.endpoint, address.port, address.path) == (text, None, "")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5000", "localhost", "localhost:http", ":65536", ":-1", ":", "a:5 ", "::1:5000",
        "[::1]", "[x]:1", "a b:1", "/run/x.sock", "tcp:", "tcp:x", "tcp:99999", "tcp:5000:6000",
        "tcp:5000:iface=a", "unix:", "unix:mode=660", "systemd:domain=INET", "systemd:index=x",
        "tcp:5000:interface=a\n", ":٣", "unix:/a\\",
        "http://127.0.0.1:5001", "tcp://:5000",
    ],
)  # fmt: skip
def test_invalid_addresses_raise_value_error(text: str):
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize(
    "text", [":5000", "127.0.0.1:5000", "[::1]:5000", "unix:/run/x.sock", "tcp6:80"]
)
def test_twisted_parses_the_endpoint_string(text: str):
    assert serverFromString(MemoryReactorClock(), parse_address(text).endpoint) is not None


@given(st.text(alphabet=st.sampled_from("/a:=\\ b."), min_size=1))
@settings(deadline=None)
def test_twisted_listens_on_the_path_of_the_address(tail: str):
    path = f"/{tail}"
    reactor = MemoryReactorClock()
    serverFromString(reactor, parse_address(path, unix=True).endpoint).listen(Factory())
    assert reactor.unixServers[0][0] == path


@given(st.text(), st.booleans())
@settings(deadline=None)
def test_any_text_is_an_address_or_raises_value_error(text: str, unix: bool):
    try:
        address = parse_address(text, unix=unix)
    except ValueError:
        return
    assert address.text == text
