"""What a warm pull costs, in calls of Python functions: a number that no busy machine changes.

Each call costs about 0.3 us with what it does. Whoever adds some to a pull shall know it.
"""

from __future__ import annotations

import socket
import sys
from contextlib import asynccontextmanager, closing

import pytest
import pytest_twisted
from client import digest_of, image
from tokenkit import ISSUER, REALM, SERVICE, claims, jwk, jwks, key, mint
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server

from twisted_registry.api.endpoint import RegistryResource
from twisted_registry.api.site import RegistrySite
from twisted_registry.api.tree import mounted
from twisted_registry.auth.bearer import Bearer
from twisted_registry.auth.keyring import make_keyring
from twisted_registry.auth.open import OpenAccess
from twisted_registry.auth.rights import Right
from twisted_registry.auth.rules import Rule, Rules
from twisted_registry.auth.schemes import SchemeAccess
from twisted_registry.auth.tokens import TokenCheck
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.filesystem import FilesystemDriver

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


def calls(function, *args):
    """How many Python functions ``function(*args)`` calls."""
    names = []

    def note(frame, event, _):
        if event == "call":
            names.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
    return names


@pytest.mark.parametrize(
    ("path", "content", "known", "unknown"),
    [
        ("manifests/latest", MANIFEST, 69, 81),
        (f"manifests/{digest_of(MANIFEST)}", MANIFEST, 69, 81),
        (f"blobs/{digest_of(BLOB)}", BLOB, 77, 89),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_warm_pull_makes_few_calls(tmp_path, path, content, known, unknown):
    """``known`` bounds a request that was read before byte for byte, ``unknown`` any other."""
    head = f"GET /v2/a/b/{path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n".encode()
    async with served(tmp_path, OpenAccess()) as connected:
        await warm(connected, head, content)
        for more, bound in ((b"", known), (b"User-Agent: other\r\n", unknown)):
            assert_calls(connected, head + more, content, bound)


@pytest_twisted.ensureDeferred
async def test_a_login_makes_few_calls_more(tmp_path):
    """Be the credentials in front of, between or behind what else is said."""
    line = b"GET /v2/a/b/manifests/latest HTTP/1.1\r\n"
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    check = TokenCheck(ISSUER, SERVICE, keys, reactor.seconds, frozenset({"ES256"}))
    right = Right.make(["a/**", "!a/c"], ["push"])
    rules = Rules((Rule(right, frozenset({"me"})),))
    shown = mint(key("P-256"), "ES256", claims(reactor.seconds()), kid="k")
    credentials = f"Authorization: Bearer {shown}\r\n".encode()
    async with served(tmp_path, SchemeAccess(Bearer(REALM, check, reactor), rules)) as connected:
        for before, after in ((b"", b"Host: x\r\n"), (b"Host: x\r\n", b"")):
            head = line + before + credentials + after
            await warm(connected, head, MANIFEST)
            assert_calls(connected, head, MANIFEST, 80)


@asynccontextmanager
async def served(folder, access):
    """A connection to a registry that holds an image."""
    fill(folder)
    await deferLater(reactor, 0.05)  # files that were written just now are not believed
    driver = FilesystemDriver(str(folder), reactor)
    registry = Registry(CheckedDriver(driver, reactor), reactor, pulls=set())
    site = RegistrySite(mounted(RegistryResource(registry, access, reactor), ""), reactor)
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


def assert_calls(connected, head, content, bound):
    made = calls(connected.protocol.dataReceived, head + b"\r\n")
    assert connected.received().endswith(content), "it waited for something"
    assert len(made) <= bound, made
