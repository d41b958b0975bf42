"""The storage contract, on real stores and on moto."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.support.s3_stores import make_driver
from twisted_registry.testing.storage_contract import ALL_PROMISES, check_promise


@pytest_twisted.async_yield_fixture(
    params=[
        "moto",
        pytest.param("swift", marks=pytest.mark.integration),
        pytest.param("ceph", marks=pytest.mark.integration),
    ]
)
async def driver(request, object_stores):
    driver = make_driver(object_stores.get(request.param))
    yield driver
    await driver.close()


@pytest.mark.parametrize("promise", ALL_PROMISES, ids=lambda promise: promise.__name__)
@pytest_twisted.ensureDeferred
async def test_promise(promise, driver, request):
    if "moto" in request.node.name and promise.__name__ == "create_stores_once":
        pytest.skip("moto checks and writes in two steps")
    await check_promise(driver, promise)
