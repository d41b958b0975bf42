"""A site that serves one image from files, and TCP connections to it that a test reads itself.

No reactor takes part in a warm pull: the test passes the request to the protocol, and reads the
response from the other end of the socket.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, closing

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server

from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_root
from twisted_registry.http.site import HTTPSite
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.testing import Contents, build_image

BLOB = 64 * 1024 * b"x"
IMAGE = build_image(layers=[BLOB])


class SocketConnection:
    """A TCP connection to a site.

    :ivar protocol: the server's protocol; pass requests to its ``dataReceived``.
    """

    def __init__(self, site):
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.client = socket.create_connection(listener.getsockname())
            accepted, address = listener.accept()
        accepted.setblocking(False)
        self.client.setblocking(False)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * len(BLOB))
        self.protocol = site.buildProtocol(None)
        self.transport = Server(accepted, self.protocol, address, _Port, 0, reactor)
        self.protocol.makeConnection(self.transport)

    def receive(self):
        """Return the bytes that the site has sent."""
        data = b""
        while True:
            try:
                piece = self.client.recv(2**20)
            except BlockingIOError:
                return data
            if not piece:
                return data
            data += piece

    async def request(self, request, ending, interval=0.01):
        """Send a request, and wait for a response that ends with ``ending``.

        :param interval: seconds between two looks at the socket.
        """
        self.protocol.dataReceived(request)
        data = self.receive()
        while not data.endswith(ending):
            await deferLater(reactor, interval)
            data += self.receive()
        return data

    def close(self):
        self.client.close()
        self.transport.abortConnection()


class _Port:
    """The part of a listening port that a connection uses."""

    _realPortNumber = 0


@asynccontextmanager
async def serve_image(folder, access):
    """Serve the image ``a/b:latest`` from ``folder``, and open one connection to the site."""
    driver = FilesystemDriver(str(folder), reactor)
    registry = Registry(CheckedDriver(driver, reactor), reactor, pending_pulls=set())
    await Contents(registry).push_image("a/b:latest", IMAGE)
    await deferLater(reactor, 0.05)  # files that were written just now are not cached
    site = HTTPSite(make_root(RegistryResource(registry, access, reactor), ""), reactor)
    connection = SocketConnection(site)
    try:
        yield connection
    finally:
        connection.close()
        await driver.close()
