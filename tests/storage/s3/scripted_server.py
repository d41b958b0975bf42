"""An HTTP server on loopback that runs a script for each request."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol


class Script:
    """What to do with a request.

    :ivar act: called with the connection.
    :ivar early: whether to call it when the head has arrived, before the body.
    """

    def __init__(self, act, *, early=False):
        self.act = act
        self.early = early


def answer(status=200, body=b"", headers="", length=None, then=None):
    """Send a response, optionally with a wrong length, then optionally close."""

    def act(connection):
        size = len(body) if length is None else length
        announced = "" if size == "none" else f"Content-Length: {size}\r\n"
        head = f"HTTP/1.1 {status} X\r\n{announced}{headers}\r\n"
        connection.transport.write(head.encode() + body)
        if then == "abortConnection":
            # The written data must be sent before.
            reactor.callLater(0.02, connection.transport.abortConnection)
        elif then is not None:
            connection.transport.loseConnection()

    return Script(act)


def silence():
    return Script(lambda _: None)


def drop(*, early=False):
    return Script(lambda connection: connection.transport.abortConnection(), early=early)


class Connection(Protocol):
    """Parses requests, and runs the next script for each."""

    def __init__(self, store):
        self.store = store
        self.lost = Deferred()
        self._received = bytearray()
        self._head = None
        self._script = None

    def connectionMade(self):
        self.store.connections.append(self)

    def connectionLost(self, reason):
        self.lost.callback(None)

    def dataReceived(self, data):
        self._received += data
        while True:
            if self._head is None:
                head, end, rest = bytes(self._received).partition(b"\r\n\r\n")
                if not end:
                    return
                line, *fields = head.split(b"\r\n")
                self._head = line.decode(), dict(field.lower().split(b": ", 1) for field in fields)
                self._received = bytearray(rest)
                self._script = self.store.scripts.pop(0)
                if self._script.early:
                    self._script.act(self)
            size = int(self._head[1].get(b"content-length", 0))
            if len(self._received) < size:
                return
            (line, fields), self._head = self._head, None
            self.store.requests.append((line, fields, bytes(self._received[:size])))
            del self._received[:size]
            if not self._script.early:
                self._script.act(self)


class Store(Factory):
    """The server.

    :ivar scripts: for the next requests.
    :ivar requests: received requests: request line, headers, body.
    """

    noisy = False

    def __init__(self):
        self.scripts = []
        self.requests = []
        self.connections = []

    def buildProtocol(self, addr):
        return Connection(self)
