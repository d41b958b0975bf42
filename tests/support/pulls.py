"""A registry that holds one image, and connections to it whose reads a test makes itself."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, closing

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server

from tests.support.http_client import digest_of, image
from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_root
from twisted_registry.http.site import HTTPSite
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.filesystem.driver import FilesystemDriver

BLOB = 64 * 1024 * b"x"
MANIFEST = image(b"{}", BLOB)
STORE = "docker/registry/v2"


def write(root, path, content):
    file = root / STORE / path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)


def fill(root):
    """What a push of an image leaves, as far as a pull needs it."""
    for content in (BLOB, MANIFEST):
        name = digest_of(content).partition(":")[2]
        write(root, f"blobs/sha256/{name[:2]}/{name}/data", content)
    folder = "repositories/a/b"
    digest, name = digest_of(MANIFEST), digest_of(MANIFEST).partition(":")[2]
    write(root, f"{folder}/_manifests/tags/latest/current/link", digest.encode())
    write(root, f"{folder}/_manifests/revisions/sha256/{name}/link", digest.encode())
    digest, name = digest_of(BLOB), digest_of(BLOB).partition(":")[2]
    write(root, f"{folder}/_layers/sha256/{name}/link", digest.encode())


class Connected:
    """A TCP connection to a site, whose reads the test makes itself."""

    def __init__(self, site):
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.client = socket.create_connection(listener.getsockname())
            served, address = listener.accept()
        served.setblocking(False)
        self.client.setblocking(False)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * len(BLOB))
        self.protocol = site.buildProtocol(None)
        self.transport = Server(served, self.protocol, address, _Port, 0, reactor)
        self.protocol.makeConnection(self.transport)

    def received(self):
        data = b""
        while True:
            try:
                piece = self.client.recv(2**20)
            except BlockingIOError:
                return data
            if not piece:
                return data
            data += piece

    async def ask(self, request, ending):
        """Send a request, and wait for an answer that ends so."""
        self.protocol.dataReceived(request)
        data = self.received()
        while not data.endswith(ending):
            await deferLater(reactor, 0.01)
            data += self.received()
        return data

    def close(self):
        self.client.close()
        self.transport.abortConnection()


class _Port:
    """As much of a listening port as a connection asks for."""

    _realPortNumber = 0


@asynccontextmanager
async def served(folder, access):
    """A connection to a registry that holds an image."""
    fill(folder)
    await deferLater(reactor, 0.05)  # files that were written just now are not believed
    driver = FilesystemDriver(str(folder), reactor)
    registry = Registry(CheckedDriver(driver, reactor), reactor, pending_pulls=set())
    site = HTTPSite(make_root(RegistryResource(registry, access, reactor), ""), reactor)
    connected = Connected(site)
    try:
        yield connected
    finally:
        connected.close()
        await driver.close()


async def warm(connected, head, content):
    """Ask until all is known that will be."""
    for _ in range(3):
        answer = await connected.ask(head + b"\r\n", content)
        assert answer.startswith(b"HTTP/1.1 200 ")
