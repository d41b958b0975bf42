"""What a list of referrers costs when a pusher has made a thousand of the largest accepted ones.

Their bytes are holes of that size: a list that read them would find that they are damaged.
"""

from __future__ import annotations

import gc
import json
import time
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from tests.attacks.test_expensive_manifests import MAX_VALUES, Ticker
from tests.support.http_client import connect, head, parse
from tests.support.manifests import OCI_IMAGE, descriptor, digest_of, image, index
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import parse_manifest
from twisted_registry.repository import layout
from twisted_registry.repository.policy import MAX_MANIFEST_BYTES
from twisted_registry.repository.subject_records import make_record
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.testing.server import serve

pytestmark = pytest.mark.timed

REFERRERS = 1000
#: Referrers with a large descriptor that are listed: those of the first pages.
LISTED = 5
WARM_S, COLD_S, BLOCKED_S = 0.05, 0.5, 0.05
#: On a busy machine, one of so many is as fast.
ATTEMPTS = 5
SUBJECT = image(b"{}")
PATH = f"/v2/a/referrers/{digest_of(SUBJECT)}"
#: Annotations of a small descriptor, and of one that leaves no room for another.
ANNOTATIONS = {"few": {"n": "1"}, "many": {"n": "x" * (MAX_MANIFEST_BYTES - 1000)}}


def store_referrers(root, annotations):
    """Store referrers as pushes do; return their digests in order."""
    content = image(b"{}", subject=descriptor(SUBJECT, OCI_IMAGE), annotations=annotations)
    manifest = parse_manifest(content, OCI_IMAGE)
    digests = sorted(Digest.of(b"%d" % number) for number in range(REFERRERS))

    def write(path, content, size=0):
        path = root / path
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.write(content)
            file.truncate(size or len(content))

    large, _ = make_record(digests[-1], manifest, MAX_MANIFEST_BYTES, is_declared=True)
    for number, digest in enumerate(digests):
        record, listed = evolve(large, manifest=digest), b""
        if number < LISTED or large.is_inline:
            record, listed = make_record(digest, manifest, MAX_MANIFEST_BYTES, is_declared=True)
        write(layout.blob_data(digest), b"", MAX_MANIFEST_BYTES)
        write(layout.revision_link("a", digest), str(digest).encode())
        (root / layout.revision_subject("a", digest)).write_bytes(record.to_bytes())
        if not record.is_inline:
            (root / layout.revision_descriptor("a", digest)).write_bytes(listed)
        link = layout.referrer_link("a", manifest.subject.digest, digest)
        write(link, str(digest).encode())
    return list(map(str, digests))


@pytest.fixture(scope="module", params=ANNOTATIONS)
def stored(request, tmp_path_factory):
    """The root of a store with referrers, their digests, and the number on each page."""
    root = tmp_path_factory.mktemp("store")
    digests = store_referrers(root, ANNOTATIONS[request.param])
    return root, digests, REFERRERS if request.param == "few" else 1


class Collector(Protocol):
    """A connection that only collects, since it shares its process with the server."""

    def connectionMade(self):
        self.pieces = []
        self.closed = Deferred()

    def dataReceived(self, data):
        self.pieces.append(data)

    def connectionLost(self, reason):
        self.closed.callback(None)


@asynccontextmanager
async def serving(root):
    driver = FilesystemDriver(str(root), reactor)
    # As in a registry: Python's collector does not search what was imported.
    gc.collect()
    gc.freeze()
    async with serve(reactor, driver=driver) as served:
        yield served
    gc.unfreeze()


async def timed(served, target):
    """Request a page; return it, how long that took, and how long the reactor was blocked.

    The time counts as long as this process has used a processor: it is not always running.
    """
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", served.port)
    connection = await connectProtocol(endpoint, Collector())
    async with Ticker().running() as ticker:
        start_s, start_used_s = time.perf_counter(), time.process_time()
        connection.transport.write(head("GET", target, host=served.host))
        await connection.closed
        taken_s = min(time.perf_counter() - start_s, time.process_time() - start_used_s)
    response = parse(b"".join(connection.pieces), "GET")
    assert response.status == 200
    assert len(response.body) <= MAX_MANIFEST_BYTES
    return response, taken_s, ticker.longest_s


@pytest_twisted.ensureDeferred
async def test_page_of_the_largest_referrers_is_fast_and_does_not_block(stored):
    root, digests, on_page = stored
    cold, warm = [], []
    for _ in range(ATTEMPTS):
        (root / layout.referrers_scanned("a")).unlink(missing_ok=True)
        async with serving(root) as served:
            response, *figures = await timed(served, PATH)
            cold.append(figures)
            found = [one["digest"] for one in json.loads(response.body)["manifests"]]
            assert found == digests[:on_page]
            # Files are cached once they are some milliseconds old.
            await deferLater(reactor, 0.1, lambda: None)
            for _ in range(ATTEMPTS):
                _, *figures = await timed(served, PATH)
                warm.append(figures)
    assert min(taken_s for taken_s, _ in cold) < COLD_S
    assert min(taken_s for taken_s, _ in warm) < WARM_S
    for figures in (cold, warm):
        assert min(blocked_s for _, blocked_s in figures) < BLOCKED_S


@pytest_twisted.ensureDeferred
async def test_further_pages_of_the_largest_referrers_are_as_fast(stored):
    root, digests, on_page = stored
    found, target, figures = [], PATH, []
    async with serving(root) as served:
        for _ in range(4):
            response, taken_s, blocked_s = await timed(served, target)
            figures.append((taken_s, blocked_s))
            found += [one["digest"] for one in json.loads(response.body)["manifests"]]
            link = response.get("Link")
            if link is None:
                break
            target = link[1:].partition(">")[0].partition(served.host)[2]
    assert found == digests[: len(found)]
    assert len(found) == (REFERRERS if on_page > 1 else 4)
    assert min(taken_s for taken_s, _ in figures) < COLD_S


def costly_referrer(number):
    """Return an index with as many values as are accepted, and a subject."""
    children = [
        {"mediaType": OCI_IMAGE, "digest": f"sha256:{child:064x}", "size": 0}
        for child in range(number, number + MAX_VALUES // 4 - 10)
    ]
    return index(*children, subject=descriptor(SUBJECT, OCI_IMAGE))


@pytest_twisted.ensureDeferred
async def test_costly_referrers_without_records_are_parsed_once_beside_the_reactor(tmp_path):
    """Forty clients ask for a list of manifests of another registry, and half of them leave."""
    contents = [costly_referrer(number) for number in range(3)]
    blocked, parsed = [], []
    for attempt in range(ATTEMPTS):
        root = tmp_path / str(attempt)
        for content in contents:
            digest = Digest.of(content)
            for path, stored in (
                (layout.blob_data(digest), content),
                (layout.revision_link("a", digest), str(digest).encode()),
            ):
                (root / path).parent.mkdir(parents=True)
                (root / path).write_bytes(stored)
        async with serving(root) as served:
            worker, calls = served.registry.worker, []

            def count(work, *arguments, run=worker.run_blocking, calls=calls):
                calls.append(work)
                return run(work, *arguments)

            worker.run_blocking = count
            async with Ticker().running() as ticker:
                clients = [await connect(served.port) for _ in range(40)]
                for client in clients:
                    client.send(head("GET", PATH, host=served.host))
                await deferLater(reactor, 0.05, lambda: None)
                for client in clients[::2]:
                    client.abort()
                for client in clients[1::2]:
                    await client.closed
                    assert len(json.loads(parse(client.received, "GET").body)["manifests"]) == 3
        blocked.append(ticker.longest_s)
        parsed.append(calls.count(parse_manifest))
        if ticker.longest_s < BLOCKED_S:
            break
    # The first is cancelled, perhaps while one of its manifests is parsed.
    assert max(parsed) <= 2 * len(contents)
    assert min(blocked) < BLOCKED_S
