"""Checks of stores, files, TCP and HTTP servers of this machine."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from threading import Event

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from tests.support.processes import free_port
from twisted_registry.health.checks import FileCheck, StorageCheck, TCPCheck
from twisted_registry.health.http_check import HTTPCheck
from twisted_registry.health.interfaces import ICheck
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.memory import MemoryDriver

TIMEOUT_S = 30


class BrokenDriver(MemoryDriver):
    """A driver whose store does not answer."""

    def list(self, *_, **__):
        return fail(StorageError("", "input/output error"))


async def reason_of(check):
    """Return why a check fails; empty if it passes."""
    verifyObject(ICheck, check)
    try:
        await check.run()
    except Exception as error:  # noqa: BLE001 - any error is a failed check
        return str(error)
    return ""


@pytest_twisted.ensureDeferred
async def test_a_store_that_answers_is_healthy():
    check = StorageCheck(MemoryDriver(Clock()))
    assert check.name == "storagedriver_inmemory"
    assert await reason_of(check) == ""


@pytest_twisted.ensureDeferred
async def test_a_store_that_fails_is_not():
    driver = BrokenDriver(Clock())
    assert await reason_of(StorageCheck(driver)) == "/: input/output error"


@pytest_twisted.ensureDeferred
async def test_a_folder_that_is_gone_is_not_healthy(tmp_path):
    driver = FilesystemDriver(str(tmp_path / "store"), reactor)
    try:
        (tmp_path / "store").mkdir()
        assert await reason_of(StorageCheck(driver)) == ""
        (tmp_path / "store").rmdir()
        assert await reason_of(StorageCheck(driver)) != ""
    finally:
        await driver.close()


@pytest_twisted.ensureDeferred
async def test_a_file_that_exists_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = FileCheck(reactor, "down")
    monkeypatch.chdir("/")
    assert await reason_of(check) == ""
    (tmp_path / "down").mkdir()
    assert await reason_of(check) == "file exists"
    (tmp_path / "down").rmdir()
    assert await reason_of(check) == ""
    (tmp_path / "down").symlink_to("nowhere")
    assert await reason_of(check) == ""


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_looked_at_is_a_fault(tmp_path):
    (tmp_path / "file").write_text("")
    check = FileCheck(reactor, str(tmp_path / "file" / "below"))
    assert await reason_of(check) == "Not a directory"


@pytest_twisted.ensureDeferred
async def test_a_file_system_that_hangs_is_a_fault_and_gets_one_thread(tmp_path, monkeypatch):
    answers, looks = Event(), []

    def stat(path):
        looks.append(path)
        answers.wait(TIMEOUT_S)
        raise FileNotFoundError

    monkeypatch.setattr(Path, "stat", stat)
    check = FileCheck(reactor, str(tmp_path / "down"))
    hanging = Deferred.fromCoroutine(check.run())
    hanging.addErrback(lambda reason: reason.trap(CancelledError))
    assert await reason_of(check) == "the last look at the file has not ended"
    # A timeout cancels the wait, and the thread continues.
    hanging.cancel()
    assert await reason_of(check) == "the last look at the file has not ended"
    answers.set()
    while await reason_of(check):
        await deferLater(reactor, 0.01)
    assert len(looks) == 2


class Connections(Factory):
    """Counts connections and their ends."""

    noisy = False

    def __init__(self):
        self.count = 0
        self.ended = Deferred()

    def buildProtocol(self, addr):
        self.count += 1
        protocol = Protocol()
        protocol.connectionLost = lambda _: self.ended.callback(None)
        return protocol


@pytest_twisted.ensureDeferred
async def test_a_tcp_server_that_accepts_is_healthy(log_lines):
    connections = Connections()
    listening = reactor.listenTCP(0, connections, interface="127.0.0.1")
    port = listening.getHost().port
    try:
        check = TCPCheck(reactor, f"localhost:{port}", "localhost", port, TIMEOUT_S)
        assert await reason_of(check) == ""
        await connections.ended
        assert connections.count == 1
    finally:
        await maybeDeferred(listening.stopListening)
    assert "refused" in await reason_of(check)
    assert not [line for line in log_lines if "Factory" in line]


class Page(Resource):
    """Answers HEAD, and keeps what it was asked."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.status = 200
        self.requests = []

    def render_HEAD(self, request):
        self.requests.append((request.method, request.uri, request.requestHeaders))
        if request.uri == b"/moved":
            request.redirect(b"/new")
            return b""
        request.setResponseCode(self.status)
        return b""


@pytest.fixture
def page():
    made = Page()
    site = Site(made)
    site.noisy = False
    site.displayTracebacks = False
    listening = reactor.listenTCP(0, site, interface="127.0.0.1")
    made.host = f"127.0.0.1:{listening.getHost().port}"
    yield made
    pytest_twisted.blockon(maybeDeferred(listening.stopListening))


def check_of(url, status=200, headers=None):
    return HTTPCheck.make(reactor, url, headers or {}, status, TIMEOUT_S)


@pytest_twisted.ensureDeferred
async def test_an_http_server_is_asked_with_head_and_headers(page):
    check = check_of(f"http://{page.host}/a?b=c#d", headers={"X-A": ["1", "2"]})
    for _ in range(2):
        assert await reason_of(check) == ""
    for method, uri, headers in page.requests:
        assert (method, uri) == (b"HEAD", b"/a?b=c")
        assert headers.getRawHeaders("x-a") == ["1", "2"]
        assert not headers.hasHeader("authorization")


@pytest_twisted.ensureDeferred
async def test_another_status_is_a_fault(page):
    page.status = 500
    assert await reason_of(check_of(f"http://{page.host}/")) == "status 500 instead of 200"
    assert await reason_of(check_of(f"http://{page.host}/", status=500)) == ""


@pytest_twisted.ensureDeferred
async def test_redirects_are_followed(page):
    assert await reason_of(check_of(f"http://{page.host}/moved")) == ""
    assert [uri for _, uri, _ in page.requests] == [b"/moved", b"/new"]


@pytest_twisted.ensureDeferred
async def test_a_password_in_the_url_is_sent_and_not_shown(page):
    check = check_of(f"http://ada:hush%2Fhush@{page.host}/")
    assert await reason_of(check) == ""
    (credentials,) = page.requests[0][2].getRawHeaders("authorization")
    assert credentials == "Basic " + b64encode(b"ada:hush/hush").decode()
    assert check.name == f"http://{page.host}/"
    assert "hush" not in repr(check)


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_answer_is_a_fault():
    assert "refused" in await reason_of(check_of(f"http://127.0.0.1:{free_port()}/"))


class Rude(Protocol):
    """Closes each connection at once."""

    def connectionMade(self):
        self.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_a_server_that_closes_the_connection_is_a_fault():
    factory = Factory.forProtocol(Rude)
    factory.noisy = False
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        port = listening.getHost().port
        assert "Connection" in await reason_of(check_of(f"http://127.0.0.1:{port}/"))
    finally:
        await maybeDeferred(listening.stopListening)
