"""The proxy variables of the environment, and requests through a proxy."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests.storage.s3.fake_agent import CREDENTIALS
from tests.storage.s3.scripted_server import Store, answer
from tests.support.self_signed import self_signed
from twisted_registry.http.client_proxies import Proxy, ProxyInvalid, find_proxy
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.errors import Unreachable
from twisted_registry.storage.s3.sender import Backoff, Sender
from twisted_registry.storage.s3.transport import Timeouts, make_transport

BOTH = {"HTTP_PROXY": "http://plain:3128", "HTTPS_PROXY": "http://secure:3129"}


@pytest.mark.parametrize(
    ("environ", "scheme", "expected"),
    [
        ({}, "https", None),
        (BOTH, "http", Proxy("plain", 3128, tunnels=False)),
        (BOTH, "https", Proxy("secure", 3129)),
        ({"http_proxy": "plain"}, "http", Proxy("plain", 80, tunnels=False)),
        ({"http_proxy": "plain"}, "https", None),
        ({"https_proxy": "a:1", "HTTPS_PROXY": "b:2"}, "https", Proxy("b", 2)),
        (
            {"HTTP_PROXY": "http://me:a%40b@p:1/"},
            "http",
            Proxy("p", 1, "Basic bWU6YUBi", tunnels=False),
        ),
        ({"HTTP_PROXY": "[::1]:8"}, "http", Proxy("::1", 8, tunnels=False)),
    ],
)
def test_proxy_is_chosen_by_scheme(environ, scheme, expected):
    assert find_proxy(environ, scheme, "images.example") == expected


@pytest.mark.parametrize(
    ("rules", "netloc", "direct"),
    [
        ("*", "s3.example", True),
        ("s3.example", "s3.example", True),
        ("example", "s3.example", True),
        (" other , .example ", "s3.example", True),
        (".example", "example", False),
        ("*.example", "s3.example", True),
        ("*.example", "example", False),
        ("ample", "s3.example", False),
        ("S3.Example", "s3.example", True),
        ("s3.example:80", "s3.example", True),
        ("s3.example:8080", "s3.example", False),
        ("s3.example:8080", "s3.example:8080", True),
        ("10.0.0.0/8", "10.1.2.3:7480", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "[fd00::1]:7480", True),
        (", ,", "s3.example", False),
        ("", "127.0.0.1:7480", True),
        ("", "[::1]:7480", True),
        ("", "localhost", True),
    ],
)
def test_no_proxy_rules_select_direct_connections(rules, netloc, direct):
    environ = {**BOTH, "NO_PROXY": rules}
    assert (find_proxy(environ, "http", netloc) is None) == direct


@pytest.mark.parametrize(
    "value", ["socks5://p:1", "https://p:1", "http://", "http://p:x", "p:99999"]
)
def test_invalid_proxy_is_reported_without_its_password(value):
    value = value.replace("//p", "//me:secret@p")
    with pytest.raises(ProxyInvalid, match=r"^HTTP_PROXY is not a supported proxy") as caught:
        find_proxy({"HTTP_PROXY": value}, "http", "images.example")
    assert "secret" not in str(caught.value)


def test_repr_of_a_proxy_has_no_password():
    assert "hush" not in repr(Proxy("p", 1, "Basic hush"))


class Tunnelling(Protocol):
    """A proxy that connects to a local port, whatever host is requested."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.far = None
        self.lost = Deferred()

    def connectionMade(self):
        self.proxy.connections.append(self)

    def connectionLost(self, reason):
        if self.far is not None:
            self.far.transport.loseConnection()
        self.lost.callback(None)

    def dataReceived(self, data):
        if self.far is not None:
            self.far.transport.write(data)
            return
        self.proxy.asked.append(data)
        if self.proxy.says is not None:
            self.transport.write(self.proxy.says)
            self.transport.loseConnection()
            return
        self.transport.pauseProducing()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        factory = Factory.forProtocol(Far)
        factory.noisy = False
        endpoint.connect(factory).addCallback(self.join)

    def join(self, far):
        self.far, far.near = far, self
        self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.transport.resumeProducing()


class Far(Protocol):
    near = None

    def dataReceived(self, data):
        self.near.transport.write(data)


class TunnellingFactory(Factory):
    noisy = False

    def __init__(self, port=0, says=None):
        self.port, self.says = port, says
        self.asked, self.connections = [], []

    def buildProtocol(self, addr):
        return Tunnelling(self)


def client_through(url, proxy_port):
    address = endpoint_address("images", url)
    proxy = Proxy("127.0.0.1", proxy_port, "Basic b25l", tunnels=address.scheme == "https")
    transport = make_transport(
        reactor, verify=False, timeouts=Timeouts(connect_s=5, response_s=5, idle_s=5), proxy=proxy,
    )  # fmt: skip
    backoff = Backoff(attempts=1)
    return S3Client(Sender(reactor, transport, address, CREDENTIALS, "tests/1", backoff))


def lines_of_factories(log_lines):
    return [line for line in log_lines if line.startswith(("Starting", "Stopping"))]


async def whole(client):
    body = await client.get_object("a")
    return await body.collect(10)


@pytest_twisted.ensureDeferred
async def test_http_requests_are_sent_whole_to_the_proxy(log_lines):
    proxy = Store()
    proxy.scripts = [answer(body=b"one"), answer(body=b"two")]
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    client = client_through("http://store.example:7480", port.getHost().port)
    assert [await whole(client), await whole(client)] == [b"one", b"two"]
    await client.close()
    await port.stopListening()
    line, fields, _ = proxy.requests[0]
    assert line == "GET http://store.example:7480/images/a HTTP/1.1"
    assert fields[b"host"] == b"store.example:7480"
    assert fields[b"proxy-authorization"] == b"basic b25l"
    assert b"proxy-authorization" not in fields[b"authorization"]
    assert len(proxy.connections) == 1
    await proxy.connections[0].lost
    assert lines_of_factories(log_lines) == []


@pytest_twisted.ensureDeferred
async def test_https_requests_use_a_tunnel(log_lines):
    store = Store()
    store.scripts = [answer(body=b"one"), answer(body=b"two")]
    far = reactor.listenSSL(0, store, self_signed().options(), interface="127.0.0.1")
    proxy = TunnellingFactory(far.getHost().port)
    near = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    client = client_through("https://store.example", near.getHost().port)
    assert [await whole(client), await whole(client)] == [b"one", b"two"]
    await client.close()
    assert [request[0] for request in store.requests] == ["GET /images/a HTTP/1.1"] * 2
    (asked,) = proxy.asked
    assert asked == (
        b"CONNECT store.example:443 HTTP/1.1\r\nHost: store.example:443\r\n"
        b"Proxy-Authorization: Basic b25l\r\n\r\n"
    )
    for connection in (*proxy.connections, *store.connections):
        await connection.lost
    await near.stopListening()
    await far.stopListening()
    assert lines_of_factories(log_lines) == []


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Auth"),
        (b"HTTP/1.1", "proxy closed the connection"),
        (b"x" * 20_000, "does not answer with HTTP"),
        (b"nonsense\r\n\r\n", "refuses the connection"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_proxy_that_refuses_a_tunnel_is_unreachable(says, told):
    proxy = TunnellingFactory(says=says)
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    client = client_through("https://store.example", port.getHost().port)
    with pytest.raises(Unreachable, match=told):
        await whole(client)
    await client.close()
    for connection in proxy.connections:
        await connection.lost
    await port.stopListening()
