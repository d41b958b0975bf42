"""A store that fails at each call in turn, for every kind of request."""

from __future__ import annotations

from itertools import count

import pytest
import pytest_twisted
from twisted.internet.defer import fail, succeed
from zope.interface import implementer

from tests.api.scenarios import SCENARIOS, check, prepare
from tests.api.setups import SITES
from tests.api.watched_driver import Watched, failing_at
from tests.support.manifests import digest_of
from twisted_registry.storage.interfaces import IReader, StorageError
from twisted_registry.storage.memory import MemoryDriver

pytestmark = pytest.mark.setups(*SITES)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest_twisted.ensureDeferred
async def test_each_failing_storage_call_is_503_or_507(start, clock, logged_errors, scenario):
    for number in count():
        full = number % 2 == 1
        driver = Watched(MemoryDriver(clock), failing_at(None, None))
        async with start(driver=driver) as api:
            upload = await prepare(api)
            driver.calls.clear()
            driver.before = failing_at(number, StorageError("x", "no such luck", full=full))
            target = scenario.target(upload)
            connection_broken = False
            try:
                response = await api.request_target(
                    scenario.method, target, scenario.headers(), scenario.body
                )
            except AssertionError:
                connection_broken = True  # nothing at all was answered
            calls = list(driver.calls)
            driver.before = failing_at(None, None)
            complained = logged_errors.take()
            if len(calls) <= number:
                assert response.status in scenario.statuses
                assert not complained
                assert number > 0
                return
            assert not any("Traceback" in text for text in complained), complained
            if connection_broken:
                assert calls[number] == "deliver"
            elif response.status >= 500:
                assert response.status == (507 if full else 503)
                assert scenario.method == "HEAD" or response.code == "UNAVAILABLE"
                assert complained[0].startswith("storage failed: StorageError: x: no such luck")
            elif not response.is_complete:
                assert calls[number] == "deliver"
            else:
                # An optimisation may fail without an effect.
                assert response.status in scenario.statuses, calls[number]
            assert driver.opened == 0
            await check(api, scenario, upload)
            assert not logged_errors.take()


@implementer(IReader)
class ShortReader:
    """A reader that delivers fewer bytes than its size, and then ends or fails."""

    size = 100

    def __init__(self, error):
        self.error = error

    def deliver(self, consumer):
        consumer.write(b"x" * 60)
        return succeed(None) if self.error is None else fail(self.error)

    def close(self):
        pass


class ShortDriver(MemoryDriver):
    """A store whose blobs are shorter than their declared sizes."""

    error = None

    def open(self, path, offset=0, length=None):
        return succeed(ShortReader(self.error))


@pytest.mark.parametrize("error", [None, StorageError("x", "torn")], ids=["end", "error"])
@pytest_twisted.ensureDeferred
async def test_a_blob_of_which_the_store_sends_less_closes_the_connection(
    start, clock, logged_errors, error
):
    driver = ShortDriver(clock)
    driver.error = error
    async with start(driver=driver) as api:
        digest = await api.push_blob(b"x" * 100)
        response = await api("GET", f"a/blobs/{digest}")
        assert (response.status, response.body) == (200, b"x" * 60)
        assert not response.is_complete
        logged_errors.take()


@pytest_twisted.ensureDeferred
async def test_a_list_that_fails_halfway_closes_the_connection(start, clock, logged_errors):
    driver = Watched(MemoryDriver(clock), failing_at(None, None))
    async with start(driver=driver) as api:
        await api.push_image()
        tags = api.served.registry.repository("a").tags
        digest = await tags.resolve("latest")
        for number in range(5100):
            await tags.set(f"t{number:05}", digest)
        driver.calls.clear()
        lists = []

        def before(number, name):
            if name == "list_folders":
                lists.append(number)
                if len(lists) == 2:
                    return fail(StorageError("x", "torn"))
            return None

        driver.before = before
        response = await api("GET", "a/tags/list")
        # Either no response was begun, or the client notices that it is incomplete.
        assert response.status == 503 or not response.is_complete
        assert len(logged_errors.take()) == 1


@pytest_twisted.ensureDeferred
async def test_damaged_manifest_bytes_are_not_served(start, clock, logged_errors):
    driver = MemoryDriver(clock)
    async with start(driver=driver) as api:
        digest = await api.push_image()
        hexadecimal = digest.partition(":")[2]
        path = f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
        await driver.put(path, b"damaged")
        for reference in ("latest", digest):
            response = await api("GET", f"a/manifests/{reference}")
            assert (response.status, response.code) == (404, "MANIFEST_UNKNOWN")
        assert len(logged_errors.take()) == 2
        assert await api.push_image() == digest
        assert (await api("GET", "a/manifests/latest")).status == 200
        logged_errors.take()


@pytest_twisted.ensureDeferred
async def test_damaged_links_are_unknown_or_unavailable(start, clock, logged_errors):
    """An empty link, which a crash leaves, counts as missing. A push repairs each."""
    driver = MemoryDriver(clock)
    async with start(driver=driver) as api:
        digest = await api.push_image(b"layer")
        root = "docker/registry/v2/repositories/a"
        layer = digest_of(b"layer").partition(":")[2]
        hexadecimal = digest.partition(":")[2]
        for path, url in (
            ("_manifests/tags/latest/current/link", "manifests/latest"),
            (f"_manifests/revisions/sha256/{hexadecimal}/link", f"manifests/{digest}"),
            (f"_layers/sha256/{layer}/link", f"blobs/{digest_of(b'layer')}"),
        ):
            other = digest_of(b"other").encode()
            damaged = [] if "tags" in path else [other]
            for content in (b"", b"\n", b"sha256:", b"\xff", b"x" * 600, *damaged):
                await driver.put(f"{root}/{path}", content)
                response = await api("GET", f"a/{url}")
                expected = 503 if content.strip() else 404
                assert response.status == expected, (path, content)
                assert response.code == "UNAVAILABLE" or expected == 404
                # A client that pushes must not be kept from it.
                if "tags" not in path:
                    assert (await api("HEAD", f"a/{url}")).status == 404
                await api.push_image(b"layer")
                assert (await api("GET", f"a/{url}")).status == 200
    logged = logged_errors.take()
    assert all("LinkDamaged" in text for text in logged[::2]), logged
    assert len(logged) == 2 * (3 + 4 + 4)
