"""Servers and clients for tests of the HTTP engine: in memory and on sockets, with raw bytes."""

from pathlib import Path

from attrs import define, field
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport

from tests.http.resources import RootResource, Sink
from tests.support.certificates import Authority
from tests.support.self_signed import self_signed
from twisted_registry.http.site import HTTPSite
from twisted_registry.tls.context import TLSOptions, make_context
from twisted_registry.tls.endpoint import TLSConnectionCreator, TLSEndpoint
from twisted_registry.tls.interfaces import CertificateBundle

HOST = b"Host: x\r\n"
MIB = 1024 * 1024
#: 8 MiB. The period is a prime, so that no piece looks like another.
FILE_CONTENT = (bytes(range(251)) * (8 * MIB // 251 + 1))[: 8 * MIB]


def get(path=b"/", *fields, method=b"GET", version=b"HTTP/1.1"):
    """A request without a body."""
    head = [method + b" " + path + b" " + version]
    if version == b"HTTP/1.1":
        head.append(b"Host: x")
    return b"\r\n".join([*head, *fields]) + b"\r\n\r\n"


def put(path, body, *fields, method=b"PUT"):
    """A request with a body of known length."""
    return get(path, b"Content-Length: %d" % len(body), *fields, method=method) + body


def chunks(path, *pieces, tail=b"0\r\n\r\n"):
    """A request with a chunked body."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return get(path, b"Transfer-Encoding: chunked", method=b"PUT") + framed + tail


LAST = get(b"/last", b"Connection: close")


@define(eq=False, slots=False)
class Kit:
    """Options of a Resource tree, and a record of what happened in it.

    :ivar waiting: requests that were received and not answered.
    :ivar sinks: consumers of bodies.
    :ivar events: how requests ended: "finished", or the name of an exception.
    :ivar failures: names of exceptions with which bodies and files failed.
    :ivar file: the path of the file that ``/file`` sends.
    :ivar sending: the Deferred of that file.
    """

    waiting: list = field(factory=list)
    sinks: list = field(factory=list)
    events: list = field(factory=list)
    failures: list = field(factory=list)
    file: object = None
    on_write: object = None
    sink: type[Sink] = Sink
    sending: object = None

    def failed(self, reason):
        self.failures.append(reason.type.__name__)

    def tree(self):
        return RootResource(self)


class MemoryTransport(StringTransport):
    """A transport whose ``aborting`` says whether the connection was reset."""

    protocol = None

    def abortConnection(self):
        self.aborting = True
        self.disconnecting = True

    aborting = False


class MemoryConnection:
    """A server's connection without a network, on a Clock."""

    def __init__(self, kit, **options):
        self.kit = kit
        self.clock = Clock()
        self.site = HTTPSite(kit.tree(), self.clock, **options)
        self.transport = MemoryTransport()
        self.connection = self.site.buildProtocol(None)
        self.connection.makeConnection(self.transport)

    def send(self, data, cut=None):
        for piece in [data] if cut is None else cut(data):
            self.connection.dataReceived(piece)
        self.clock.advance(0)

    def sent(self):
        """Return what was sent since the last call."""
        value = self.transport.value()
        self.transport.clear()
        return value

    def lose(self, reason):
        self.connection.connectionLost(reason)


class Peer(Protocol):
    """The client's end of a connection on a socket."""

    def __init__(self):
        self.data = bytearray()
        self.closed = False
        self.reason = None
        self.waiters = []

    def dataReceived(self, data):
        self.data += data
        self.check()

    def connectionLost(self, reason):
        self.closed = True
        self.reason = reason
        self.check()

    def check(self):
        for waiter in list(self.waiters):
            predicate, done = waiter
            if self.closed or predicate(self.data):
                self.waiters.remove(waiter)
                done.callback(bytes(self.data))

    def until(self, wanted):
        """Fire with everything received once ``wanted`` is in it, or when the connection is lost.

        :param wanted: bytes, or a predicate of the received bytes.
        """
        predicate = wanted if callable(wanted) else (lambda data: wanted in data)
        done = Deferred()
        self.waiters.append((predicate, done))
        self.check()
        return done

    def end(self):
        return self.until(lambda _: False)


def listen_tls(factory):
    """Listen with the registry's own TLS transport."""
    issued = Authority().issue("localhost")
    context = make_context(CertificateBundle(issued.certificate, issued.key), TLSOptions())
    below = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    ports = []
    TLSEndpoint(reactor, below, TLSConnectionCreator(context)).listen(factory).addCallback(
        ports.append
    )
    return ports[0]


class ListeningServer:
    """A site on a socket.

    :param kind: ``tcp``, ``unix``, ``tls`` for Twisted's TLS, or ``own-tls`` for the registry's.
    """

    def __init__(self, kit, kind, folder, **options):
        self.kit = kit
        self.peers = []
        self.site = HTTPSite(kit.tree(), reactor, **options)
        if kind == "unix":
            path = str(folder / "socket")
            self.port = reactor.listenUNIX(path, self.site)
            self.endpoint = UNIXClientEndpoint(reactor, path)
        elif kind in {"tls", "own-tls"}:
            if kind == "tls":
                self.port = reactor.listenSSL(
                    0, self.site, self_signed().options(), interface="127.0.0.1"
                )
            else:
                self.port = listen_tls(self.site)
            self.endpoint = wrapClientTLS(
                ssl.CertificateOptions(),
                TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port),
            )
        else:
            self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
            self.endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)

    async def connect(self):
        peer = await self.endpoint.connect(Factory.forProtocol(Peer))
        self.peers.append(peer)
        return peer

    async def connect_paused(self):
        """Connect a client that reads nothing until it is resumed, after its TLS handshake."""
        peer = await self.connect()
        peer.transport.write(get(b"/ready"))
        await peer.until(b"\r\n\r\nready")
        peer.data.clear()
        peer.transport.pauseProducing()
        return peer

    async def exchange(self, data):
        """Return everything that is received until the server closes."""
        peer = await self.connect()
        peer.transport.write(data)
        return await peer.end()

    async def close(self):
        """Close the port and both ends of all connections."""
        await self.port.stopListening()
        self.site.abort()
        for peer in self.peers:
            if not peer.closed:
                peer.transport.abortConnection()
        await until(lambda: not self.site.connections and all(each.closed for each in self.peers))


async def until(condition):
    """Let the reactor run until a condition holds. The timeout of the test is the limit."""
    while not condition():
        await deferLater(reactor, 0.001)


def open_descriptors():
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def ask(wire, data):
    wire.send(data)
    return wire.sent()


def bodies(responses):
    """The bodies of responses that all have a Content-Length."""
    found = []
    while responses:
        head, _, rest = responses.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        found.append(rest[:length])
        responses = rest[length:]
    return found


def is_error_response(response, status):
    """Whether this is an error without a Resource, after which the connection closes."""
    head, _, body = response.partition(b"\r\n\r\n")
    return (
        head.startswith(b"HTTP/1.1 %d " % status)
        and b"Connection: close" in head
        and b"Content-Type: text/plain" in head
        and body.startswith(b"%d " % status)
    )


def unchunked(body):
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        content += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return content
