"""Unfinished files: pieces, joins, failures, two machines on one of them."""

from __future__ import annotations

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.storage.s3.fake_bucket import MIN_PART_BYTES, FakeBucket
from tests.storage.s3.upload_helpers import CHUNK, MIB, Source, noise
from twisted_registry.storage.interfaces import (
    OffsetInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)
from twisted_registry.storage.s3 import sinks
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import S3Error, SlowDown
from twisted_registry.testing.contract_kit import error_of, read


@pytest_twisted.ensureDeferred
async def test_another_machine_goes_on_and_small_pieces_are_joined_once(bucket, machines):
    content = noise(17 * MIB + 5)
    for number, start in enumerate(range(0, len(content), MIB)):
        writer = await machines[number % 2].writer("up/data", start)
        writer.write(content[start : start + MIB])
        assert await writer.flush() == min(start + MIB, len(content))
        await writer.close()
    reads = [key for name, key in bucket.asked if name == "read_object" and "/.data/" in key]
    assert len(reads) == 12  # each piece of a MiB but the last of five, and those at the end
    assert (await machines[0].stat("up/data")).size == len(content)
    assert await read(machines[1], "up/data") == content
    await machines[1].move("up/data", "blob")
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content
    assert bucket.count("upload_part_copy") == 3
    await machines[0].delete("blob")


@pytest_twisted.ensureDeferred
async def test_very_small_chunks_do_not_pile_up(bucket, driver, monkeypatch):
    """What was joined is deleted before its names fill the list."""
    monkeypatch.setattr(sinks, "_MAX_SUPERSEDED_PIECES", 20)
    content = noise(15 * MIB)
    step = MIB // 4
    for start in range(0, len(content), step):
        writer = await driver.writer("up/data", start)
        writer.write(content[start : start + step])
        await writer.close()
        assert len(bucket.objects) <= 45
    assert await read(driver, "up/data") == content
    await driver.move("up/data", "blob")
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content


@pytest_twisted.ensureDeferred
async def test_a_file_of_small_pieces_alone_is_put_together(bucket, driver):
    writer = await driver.writer("up/data", 0)
    for _ in range(3):
        writer.write(b"123")
        await writer.flush()
    await writer.commit()
    await driver.move("up/data", "blob")
    await writer.close()
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == b"123" * 3


@pytest_twisted.ensureDeferred
async def test_two_machines_of_which_each_believes_to_be_alone(bucket, machines):
    """Of the same length and of the same start, and never one's bytes under the other's mark."""
    writer = await machines[0].writer("up/data", 0)
    writer.write(b"start")
    await writer.flush()
    content_id = writer.content_id
    await writer.close()
    first, second = [await driver.writer("up/data", 5) for driver in machines]
    assert first.content_id == second.content_id == content_id
    first.write(b"first!")
    second.write(b"second")
    assert await first.flush() == await second.flush() == 11
    assert len({first.content_id, second.content_id, content_id}) == 3
    await first.close()
    # The list that was written last is the upload.
    third = await machines[0].writer("up/data", 11)
    assert third.content_id == second.content_id
    assert await read(machines[0], "up/data") == b"startsecond"
    await third.close()
    # What a writer commits is what it knows, whatever another has made of the upload since.
    late = await machines[0].writer("up/data", 11)
    second.write(b" and more")
    await second.flush()
    assert await late.commit() == 11
    await machines[0].move("up/data", "blob")
    await late.close()
    assert bucket.objects["root/blob"].content == b"startsecond"
    assert isinstance(await error_of(machines[1].move("up/data", "other")), PathNotFound)
    assert "root/other" not in bucket.objects
    await second.cancel()
    await machines[0].delete("up")
    assert bucket.objects.keys() == {"root/blob"}


@pytest_twisted.ensureDeferred
async def test_the_other_machine_has_another_size(machines):
    first, second = [await driver.writer("up/data", 0) for driver in machines]
    first.write(b"123")
    await first.flush()
    second.write(b"12345")
    await second.flush()
    await first.close()
    error = await error_of(machines[0].writer("up/data", 3))
    assert isinstance(error, OffsetInvalid)
    assert error.size == 5
    await second.cancel()


@pytest_twisted.ensureDeferred
async def test_a_piece_that_can_not_be_stored_is_not_counted(bucket, driver):
    content = noise(4 * CHUNK)
    seen = []
    writer = await driver.writer("up/data", 0, seen.append)
    writer.registerProducer(Source(), True)
    source = writer._producer
    keys = []

    def third_fails(key):
        keys.append(key)
        return SlowDown("PutObject", "slow down", status=503) if len(keys) == 3 else None

    bucket.hooks["put_object"] = third_fails
    for start in range(0, len(content), MIB):
        writer.write(content[start : start + MIB])
        await deferLater(reactor, 0)
    error = await error_of(writer.flush())
    assert "slow down" in str(error)
    assert source.asked[-1] == "stop"
    assert writer.size == 2 * CHUNK
    assert (await error_of(writer.commit())) is error
    bucket.hooks.clear()
    assert await writer.close() == 2 * CHUNK
    assert b"".join(seen) == content[: 2 * CHUNK]
    assert await read(driver, "up/data") == content[: 2 * CHUNK]
    again = await driver.writer("up/data", 2 * CHUNK)
    again.write(content[2 * CHUNK :])
    await again.commit()
    await driver.move("up/data", "blob")
    await again.close()
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content


@pytest_twisted.ensureDeferred
async def test_an_earlier_piece_that_fails_takes_the_later_ones_along(bucket, driver):
    held = Deferred()
    bucket.hooks["put_object"] = lambda key: held if bucket.count("put_object") == 1 else None
    writer = await driver.writer("up/data", 0)
    writer.write(noise(CHUNK))
    writer.write(noise(CHUNK, 2))
    flushing = writer.flush()
    held.errback(SlowDown("PutObject", "slow down", status=503))
    assert isinstance(await error_of(flushing), StorageError)
    assert writer.size == 0
    bucket.hooks.clear()
    assert await writer.close() == 0
    # What landed behind it is gone, and nothing says that there was an upload.
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_a_list_that_can_not_be_stored_fails_the_flush(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(b"bytes")
    bucket.hooks["put_object"] = lambda key: (
        S3Error("PutObject", "no room", status=507) if key == "root/up/data" else None
    )
    error = await error_of(writer.flush())
    assert error.full
    assert isinstance(await error_of(writer.close()), StorageError)
    assert isinstance(await error_of(driver.stat("up/data")), StorageError)
    bucket.hooks.clear()
    await (await driver.writer("up/data", 0)).cancel()


@pytest_twisted.ensureDeferred
async def test_an_observer_that_fails_is_an_error(driver, bucket):
    def observe(data):
        raise RuntimeError("no")

    writer = await driver.writer("up/data", 0, observe)
    writer.write(b"bytes")
    assert "no" in str(await error_of(writer.flush()))
    assert writer.size == 0
    await writer.close()
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_what_is_deleted_while_it_is_written_does_not_come_back(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(b"some")
    await writer.flush()
    await driver.delete("up")
    writer.write(b"more")
    assert isinstance(await error_of(writer.flush()), PathNotFound)
    await writer.close()
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_delete_of_an_unfinished_file_takes_its_pieces(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(noise(CHUNK + 5))
    await writer.close()
    await driver.put("up/data2", b"beside it")
    await driver.delete("up/data")
    assert bucket.objects.keys() == {"root/up/data2"}


@pytest_twisted.ensureDeferred
async def test_what_is_being_written_can_not_be_moved(bucket, driver):
    bucket.hooks["put_object"] = lambda key: Deferred()
    writer = await driver.writer("up/data", 0)
    writer.write(b"some")
    assert "being written" in str(await error_of(driver.move("up/data", "blob")))
    cancelling = writer.cancel()
    assert await cancelling is None
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_a_writer_that_could_not_be_opened_holds_nothing(bucket, driver):
    waiting = Deferred()
    bucket.hooks["read_object"] = lambda key: waiting
    opening = driver.writer("up/data", 0)
    assert isinstance(await error_of(driver.writer("up/data", 0)), WriterBusy)
    opening.addErrback(lambda _: None)
    opening.cancel()
    bucket.hooks.clear()
    await (await driver.writer("up/data", 0)).close()


@pytest_twisted.ensureDeferred
async def test_a_whole_object_can_grow(bucket, driver):
    for size in (0, 7, CHUNK):
        content = noise(size)
        await driver.put("up/data", content)
        writer = await driver.writer("up/data", size)
        writer.write(b"tail")
        await writer.commit()
        assert await read(driver, "up/data") == content + b"tail"
        await writer.close()
        assert (await driver.stat("up/data")).size == size + 4
        assert await read(driver, "up/data") == content + b"tail"
        await driver.delete("up/data")
        assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_an_unfinished_file_is_read_like_any_other(bucket, driver):
    content = noise(2 * CHUNK + 100)
    writer = await driver.writer("up/data", 0)
    writer.write(content)
    for closed in (False, True):
        await (writer.close() if closed else writer.flush())
        assert await driver.get("up/data", len(content)) == content
        assert "more than 5" in str(await error_of(driver.get("up/data", 5)))
        for offset, length in ((0, 1), (CHUNK - 3, 7), (len(content) - 2, 9), (len(content), 1)):
            pieces = []
            await (await driver.open("up/data", offset, length)).feed(pieces.append)
            assert b"".join(pieces) == content[offset:][:length]
        assert isinstance(await error_of(driver.open("up/data", len(content) + 1)), OffsetInvalid)
        await driver.copy("up/data", "copy")
        assert bucket.objects["root/copy"].content == content
    await driver.delete("up")


@pytest_twisted.ensureDeferred
async def test_close_waits_for_what_is_on_its_way(bucket, driver):
    held = Deferred()
    bucket.hooks["put_object"] = lambda key: held if "/.data/" in key else None
    writer = await driver.writer("up/data", 0)
    writer.write(b"12345")
    closing, again = writer.close(), writer.close()
    assert not closing.called
    held.callback(None)
    assert await closing == await again == 5
    assert isinstance(await error_of(writer.flush()), StorageError)
    assert await driver.get("up/data", 5) == b"12345"


def test_part_size_is_what_the_driver_believes():
    assert S3Driver(FakeBucket(), reactor).min_chunk_bytes == MIN_PART_BYTES
