"""Copies and moves of objects made of parts, on real stores."""

from __future__ import annotations

import hashlib
import os

import pytest
import pytest_twisted

from tests.support.s3_stores import make_driver
from twisted_registry.storage.interfaces import PathNotFound
from twisted_registry.storage.s3.errors import PreconditionFailed
from twisted_registry.storage.s3.files import CopyOptions

MIB = 1024 * 1024
PART_BYTES = 5 * MIB
CONTENT = os.urandom(12 * MIB)
#: Copies by one request, and in parts.
OPTIONS = {"whole": CopyOptions(), "parts": CopyOptions(PART_BYTES, PART_BYTES)}


@pytest_twisted.async_yield_fixture
async def drivers(store):
    """Two drivers over one root, by how they copy."""
    drivers = {
        name: make_driver(store, root="copies", copy_options=options)
        for name, options in OPTIONS.items()
    }
    yield drivers
    await drivers["whole"].delete("a")
    for driver in drivers.values():
        await driver.close()


async def store_in_parts(driver, path):
    """Store an object of three parts, as a large push does."""
    client, key = driver.client, f"copies/{path}"
    upload_id = await client.create_multipart_upload(key)
    parts = [
        await client.upload_part(key, upload_id, number, CONTENT[start : start + PART_BYTES])
        for number, start in enumerate(range(0, len(CONTENT), PART_BYTES), 1)
    ]
    await client.complete_multipart_upload(key, upload_id, parts)


async def digest_of(driver, path):
    running = hashlib.sha256()
    await (await driver.open(path)).feed(running.update)
    return running.hexdigest()


@pytest.mark.parametrize("how", OPTIONS)
@pytest_twisted.ensureDeferred
async def test_an_object_of_parts_is_copied_and_moved(drivers, how):
    driver, expected = drivers[how], hashlib.sha256(CONTENT).hexdigest()
    await store_in_parts(driver, "a/source")
    await driver.copy("a/source", "a/copy")
    await driver.move("a/copy", "a/moved")
    # Deleting the original must not delete bytes of the copy.
    await driver.delete("a/source")
    assert await digest_of(driver, "a/moved") == expected
    await driver.move("a/moved", "a/back")
    assert await digest_of(driver, "a/back") == expected
    for gone in ("a/source", "a/copy", "a/moved"):
        with pytest.raises(PathNotFound):
            await driver.stat(gone)


@pytest_twisted.ensureDeferred
async def test_an_object_of_parts_is_read_by_its_etag(drivers):
    """A read that was interrupted continues only if the object has not changed."""
    driver = drivers["whole"]
    await store_in_parts(driver, "a/source")
    client, key = driver.client, "copies/a/source"
    info = await client.head_object(key)
    body = await client.get_object(key, PART_BYTES - 10, 20, info.etag)
    assert await body.collect(20) == CONTENT[PART_BYTES - 10 : PART_BYTES + 10]
    with pytest.raises(PreconditionFailed):
        await client.get_object(key, 0, 10, "0" * 32)
