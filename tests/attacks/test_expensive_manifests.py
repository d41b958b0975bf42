"""Manifests that cost much: to parse, and to check what they refer to.

The documents are the most expensive that are accepted. What is measured is how long the reactor is
blocked, and the time of a request beside them.
"""

from __future__ import annotations

import gc
import socket
import time
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.task import LoopingCall, deferLater

from tests.support.http_client import RegistryClient, connect, head
from tests.support.manifests import OCI_INDEX, OTHER, digest_of
from tests.support.processes import SERVE, RegistryProcess, write_configuration
from tests.support.services import run_service

pytestmark = pytest.mark.timed

#: The reactor is never blocked for longer, in the best of three attempts.
MAX_BLOCKED_S = 0.05
MAX_LATENCY_S = 0.2
ATTEMPTS = 5
#: The bounds of what is accepted, by default.
MAX_BYTES, MAX_VALUES = 4 * 2**20, 100_000

CONFIGURATION = """\
version: 0.1
log: {{accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  # Otherwise the largest are cached.
  cache: {{manifestbytes: 1MiB}}
  delete: {{enabled: true}}
validation: {{manifests: {{indexes: {{platforms: none}}}}}}
http:
  addr: 127.0.0.1:0
"""


def document(item, count, head=f'{{"mediaType":"{OTHER}","a":[', tail="]}"):
    """Return a document with an item many times, of the largest size."""
    room = (MAX_BYTES - len(head) - len(tail)) // count - 1
    items = ",".join(item(number, room) for number in range(count))
    content = f"{head}{items}{tail}".encode()
    assert len(content) <= MAX_BYTES
    return content


def keys_of_one_object():
    head = f'{{"mediaType":"{OTHER}","a":{{'
    return document(lambda n, _: f'"{n:034d}":""', MAX_VALUES - 10, head, "}}")


def numbers():
    return document(lambda _, room: "1" * min(room, 40), MAX_VALUES - 10)


def objects():
    return document(lambda _, room: f'{{"{"k" * (room - 7)}":""}}', MAX_VALUES // 2 - 10)


def children():
    head = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":['
    item = '{{"mediaType":"x/y","digest":"sha256:{:064x}","size":0}}'
    return document(lambda n, _: item.format(n), MAX_VALUES // 4 - 10, head)


def annotations():
    """Return an image whose descriptor in a list of referrers is as large as itself."""
    subject = f'{{"mediaType":"x/y","digest":"{digest_of(b"")}","size":0}}'
    head = f'{{"mediaType":"{OTHER}","subject":{subject},"annotations":{{'
    return document(lambda n, _: f'"{n:034d}":""', MAX_VALUES - 20, head, "}}")


def escapes():
    return document(lambda _, room: '"' + "\\n" * (MAX_VALUES - 10) + "x" * (room // 2) + '"', 1)


WORST = [keys_of_one_object, numbers, objects, children, annotations, escapes]


@define(eq=False)
class Ticker:
    """Measures how long the reactor does not get its turn.

    A pause counts as long as this process has used a processor, with all of its threads: on a busy
    machine it is not always running.
    """

    longest_s: float = field(init=False, default=0.0)
    _last: tuple[float, float] = field(init=False, default=(0.0, 0.0))

    @asynccontextmanager
    async def running(self):
        self._last, self.longest_s = self._now(), 0.0
        loop = LoopingCall(self._tick)
        loop.start(0.001)
        try:
            yield self
        finally:
            self._tick()
            loop.stop()

    def _now(self):
        return time.perf_counter(), time.process_time()

    def _tick(self):
        now = self._now()
        pause_s = min(end - begin for begin, end in zip(self._last, now, strict=True))
        self.longest_s, self._last = max(self.longest_s, pause_s), now


@pytest_twisted.async_yield_fixture
async def api(tmp_path):
    """A client of a registry in this process."""
    # As in a registry: Python's collector does not search what was imported.
    gc.collect()
    gc.freeze()
    async with run_service(tmp_path, CONFIGURATION) as ask:
        parts = urlsplit(ask.base)
        yield RegistryClient(SimpleNamespace(host=parts.netloc, port=parts.port))
    gc.unfreeze()


async def abort_pulls(api, path, headers=()):
    """Begin forty pulls at once, and abort them."""
    pulls = []
    for _ in range(40):
        connection = await connect(api.served.port)
        connection.send(head("GET", path, headers, host=api.host))
        pulls.append(connection)
    await deferLater(reactor, 0.01)
    for connection in pulls:
        connection.abort()
        await connection.closed


async def best_of(attempt):
    """Return the smallest result of some attempts; a busy machine delays everything."""
    results = [await attempt()]
    while len(results) < ATTEMPTS and results[-1] > MAX_BLOCKED_S:
        results.append(await attempt())
    return min(results)


@pytest.mark.parametrize("make", WORST)
@pytest_twisted.ensureDeferred
async def test_pulls_of_the_worst_manifest_do_not_block_the_reactor(api, make):
    content = make()
    digest = digest_of(content)
    response = await api.push_manifest(content, "worst", media_type=None)
    assert response.status == 201, response.body[:300]
    ticker = Ticker()

    async def attempt():
        async with ticker.running():
            await abort_pulls(api, f"/v2/a/manifests/{digest}")
            assert (await api("GET", "")).status == 200
            await abort_pulls(api, "/v2/a/manifests/worst", {"Accept": "application/json"})
            assert (await api("HEAD", f"a/manifests/{digest}")).status == 200
        return ticker.longest_s

    assert await best_of(attempt) < MAX_BLOCKED_S
    response = await api("GET", "a/manifests/worst")
    assert response.body == content


@pytest.mark.parametrize("make", WORST)
@pytest_twisted.ensureDeferred
async def test_pushes_of_the_worst_manifest_do_not_block_the_reactor(api, make):
    content, ticker = make(), Ticker()

    async def attempt():
        async with ticker.running():
            response = await api.push_manifest(content, "worst", media_type=None)
            assert response.status == 201, response.body[:300]
        return ticker.longest_s

    assert await best_of(attempt) < MAX_BLOCKED_S


@pytest_twisted.ensureDeferred
async def test_a_push_with_many_missing_blobs_is_refused_soon(api):
    layers = children().replace(b'"manifests"', b'"layers"').replace(OCI_INDEX.encode(), b"@", 1)
    image = "application/vnd.oci.image.manifest.v1+json"
    config = f'"config":{{"mediaType":"x/y","digest":"{digest_of(b"")}","size":0}},'.encode()
    content = layers.replace(b'"@",', f'"{image}",'.encode() + config, 1)
    ticker = Ticker()

    async def attempt():
        async with ticker.running():
            response = await api.push_manifest(content, "worst", media_type=None)
        assert (response.status, response.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert len(response.json()["errors"][0]["detail"]["digests"]) == 100
        assert len(response.body) < 10_000
        return ticker.longest_s

    assert await best_of(attempt) < MAX_BLOCKED_S


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a":[' + b"1," * MAX_VALUES + b"1]}", "100000 values"),
        (b'{"a":' * 32 + b"{}" + b"}" * 32, "32 levels"),
        (b'{"a":' * 10_000, "32 levels"),
        (b'{"a":' + b"[" * 50_000, "32 levels"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_manifest_of_excessive_structure_is_refused(api, content, reason):
    for media_type in (OTHER, OCI_INDEX):
        response = await api.push_manifest(content, media_type=media_type)
        assert (response.status, response.code) == (400, "MANIFEST_INVALID")
        assert reason in response.body.decode()
    assert (await api("GET", "a/manifests/latest")).status == 404


@pytest.mark.parametrize("workers", [1, 2])
def test_the_version_check_is_fast_beside_aborted_pulls(tmp_path, workers):
    path = write_configuration(tmp_path, CONFIGURATION, more=f"  workers: {workers}\n")
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as registry:
        content = keys_of_one_object()
        target = f"/v2/a/manifests/{digest_of(content)}"
        response, _ = registry.ask("PUT", target, content, {"Content-Type": OTHER})
        assert response.status == 201
        latencies = []
        while len(latencies) < ATTEMPTS and min(latencies, default=1) > MAX_LATENCY_S:
            abort_blocking_pulls(registry.port, target)
            started = time.perf_counter()
            assert registry.ask()[0].status == 200
            latencies.append(time.perf_counter() - started)
        assert min(latencies) < MAX_LATENCY_S
        response, body = registry.ask("GET", target)
        assert (response.status, body) == (200, content)
        assert registry.stop()[0] == 0


def abort_blocking_pulls(port, target):
    connections = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(40)]
    for connection in connections:
        connection.sendall(head("GET", target))
    time.sleep(0.01)
    for connection in connections:
        with closing(connection):
            # Unread data makes this a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
