from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.storage_contract import STORAGE_CONTRACT, check_contract


def _memory(_root):
    return MemoryDriver(Clock())


def _filesystem(root):
    return FilesystemDriver(str(root), reactor)


def _checked(root):
    return CheckedDriver(_filesystem(root), reactor)


@pytest_twisted.async_yield_fixture(params=[_memory, _filesystem, _checked])
async def driver(request, tmp_path):
    driver = request.param(tmp_path)
    yield driver
    await driver.close()


@pytest.mark.parametrize("test", STORAGE_CONTRACT, ids=lambda test: test.__name__)
@pytest_twisted.ensureDeferred
async def test_storage_contract(test, driver):
    await check_contract(driver, test)
