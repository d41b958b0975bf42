from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.testing.storage_contract import STORAGE_CONTRACT, check_contract


@pytest_twisted.async_yield_fixture(params=["usual", "small", "unconditional", "careless"])
async def driver(request):
    """Fakes with pages of 1000 and of 2 keys, and with and without conditional writes."""
    bucket = FakeBucket()
    if request.param == "small":
        bucket = FakeBucket(page=2, piece=1_000_003)
    elif request.param != "usual":
        bucket = FakeBucket(conditional="unknown" if request.param == "unconditional" else "")
    driver = S3Driver(bucket, reactor, "/some/root", 5 * 1024 * 1024)
    yield driver
    await driver.close()
    assert bucket.closed
    assert bucket.objects == {}
    assert bucket.uploads == {}


@pytest.mark.parametrize("test", STORAGE_CONTRACT, ids=lambda test: test.__name__)
@pytest_twisted.ensureDeferred
async def test_storage_contract(test, driver):
    await check_contract(driver, test)


@pytest.mark.parametrize("after", ["\x00", "a\x00z", "a\x7f", "b\ud800", "a" * 3000])
@pytest_twisted.ensureDeferred
async def test_names_that_xml_cannot_contain(after):
    """Stores repeat the start of a page, which clients choose, in their XML."""
    bucket = FakeBucket()
    driver = S3Driver(bucket, reactor)
    names = ["a", "a-", "aa", "b", "c"]
    for name in names:
        await driver.put(f"x/{name}/file", b"1")
    later = [name for name in names if name > after]
    assert list(await driver.list_folders("x", after)) == later
    assert list(await driver.list_folders("x", after, containing="file")) == later
    assert [entry.path for entry in await driver.list("x", after)] == later
    paths = sorted(f"x/{name}/file" for name in names)
    walked = [entry.path for entry in await driver.walk("x", f"x/{after}")]
    assert walked == [path for path in paths if path > f"x/{after}"]
    await driver.close()
