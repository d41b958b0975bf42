"""A registry over a store that fails: a error_code error, or success after a second try.

A client gets the bytes of the digest, an error, or fewer bytes than announced. The exception is a
store that corrupts the bytes of a blob on their way: the registry passes them on, because clients
verify digests. What it stores is always right.
"""

from __future__ import annotations

from http.client import IncompleteRead
from itertools import count
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.integration.faultproxy import BEFORE, WITHIN, FaultProxy
from tests.integration.images import image, noise
from tests.integration.impatient_registry import SETTINGS, make_impatient_driver
from tests.integration.remote import Remote, UnexpectedResponse
from twisted_registry.testing.server import serve

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
#: Faults that take seconds, or are similar to another one.
SLOW_FAULTS = {"stall", "500", "reset within"}
FAULTS = [
    pytest.param(fault, marks=[pytest.mark.nightly] if fault in SLOW_FAULTS else [])
    for fault in (*BEFORE, *WITHIN)
]
#: The large layer is pushed in chunks below the part size, so that they are read back and joined.
IMAGE = image("faulty", size=2000)
LARGE = noise("faulty", 6 * MIB)
#: All chunks of the small layer are read back when the upload is finished.
SMALL = noise("small", 1000)


@pytest.fixture
def proxy(object_stores):
    made = FaultProxy(object_stores.get("ceph").endpoint)
    yield made
    made.close()


def driver_over(store, endpoint):
    """Return a driver with short timeouts."""
    root = f"faults-{uuid4().hex}"
    return make_impatient_driver(endpoint, store.access_key, store.secret_key, root, seconds=1)


def error_code(response):
    """Return the error code of a response; false if it is not an error of the specification."""
    return response.status >= 400 and response.json()["errors"][0]["code"]


def attempt(work, *arguments):
    """Retry ``work`` until it succeeds; interval failure must be a error_code error."""
    for _ in range(12):
        try:
            return work(*arguments)
        except UnexpectedResponse as error:
            response = error.response
        assert error_code(response), response
    raise AssertionError(f"{work} never succeeds")


def pull(remote, digest, content):
    """Pull a blob: return ``"complete"``, ``"refused"``, ``"cut"`` or ``"corrupted"``."""
    try:
        response = remote.blob("a", digest)
    except IncompleteRead as error:
        return len(error.partial) < len(content) and "cut"
    if response.status != 200:
        return error_code(response) and "refused"
    assert len(response.body) == len(content)
    return "complete" if response.body == content else "corrupted"


@pytest.mark.parametrize("fault", FAULTS)
@pytest_twisted.ensureDeferred
async def test_pushes_and_pulls_survive_occasional_store_faults(object_stores, proxy, fault):
    driver = driver_over(object_stores.get("ceph"), proxy.endpoint)
    request_numbers, interval = count(1), 20 if "stall" in fault else 5

    def choose_fault(method, path):
        # Corrupted lists are not detected: they have no digest.
        spared = fault == "corrupted" and ("list-type" in path or method != "GET")
        return fault if next(request_numbers) % interval == 0 and not spared else None

    async with serve(reactor, driver=driver, settings=SETTINGS) as served:
        remote = Remote(served.host)

        def run_client():
            proxy.choose = choose_fault
            attempt(remote.push, "a", IMAGE, "t")
            digest = attempt(remote.push_in_chunks, "a", LARGE, MIB)
            small = attempt(remote.push_in_chunks, "a", SMALL, 100)
            outcomes = [pull(remote, digest, LARGE) for _ in range(3)]
            assert "complete" in outcomes
            assert fault == "corrupted" or "corrupted" not in outcomes
            for each in range(3):
                response = remote.manifest("a", "t")
                assert response.body == IMAGE.manifest.read() or error_code(response), each
            proxy.choose = lambda *_: None
            remote.assert_holds("a", IMAGE, "t")
            assert pull(remote, digest, LARGE) == "complete"
            assert pull(remote, small, SMALL) == "complete"

        await deferToThread(run_client)
    assert {injected for injected, _, _ in proxy.injected} == {fault}


@pytest.mark.parametrize("fault", FAULTS)
@pytest_twisted.ensureDeferred
async def test_permanent_store_faults_are_clean_errors(object_stores, proxy, fault):
    driver = driver_over(object_stores.get("ceph"), proxy.endpoint)
    async with serve(reactor, driver=driver, settings=SETTINGS) as served:
        remote = Remote(served.host)

        def run_client():
            remote.push("a", IMAGE, "t")
            digest = remote.push_blob("a", LARGE)
            proxy.choose = lambda *_: fault
            assert pull(remote, digest, LARGE) in {"cut", "refused"}
            assert error_code(remote.manifest("a", "t"))
            if fault in BEFORE and fault != "stall":
                for response in (
                    remote.request("GET", "/v2/_catalog"),
                    remote.request("HEAD", f"/v2/a/blobs/{digest}"),
                    remote.request("POST", "/v2/a/blobs/uploads/"),
                ):
                    assert response.status == 503, response
            proxy.choose = lambda *_: None
            remote.assert_holds("a", IMAGE, "t")
            assert pull(remote, digest, LARGE) == "complete"

        await deferToThread(run_client)
