"""The contract tests, used as the author of a driver outside this tree uses them."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import succeed

from tests.testing.dict_driver import DictDriver
from twisted_registry.storage.interfaces import OPTIONAL_INTERFACES
from twisted_registry.testing import build_image, serve
from twisted_registry.testing.storage_contract import STORAGE_CONTRACT, check_contract

LAYER = b"layer" * 1000


@pytest.fixture
def driver():
    return DictDriver()


@pytest.mark.parametrize("test", STORAGE_CONTRACT, ids=lambda test: test.__name__)
@pytest_twisted.ensureDeferred
async def test_storage_contract(test, driver):
    await check_contract(driver, test)


def test_a_driver_needs_no_optional_interface(driver):
    assert [interface for interface in OPTIONAL_INTERFACES if interface(driver, None)] == []


@pytest_twisted.ensureDeferred
async def test_a_broken_driver_fails_the_contract():
    class Forgetful(DictDriver):
        def put(self, path, content, *, durable=True):
            return succeed(None)

    failed = set()
    for test in STORAGE_CONTRACT:
        try:
            await check_contract(Forgetful(), test)
        except Exception:  # noqa: BLE001 - any error is a failed test
            failed.add(test.__name__)
    assert {"get_returns_what_put_stored", "put_replaces_a_file"} <= failed


@pytest_twisted.ensureDeferred
async def test_a_driver_that_keeps_files_fails_the_contract():
    async def leaves_a_file(driver):
        await driver.put("left", b"")

    with pytest.raises(AssertionError, match="left behind"):
        await check_contract(DictDriver(), leaves_a_file)


@pytest_twisted.ensureDeferred
async def test_a_driver_of_core_methods_serves_pushes_and_pulls(driver):
    made = build_image(layers=[LAYER])
    manifest, layer = made.manifest.read(), made.layers[0].digest

    async def ask(method, path, **options):
        url = path if path.startswith("http") else f"{served.url}/v2/{path}"
        response = await treq.request(method, url, persistent=False, **options)
        return response, await response.content()

    async with serve(reactor, driver=driver) as served:
        for blob in made.blobs:
            begun, _ = await ask("POST", "a/b/blobs/uploads/")
            location = begun.headers.getRawHeaders("Location")[0]
            target = location if location.startswith("http") else served.url + location
            sign = "&" if "?" in target else "?"
            stored, _ = await ask("PUT", f"{target}{sign}digest={blob.digest}", data=blob.read())
            assert stored.code == 201
        stored, _ = await ask(
            "PUT",
            "a/b/manifests/v1",
            data=manifest,
            headers={"Content-Type": made.media_type},
        )
        assert stored.code == 201
        for _ in range(2):
            assert (await ask("GET", "a/b/manifests/v1"))[1] == manifest
            assert (await ask("GET", f"a/b/blobs/{layer}"))[1] == LAYER
        assert json.loads((await ask("GET", "a/b/tags/list"))[1])["tags"] == ["v1"]
        assert json.loads((await ask("GET", "_catalog"))[1])["repositories"] == ["a/b"]
        part, content = await ask("GET", f"a/b/blobs/{layer}", headers={"Range": "bytes=5-9"})
        assert (part.code, content) == (206, b"layer")
        assert (await ask("DELETE", "a/b/manifests/v1"))[0].code == 202
        assert (await ask("GET", "a/b/manifests/v1"))[0].code == 404
