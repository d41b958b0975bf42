"""The storage contract, on real stores, on moto, and on the fake bucket over HTTP."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.support.s3_stores import make_driver
from twisted_registry.testing.storage_contract import STORAGE_CONTRACT, check_contract


@pytest_twisted.async_yield_fixture(
    params=[
        "moto",
        "strict",
        pytest.param("swift", marks=pytest.mark.integration),
        pytest.param("ceph", marks=pytest.mark.integration),
    ]
)
async def driver(request, object_stores):
    driver = make_driver(object_stores.get(request.param))
    yield driver
    await driver.close()


@pytest.mark.parametrize("test", STORAGE_CONTRACT, ids=lambda test: test.__name__)
@pytest_twisted.ensureDeferred
async def test_storage_contract(test, driver, request):
    if (
        "moto" in request.node.name
        and test.__name__ == "create_succeeds_once_of_several_concurrent_calls"
    ):
        pytest.skip("moto checks and writes in two steps")
    await check_contract(driver, test)
