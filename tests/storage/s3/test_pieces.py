"""The parts of finished objects: their sizes, and the pieces that they are made of."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import succeed

from tests.storage.s3.fake_bucket import FakeBucket, Stored
from tests.storage.s3.upload_helpers import CHUNK, MIB, noise
from twisted_registry.storage.interfaces import FileTooLarge
from twisted_registry.storage.s3.errors import InvalidPart
from twisted_registry.storage.s3.pieces import MAX_PARTS, Piece, PieceList, part_bytes
from twisted_registry.testing.stream_contract import error_of

GIB = 1024 * MIB


def list_of(*sizes):
    return PieceList(tuple(Piece(str(number), size, "") for number, size in enumerate(sizes)))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((), 10 * MIB),
        ((10 * MIB, 3), 10 * MIB),
        ((7 * MIB, 7 * MIB), 7 * MIB),
        ((5,), 5 * MIB),
        ((GIB,), 10 * MIB),
    ],
)
def test_parts_have_the_size_of_the_first_piece_within_limits(sizes, expected):
    assert list_of(*sizes).first_bytes(10 * MIB) == expected


def test_pieces_are_grouped_by_parts():
    parts, rest = list_of(6 * MIB, MIB, 5 * MIB, 6 * MIB, 2 * MIB, 3 * MIB).parts(10 * MIB)
    assert [[piece.name for piece in part] for part in parts] == [["0"], ["1", "2"], ["3"]]
    assert [piece.name for piece in rest] == ["4", "5"]
    assert PieceList().parts(10 * MIB) == ([], ())


def test_later_parts_are_larger_so_that_large_files_fit():
    """The first 48 GiB have equal parts; 10,000 parts hold 146 GiB instead of 97."""
    sizes = [part_bytes(number, 10 * MIB, 10 * MIB) for number in range(1, MAX_PARTS + 1)]
    assert set(sizes[:5000]) == {10 * MIB}
    assert set(sizes[5000:]) == {20 * MIB}
    assert sum(sizes) == 150_000 * MIB
    # Small chunks at the beginning do not reduce the size of later parts.
    assert part_bytes(MAX_PARTS, 5 * MIB, 10 * MIB) == 20 * MIB
    assert part_bytes(MAX_PARTS, 5 * GIB, 5 * GIB) == 5 * GIB
    parts, rest = list_of(*sizes, 1).parts(10 * MIB)
    assert len(parts) == MAX_PARTS
    assert len(rest) == 1


@pytest.mark.parametrize("full", [False, True])
@pytest_twisted.ensureDeferred
async def test_file_of_too_many_parts_is_refused(bucket, driver, full):
    count = MAX_PARTS - (not full)
    sizes = [part_bytes(number, CHUNK, CHUNK) for number in range(1, count + 1)]
    piece_list = list_of(*sizes)
    bucket.store("root/up/data", piece_list.to_bytes(), metadata=piece_list.metadata)
    writer = await driver.writer("up/data", piece_list.size)
    writer.write(b"the last part may be small")
    if full:
        error = await error_of(writer.flush())
        assert isinstance(error, FileTooLarge)
        assert str(error) == (
            f"up/data: is larger than 10000 parts of {CHUNK} bytes: raise chunksize"
        )
        assert await writer.close() == piece_list.size
    else:
        assert await writer.flush() == piece_list.size + 26
        await writer.close()


@pytest.mark.parametrize("known", [False, True])
@pytest_twisted.ensureDeferred
async def test_parts_are_equal_whatever_the_sizes_of_writes(bucket, driver, known):
    content = noise(3 * CHUNK + MIB)
    writer = await driver.writer("up/data", 0, destination="blob" if known else None)
    for start in range(0, len(content), 999_983):
        writer.write(content[start : start + 999_983])
    await writer.commit()
    await driver.move("up/data", "blob")
    await writer.close()
    assert bucket.objects["root/blob"].content == content
    assert bucket.part_sizes["root/blob"] == [CHUNK] * 3 + [MIB]


@pytest.mark.parametrize("chunk", [3_000_017, 5 * MIB, 7_000_001, 13_000_003])
@pytest_twisted.ensureDeferred
async def test_parts_are_equal_whatever_the_sizes_of_chunks(bucket, machines, chunk):
    """Two machines take turns with the chunks of a client."""
    content = noise(40 * MIB)
    for number, start in enumerate(range(0, len(content), chunk)):
        writer = await machines[number % 2].writer("up/data", start)
        writer.write(content[start : start + chunk])
        await writer.flush()
        await writer.close()
    await machines[0].move("up/data", "blob")
    assert bucket.objects["root/blob"].content == content
    *sizes, last = bucket.part_sizes["root/blob"]
    assert len(set(sizes)) == 1
    assert last <= sizes[0] <= CHUNK
    assert bucket.objects.keys() == {"root/blob"}


@pytest.mark.parametrize("known", [False, True])
@pytest_twisted.ensureDeferred
async def test_pieces_that_were_not_joined_for_lack_of_memory_are_joined_at_the_end(
    bucket, driver, known
):
    memory = driver.memory
    content = noise(3 * CHUNK)
    writer = await driver.writer("up/data", 0, destination="blob" if known else None)
    writer.write(content[: 2 * MIB])
    writer.give_up(0)
    memory.take_excess(memory.limit)  # others use all of it
    for start in range(2 * MIB, len(content), MIB):
        writer.write(content[start : start + MIB])
    await writer.commit()
    assert bucket.count("read_object") == (not known)
    right = dict(bucket.objects)

    def damage_once(key):
        stored = right.pop(key, None)
        if stored is not None:
            bucket.objects[key] = Stored(bytes(len(stored.content)), stored.etag)
            restored.append((key, stored))
        else:
            bucket.objects.update(restored)

    restored = []
    bucket.hooks["read_object"] = damage_once
    moving = driver.move("up/data", "blob")
    assert not moving.called
    memory.release(memory.limit)
    await moving
    await writer.close()
    assert memory.used == 0
    assert len(restored) == 2  # the pieces of the first part, whose checksums were verified
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content
    assert bucket.part_sizes["root/blob"] == [5 * MIB, 5 * MIB, 5 * MIB, 3 * MIB]


@pytest_twisted.ensureDeferred
async def test_double_refuses_unequal_parts_unless_told_otherwise():
    for equal in (True, False):
        bucket = FakeBucket(equal_parts=equal)
        upload_id = await bucket.create_multipart_upload("a")
        parts = [
            await bucket.upload_part("a", upload_id, number, bytes(size))
            for number, size in enumerate((6 * MIB, 5 * MIB, 1), 1)
        ]
        completing = bucket.complete_multipart_upload("a", upload_id, parts)
        if equal:
            completing.addErrback(lambda failure: failure.trap(InvalidPart) and succeed(None))
        await completing
        assert ("a" in bucket.objects) != equal
