"""A site to ask questions of, and a client that speaks raw bytes."""

import json
import os

from attrs import define, field
from certificates import Authority
from selfsigned import self_signed
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import CACHED
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory
from zope.interface import implementer

from twisted_registry.api.interfaces import IStreamingResource
from twisted_registry.api.site import RegistrySite
from twisted_registry.tls.context import Terms, make_context
from twisted_registry.tls.endpoint import Switch, TLSEndpoint
from twisted_registry.tls.material import Material

HOST = b"Host: x\r\n"


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


@define(eq=False)
class Sink:
    """Takes a body as it comes."""

    received: bytearray = field(factory=bytearray)
    pieces: int = 0
    on_write: object = None

    def write(self, piece):
        self.received += piece
        self.pieces += 1
        if self.on_write is not None:
            self.on_write(self, piece)


class Plain(Resource):
    """An ordinary Resource: knows nothing of our channel."""

    isLeaf = True

    def __init__(self, kit):
        super().__init__()
        self.kit = kit

    def render(self, request):
        name = request.path.strip(b"/").decode() or "root"
        return getattr(self, "on_" + name.partition("/")[0], self.on_other)(request)

    def on_other(self, request):
        return request.path[1:] + request.content.read()

    def on_empty(self, request):
        return b""

    def on_inspect(self, request):
        parts = (
            request.method,
            request.args,
            request.getHeader("x-one"),
            request.requestHeaders.getRawHeaders(b"x-one"),
            request.getCookie(b"c"),
            request.getRequestHostname(),
            request.prepath,
            request.postpath,
            request.isSecure(),
        )
        return repr(parts).encode()

    def on_producing(self, request):
        """Raises after a producer has been registered, before anything was written."""
        request.registerProducer(self, True)
        raise ValueError("the secret word")

    def on_gone(self, request):
        self.kit.wire.lose(Failure(ConnectionLost()))
        raise ValueError

    def on_cookie(self, request):
        request.addCookie(b"k", b"v")
        return b"cookie"

    def on_redirect(self, request):
        request.redirect(b"/elsewhere")
        return b""

    def on_etag(self, request):
        return b"" if request.setETag(b'"e"') is CACHED else b"entity"

    def on_modified(self, request):
        return b"" if request.setLastModified(1000) is CACHED else b"entity"

    def on_nothing(self, request):
        request.setResponseCode(204)
        return b""

    def on_pieces(self, request):
        request.write(b"ab")
        request.write(b"")
        request.write(b"cd")
        request.finish()
        return NOT_DONE_YET

    def on_boom(self, request):
        request.setHeader(b"X-Secret", b"1")
        raise ValueError("the secret word")

    def on_late_boom(self, request):
        request.write(b"begun")
        raise ValueError("the secret word")

    def on_short(self, request):
        request.setHeader(b"Content-Length", b"10")
        request.write(b"short")
        request.finish()
        return NOT_DONE_YET

    def on_long(self, request):
        request.setHeader(b"Content-Length", b"2")
        request.write(b"too long")
        request.finish()
        return NOT_DONE_YET

    def on_inject(self, request):
        request.setHeader(b"X-A", b"a\r\nX-B: b")
        request.setResponseCode(200, b"OK\r\nX-C: c")
        request.addCookie(b"k", b"v\r\nX-D: d")
        return b"injected"

    def on_closing(self, request):
        request.setHeader(b"Connection", b"close")
        return b"bye"

    def on_wait(self, request):
        """Answers when the test says so."""
        self.kit.waiting.append(request)
        request.notifyFinish().addCallbacks(
            lambda _: self.kit.events.append("finished"),
            lambda reason: self.kit.events.append(reason.type.__name__),
        )
        return NOT_DONE_YET

    def on_whole(self, request):
        """Answers in one piece, with fields that are ready."""
        status = int(request.args.get(b"status", [b"200"])[0])
        length = request.args.get(b"length")
        request.sendWhole(
            status, b"X-Ready: 1\r\n", b"whole", None if length is None else int(length[0])
        )
        return NOT_DONE_YET

    def on_file(self, request):
        size = int(request.args.get(b"size", [b"0"])[0])
        offset = int(request.args.get(b"offset", [b"0"])[0])
        descriptor = os.open(self.kit.file, os.O_RDONLY)
        if self.kit.ready_head:
            sent = request.sendWholeFile(206, b"X-Ready: 1\r\n", descriptor, offset, size)
            if sent is not None:
                sent.addErrback(self.kit.failed)
        else:
            request.setHeader(b"Content-Length", b"%d" % size)
            sent = request.sendFile(descriptor, offset, size)
            sent.addCallbacks(lambda _: request.finish(), self.kit.failed)
        os.close(descriptor)
        self.kit.sending = sent
        return NOT_DONE_YET


@implementer(IStreamingResource)
class Streaming(Plain):
    """Sees a request before its body."""

    def on_take(self, request):
        sink = self.kit.sink(on_write=self.kit.on_write)
        self.kit.sinks.append(sink)
        self.kit.waiting.append(request)
        taken = request.body.startProducing(sink)

        def answer(_):
            body = b"%s %d %d" % (bytes(sink.received[:8]), len(sink.received), sink.pieces)
            request.setHeader(b"Content-Length", b"%d" % len(body))
            request.write(body)
            request.finish()

        taken.addCallbacks(answer, self.kit.failed)
        return NOT_DONE_YET

    def on_refuse(self, request):
        request.setResponseCode(401)
        return b"no"

    def on_length(self, request):
        return repr(request.body.length).encode()

    def on_other(self, request):
        return b"streaming"


@define(eq=False, slots=False)
class Kit:
    """A Resource tree and what happened in it."""

    waiting: list = field(factory=list)
    sinks: list = field(factory=list)
    events: list = field(factory=list)
    failures: list = field(factory=list)
    file: object = None
    on_write: object = None
    sink: type[Sink] = Sink
    sending: object = None
    ready_head: bool = False

    def failed(self, reason):
        self.failures.append(reason.type.__name__)

    def tree(self):
        return Forking(self)


class Forking(Resource):
    """``/s/...`` streams, all else does not."""

    def __init__(self, kit):
        super().__init__()
        self.kit = kit

    def getChild(self, name, request):
        if name == b"s":
            return Deeper(self.kit)
        if name == b"nowhere":
            raise ValueError("the secret word")
        if name == b"zip":
            return EncodingResourceWrapper(Plain(self.kit), [GzipEncoderFactory()])
        return Plain(self.kit)


class Deeper(Resource):
    def __init__(self, kit):
        super().__init__()
        self.kit = kit

    def getChild(self, name, request):
        request.path = b"/" + name
        return Streaming(self.kit)


class MemoryTransport(StringTransport):
    """Counts what is asked of the reading side."""

    protocol = None

    def abortConnection(self):
        self.aborting = True
        self.disconnecting = True

    aborting = False


class Memory:
    """A connection without a network, on a Clock."""

    def __init__(self, kit, **options):
        self.kit = kit
        self.clock = Clock()
        self.site = RegistrySite(kit.tree(), self.clock, **options)
        self.transport = MemoryTransport()
        self.channel = self.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def send(self, data, cut=None):
        for piece in [data] if cut is None else cut(data):
            self.channel.dataReceived(piece)
        self.clock.advance(0)

    def sent(self):
        """What came since the last time."""
        value = self.transport.value()
        self.transport.clear()
        return value

    def lose(self, reason):
        self.channel.connectionLost(reason)


class Peer(Protocol):
    """The client's end of a real connection."""

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
        """Fires with everything received when it holds ``wanted``, or when all is over."""
        predicate = wanted if callable(wanted) else (lambda data: wanted in data)
        done = Deferred()
        self.waiters.append((predicate, done))
        self.check()
        return done

    def end(self):
        return self.until(lambda _: False)


def listen_securely(reactor, factory):
    """A port of ours on which TLS is spoken."""
    issued = Authority().issue("localhost")
    context = make_context(Material(issued.certificate, issued.key), Terms())
    below = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    ports = []
    TLSEndpoint(reactor, below, Switch(context)).listen(factory).addCallback(ports.append)
    return ports[0]


class Listening:
    """A site on a real socket: ``tls`` is Twisted's, ``secure`` ours."""

    def __init__(self, reactor, kit, kind, folder, **options):
        self.kit = kit
        self.site = RegistrySite(kit.tree(), reactor, **options)
        if kind == "unix":
            path = str(folder / "socket")
            self.port = reactor.listenUNIX(path, self.site)
            self.endpoint = UNIXClientEndpoint(reactor, path)
        elif kind in {"tls", "secure"}:
            if kind == "tls":
                self.port = reactor.listenSSL(
                    0, self.site, self_signed().options(), interface="127.0.0.1"
                )
            else:
                self.port = listen_securely(reactor, self.site)
            self.endpoint = wrapClientTLS(
                ssl.CertificateOptions(),
                TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port),
            )
        else:
            self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
            self.endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)

    async def connect(self):
        return await self.endpoint.connect(Factory.forProtocol(Peer))

    async def connect_deaf(self):
        """A client that reads nothing for now; its TLS handshake is over."""
        peer = await self.connect()
        peer.transport.write(get(b"/ready"))
        await peer.until(b"\r\n\r\nready")
        peer.data.clear()
        peer.transport.pauseProducing()
        return peer

    async def exchange(self, data):
        """Everything that is answered until the server closes."""
        peer = await self.connect()
        peer.transport.write(data)
        return await peer.end()

    async def close(self):
        self.site.abort()
        await self.port.stopListening()


def ask(wire, data):
    wire.send(data)
    return wire.sent()


def bodies(answers):
    """The bodies of answers that all have a Content-Length."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        found.append(rest[:length])
        answers = rest[length:]
    return found


def is_refusal(answer, status):
    """A status, the registry's JSON, and the end of the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["errors"][0]
    return (
        head.startswith(b"HTTP/1.1 %d " % status)
        and b"Connection: close" in head
        and error["code"] == ("UNSUPPORTED" if status in {501, 505} else "UNKNOWN")
        and isinstance(error["message"], str)
    )


def unchunked(body):
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        content += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return content
