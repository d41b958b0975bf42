"""Pieces and piece lists that were damaged in the store or on their way."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.storage.s3.fake_bucket import Stored
from tests.storage.s3.upload_helpers import MIB, noise
from twisted_registry.storage.s3.pieces import Piece, PieceList, with_checksum
from twisted_registry.testing.stream_contract import error_of, read_file


@pytest.mark.parametrize("damaged_reads", [1, 3])
@pytest_twisted.ensureDeferred
async def test_damaged_piece_is_read_again_and_never_joined(bucket, driver, damaged_reads):
    content = noise(6 * MIB)
    writer = await driver.writer("up/data", 0)
    writer.write(content[:MIB])
    await writer.close()
    right, reads = {}, []

    def damage(key):
        if "/.data/" in key:
            stored = right.setdefault(key, bucket.objects[key])
            reads.append(key)
            bad = Stored(b"?" + stored.content[1:], stored.etag)
            bucket.objects[key] = bad if len(reads) <= damaged_reads else stored

    bucket.hooks["read_object"] = damage
    writer = await driver.writer("up/data", MIB)
    writer.write(content[MIB:])
    if damaged_reads == 1:
        assert await writer.flush() == len(content)
        assert await read_file(driver, "up/data") == content
    else:
        assert "is damaged" in str(await error_of(writer.flush()))
        assert writer.size == MIB
    await writer.close()


@pytest.mark.parametrize("damaged_reads", [1, 3])
@pytest.mark.parametrize("large", [False, True], ids=["all are small", "the last two are small"])
@pytest_twisted.ensureDeferred
async def test_damaged_last_piece_never_becomes_a_part(bucket, driver, large, damaged_reads):
    chunks = [noise(6 * MIB)] * large + [b"123", b"456"]
    writer = await driver.writer("up/data", 0)
    for chunk in chunks:
        writer.write(chunk)
        await writer.flush()
    await writer.commit()
    right, reads = {}, []

    def damage(key):
        stored = right.setdefault(key, bucket.objects[key])
        reads.append(key)
        bad = Stored(b"?" + stored.content[1:], stored.etag)
        bucket.objects[key] = bad if len(reads) <= damaged_reads else stored

    bucket.hooks["read_object"] = damage
    if damaged_reads == 1:
        await driver.move("up/data", "blob")
        assert bucket.objects["root/blob"].content == b"".join(chunks)
    else:
        assert "is damaged" in str(await error_of(driver.move("up/data", "blob")))
        assert "root/blob" not in bucket.objects
    await writer.close()


@pytest_twisted.ensureDeferred
async def test_damaged_piece_list_is_an_error(bucket, driver):
    whole = PieceList((Piece("a", 5, "e"),)).to_bytes()
    for damaged in (
        *(b"", whole[:-1], whole.replace(b"5", b"6"), whole.replace(b'"a"', b'"b"')),
        *map(with_checksum, (b"", b"{}", b'{"pieces": [[1]], "spent": []}', b"[" * 5000)),
    ):
        bucket.store("root/up/data", damaged, metadata="unfinished 5")
        assert "damaged" in str(await error_of(driver.get("up/data", 10)))
        assert "damaged" in str(await error_of(driver.writer("up/data", 5)))
    bucket.store("root/up/data", b"whole", metadata="something else")
    assert await driver.get("up/data", 10) == b"whole"


@pytest_twisted.ensureDeferred
async def test_piece_list_that_was_damaged_on_its_way_is_read_again(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(b"12345")
    await writer.close()
    stored = bucket.objects["root/up/data"]
    reads = []

    def damage(key):
        if key == "root/up/data":
            reads.append(key)
            # Valid JSON with another size.
            content = stored.content.replace(b",5,", b",9,") if len(reads) < 3 else stored.content
            bucket.objects[key] = Stored(content, stored.etag, metadata=stored.metadata)

    bucket.hooks["read_object"] = damage
    assert await driver.get("up/data", 10) == b"12345"
    assert len(reads) == 3
