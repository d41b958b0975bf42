"""What a list of referrers costs when a pusher has made a thousand of the largest accepted ones.

Their bytes are holes of that size: a list that read them would find that they are damaged.
"""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, deferLater

from tests.support.http_client import head, parse
from tests.support.manifests import OCI_IMAGE, descriptor, digest_of, image
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import parse_manifest
from twisted_registry.repository import layout
from twisted_registry.repository.policy import MAX_MANIFEST_BYTES
from twisted_registry.repository.subject_records import make_record
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.testing.server import serve

REFERRERS = 1000
WARM_S, COLD_S, BLOCKED_S = 0.05, 0.5, 0.05
#: On a busy machine, one of so many is as fast.
ATTEMPTS = 5
TICK_S = 0.002
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

    for digest in digests:
        record, listed = make_record(digest, manifest, MAX_MANIFEST_BYTES, is_declared=True)
        write(layout.blob_data(digest), b"", MAX_MANIFEST_BYTES)
        write(layout.revision_link("a", digest), str(digest).encode())
        (root / layout.revision_subject("a", digest)).write_bytes(record.to_bytes())
        if not record.is_inline and digest in digests[:5]:
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
    async with serve(reactor, driver=driver) as served:
        yield served


async def timed(served, target):
    """Request a page; return it, how long that took, and how long the reactor was blocked."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", served.port)
    connection = await connectProtocol(endpoint, Collector())
    ticks = [time.monotonic()]
    ticking = LoopingCall(lambda: ticks.append(time.monotonic()))
    ticking.start(TICK_S)
    start = time.monotonic()
    connection.transport.write(head("GET", target, host=served.host))
    await connection.closed
    taken_s = time.monotonic() - start
    ticks.append(time.monotonic())
    ticking.stop()
    response = parse(b"".join(connection.pieces), "GET")
    assert response.status == 200
    assert len(response.body) <= MAX_MANIFEST_BYTES
    blocked_s = max(after - before for before, after in pairwise(ticks))
    return response, taken_s, blocked_s


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
    print("cold", cold, "warm", warm)
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
