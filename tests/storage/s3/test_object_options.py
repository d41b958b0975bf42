"""Object options, as they are stored by each operation that creates an object."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.support.s3_servers import BUCKET, client
from tests.support.s3_stores import make_driver
from twisted_registry.storage.s3.files import CopyOptions
from twisted_registry.storage.s3.interfaces import ObjectOptions

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("object_options", "encryption", "storage_class"),
    [
        (ObjectOptions(encrypt=True, storage_class="STANDARD_IA"), "AES256", "STANDARD_IA"),
        (ObjectOptions(encrypt=True, key_id="alias/registry"), "aws:kms", None),
        (ObjectOptions(), None, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_every_created_object_has_the_options(
    object_stores, object_options, encryption, storage_class
):
    store = object_stores.get("moto")
    rules = CopyOptions(5 * MIB, 5 * MIB)
    driver = make_driver(store, chunk_size=5 * MIB, copy_options=rules)
    driver.client.object_options = object_options
    await driver.put("put", b"1")
    await driver.create("created", b"1")
    for name, size in (("one", 1), ("two", 12 * MIB)):
        writer = await driver.writer(f"up/{name}", 0)
        writer.write(bytes(size))
        await writer.commit()
        await driver.move(f"up/{name}", f"joined-{name}")
        await writer.close()
        writer = await driver.writer(f"up/{name}", 0, destination=f"whole-{name}")
        for _ in range(size // (5 * MIB)):
            writer.write(bytes(5 * MIB))
        writer.write(b"1")
        await writer.commit()
        await driver.move(f"up/{name}", f"whole-{name}")
        await writer.close()
    await driver.copy("joined-two", "copied")
    paths = [entry.path for entry in await driver.walk("")]
    assert len(paths) == 7
    s3 = client(store)
    for path in paths:
        head = s3.head_object(Bucket=BUCKET, Key=f"{driver.root}/{path}")
        assert head.get("ServerSideEncryption") == encryption, path
        assert head.get("StorageClass") == storage_class, path
    await driver.close()
