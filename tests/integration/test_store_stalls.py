"""A store that accepts requests and never responds: each client gets an error within 30 seconds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.integration.faultproxy import FaultProxy
from tests.integration.images import image, noise
from tests.integration.remote import Remote, with_digest
from tests.support.manifests import digest_of
from tests.support.s3_servers import BUCKET
from twisted_registry.api.context import APISettings
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.credentials import Credentials, StaticCredentials
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.sender import Sender
from twisted_registry.storage.s3.transport import make_transport
from twisted_registry.testing.server import serve

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MIB = 1024 * 1024
#: The limit, and what a busy machine may add to the time of a client.
LIMIT_S = 30
SLACK_S = 5
IMAGE = image("stalled")
SMALL, LARGE = noise("small", 1000), noise("large", 12 * MIB)
#: Statuses of requests during a stall; 0 is a connection that was closed while a body was sent.
REFUSED = {503, 0}


@pytest.fixture
def proxy(object_stores):
    made = FaultProxy(object_stores.get("ceph").endpoint)
    yield made
    made.close()


def make_driver(store, endpoint):
    """Return a driver with the usual timeouts."""
    sender = Sender(
        reactor,
        make_transport(reactor),
        endpoint_address(BUCKET, endpoint),
        StaticCredentials(Credentials(store.access_key, store.secret_key)),
        "tests",
    )
    return S3Driver(S3Client(sender), reactor, f"stalls-{uuid4().hex}", 5 * MIB)


def upload_with(remote, data):
    """Start an upload, and send bytes; return its location."""
    response = remote.request("PATCH", remote.start_upload("a"), data)
    assert response.status == 202, response
    return response.headers["location"]


def requests_of(remote, digest):
    """Return requests of all kinds, some of them on uploads that are begun here."""
    manifest = {"Content-Type": IMAGE.media_type}
    whole = LARGE + b"!"
    return [
        ("PATCH", upload_with(remote, b"begun"), SMALL),
        ("GET", "/v2/a/manifests/t"),
        ("HEAD", f"/v2/a/blobs/{digest}"),
        ("GET", f"/v2/a/blobs/{digest}"),
        ("GET", "/v2/a/tags/list"),
        ("GET", "/v2/_catalog"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a"),
        ("PATCH", remote.start_upload("a"), LARGE),
        ("PUT", with_digest(upload_with(remote, SMALL), digest_of(SMALL))),
        ("PUT", with_digest(upload_with(remote, LARGE), digest_of(LARGE))),
        ("PUT", with_digest(remote.start_upload("a"), digest_of(whole)), whole),
        ("PUT", "/v2/a/manifests/other", IMAGE.manifest.read(), manifest),
        ("DELETE", f"/v2/a/manifests/{IMAGE.digest}"),
        ("DELETE", remote.start_upload("a")),
    ]


def attempt(remote, request):
    """Return method and path of a request, its status, and the seconds that it took."""
    began = time.monotonic()
    try:
        status = remote.request(*request).status
    except OSError:
        status = 0
    return request[:2], status, time.monotonic() - began


def assert_refused_in_time(attempts):
    for request, status, seconds in (each.result() for each in attempts):
        assert status in REFUSED, request
        assert seconds < LIMIT_S + SLACK_S, request


@pytest_twisted.ensureDeferred
async def test_requests_to_a_store_that_stalls_end_within_30_seconds(object_stores, proxy):
    """The stall begins when an upload has read what it needs, and stores a piece."""
    driver = make_driver(object_stores.get("ceph"), proxy.endpoint)
    async with serve(reactor, driver=driver, settings=APISettings(redirect=False)) as served:
        remote = Remote(served.host, timeout_s=120)

        def run_clients():
            remote.push("a", IMAGE, "t")
            digest = remote.push_blob("a", LARGE)
            requests = requests_of(remote, digest)
            proxy.choose = lambda method, _: "stall" if method == "PUT" or proxy.injected else None
            with ThreadPoolExecutor(len(requests)) as pool:
                attempts = [pool.submit(attempt, remote, requests[0])]
                while not proxy.injected:
                    time.sleep(0.01)
                attempts += [pool.submit(attempt, remote, request) for request in requests[1:]]
            assert_refused_in_time(attempts)
            proxy.choose = lambda *_: None
            remote.assert_holds("a", IMAGE, "t")

        await deferToThread(run_clients)


@pytest.mark.nightly
@pytest_twisted.ensureDeferred
async def test_writes_to_a_store_that_answers_only_reads_end_within_30_seconds(
    object_stores, proxy
):
    """The first piece of each upload is stored, so that the list of pieces has to be saved."""
    driver = make_driver(object_stores.get("ceph"), proxy.endpoint)
    async with serve(reactor, driver=driver, settings=APISettings(redirect=False)) as served:
        remote = Remote(served.host, timeout_s=120)

        def run_clients():
            remote.push("a", IMAGE, "t")
            requests = [("PATCH", remote.start_upload("a"), LARGE) for _ in range(4)]
            stored = count()
            proxy.choose = lambda method, _: (
                "stall" if method == "PUT" and next(stored) >= len(requests) else None
            )
            with ThreadPoolExecutor(len(requests)) as pool:
                attempts = [pool.submit(attempt, remote, request) for request in requests]
                while not all(each.done() for each in attempts):
                    remote.assert_holds("a", IMAGE, "t")
            assert_refused_in_time(attempts)

        await deferToThread(run_clients)
