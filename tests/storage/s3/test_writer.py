"""Unfinished files: pieces, joins, failures, and two processes that write one file."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.storage.s3.fake_bucket import MIN_PART_BYTES, FakeBucket
from tests.storage.s3.upload_helpers import CHUNK, MIB, Source, noise
from twisted_registry.storage.interfaces import (
    OffsetInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)
from twisted_registry.storage.s3 import writer as writer_module
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import S3Error, SlowDown
from twisted_registry.testing.stream_contract import error_of, read_file


@pytest_twisted.ensureDeferred
async def test_another_process_continues_and_small_pieces_are_joined_once(bucket, machines):
    content = noise(17 * MIB + 5)
    for number, start in enumerate(range(0, len(content), MIB)):
        writer = await machines[number % 2].writer("up/data", start)
        writer.write(content[start : start + MIB])
        assert await writer.flush() == min(start + MIB, len(content))
        await writer.close()
    reads = [key for name, key in bucket.asked if name == "read_object" and "/.data/" in key]
    assert len(reads) == 12  # all pieces of 1 MiB except the last of five, and those at the end
    assert (await machines[0].stat("up/data")).size == len(content)
    assert await read_file(machines[1], "up/data") == content
    await machines[1].move("up/data", "blob")
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content
    assert bucket.count("upload_part_copy") == 3
    await machines[0].delete("blob")


@pytest_twisted.ensureDeferred
async def test_file_is_continued_after_one_request(bucket, driver):
    for start in (0, 5):
        bucket.asked.clear()
        writer = await driver.writer("up/data", start)
        assert bucket.asked == [("read_object", "root/up/data")]
        writer.write(b"bytes")
        await writer.close()


@pytest_twisted.ensureDeferred
async def test_superseded_pieces_are_deleted_before_they_fill_the_list(bucket, driver, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_SUPERSEDED_PIECES", 20)
    content = noise(15 * MIB)
    step = MIB // 4
    writer = await driver.writer("up/data", 0)
    for start in range(0, len(content), step):
        writer.write(content[start : start + step])
        await writer.flush()
        assert len(bucket.objects) <= 45
    await writer.close()
    assert await read_file(driver, "up/data") == content
    await driver.move("up/data", "blob")
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content


@pytest_twisted.ensureDeferred
async def test_file_of_small_pieces_is_rewritten(bucket, driver):
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
async def test_two_processes_that_write_the_same_file(bucket, machines):
    """Contents of the same length and beginning have different marks."""
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
    # The piece list that was stored last is the file.
    third = await machines[0].writer("up/data", 11)
    assert third.content_id == second.content_id
    assert await read_file(machines[0], "up/data") == b"startsecond"
    await third.close()
    # A writer commits the content that it opened, although another writer changed the file.
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
async def test_size_of_the_last_stored_list_counts(machines):
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
async def test_failed_piece_is_not_part_of_the_file(bucket, driver):
    content = noise(4 * CHUNK)
    seen = []
    writer = await driver.writer("up/data", 0, seen.append)
    source = Source()
    writer.registerProducer(source, True)
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
    assert await read_file(driver, "up/data") == content[: 2 * CHUNK]
    again = await driver.writer("up/data", 2 * CHUNK)
    again.write(content[2 * CHUNK :])
    await again.commit()
    await driver.move("up/data", "blob")
    await again.close()
    assert bucket.objects.keys() == {"root/blob"}
    assert bucket.objects["root/blob"].content == content


@pytest_twisted.ensureDeferred
async def test_failed_piece_discards_later_ones(bucket, driver):
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
    # The later piece was deleted, and no list was stored.
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_failed_piece_list_fails_the_flush(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(b"bytes")
    bucket.hooks["put_object"] = lambda key: (
        S3Error("PutObject", "disk full", status=507) if key == "root/up/data" else None
    )
    error = await error_of(writer.flush())
    assert error.full
    assert isinstance(await error_of(writer.close()), StorageError)
    assert isinstance(await error_of(driver.stat("up/data")), StorageError)
    bucket.hooks.clear()
    await (await driver.writer("up/data", 0)).cancel()


@pytest_twisted.ensureDeferred
async def test_failed_observer_fails_the_flush(driver, bucket):
    def observe(data):
        raise RuntimeError("no")

    writer = await driver.writer("up/data", 0, observe)
    writer.write(b"bytes")
    assert "no" in str(await error_of(writer.flush()))
    assert writer.size == 0
    await writer.close()
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_file_that_was_deleted_while_it_is_written_is_not_restored(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(b"some")
    await writer.flush()
    await driver.delete("up")
    writer.write(b"more")
    assert isinstance(await error_of(writer.flush()), PathNotFound)
    await writer.close()
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_delete_of_an_unfinished_file_deletes_its_pieces(bucket, driver):
    writer = await driver.writer("up/data", 0)
    writer.write(noise(CHUNK + 5))
    await writer.close()
    await driver.put("up/data2", b"beside it")
    await driver.delete("up/data")
    assert bucket.objects.keys() == {"root/up/data2"}


@pytest_twisted.ensureDeferred
async def test_file_with_unstored_bytes_cannot_be_moved(bucket, driver):
    bucket.hooks["put_object"] = lambda key: Deferred()
    writer = await driver.writer("up/data", 0)
    writer.write(b"some")
    assert "being written" in str(await error_of(driver.move("up/data", "blob")))
    cancelling = writer.cancel()
    assert await cancelling is None
    assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_cancelled_open_releases_the_path(bucket, driver):
    waiting = Deferred()
    bucket.hooks["read_object"] = lambda key: waiting
    opening = driver.writer("up/data", 0)
    assert isinstance(await error_of(driver.writer("up/data", 0)), WriterBusy)
    opening.addErrback(lambda _: None)
    opening.cancel()
    bucket.hooks.clear()
    await (await driver.writer("up/data", 0)).close()


@pytest_twisted.ensureDeferred
async def test_complete_file_can_be_appended_to(bucket, driver):
    for size in (0, 7, CHUNK):
        content = noise(size)
        await driver.put("up/data", content)
        writer = await driver.writer("up/data", size)
        writer.write(b"tail")
        await writer.commit()
        assert await read_file(driver, "up/data") == content + b"tail"
        await writer.close()
        assert (await driver.stat("up/data")).size == size + 4
        assert await read_file(driver, "up/data") == content + b"tail"
        await driver.delete("up/data")
        assert bucket.objects == {}


@pytest_twisted.ensureDeferred
async def test_unfinished_file_can_be_read_and_copied(bucket, driver):
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
async def test_close_waits_for_pending_chunks(bucket, driver):
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


@pytest_twisted.ensureDeferred
async def test_close_that_is_cancelled_releases_the_path(bucket, driver):
    held = Deferred()
    bucket.hooks["put_object"] = lambda key: held if "/.data/" in key else None
    writer = await driver.writer("up/data", 0)
    writer.write(b"12345")
    closing = writer.close()
    closing.cancel()
    with pytest.raises(CancelledError):
        await closing
    assert isinstance(await error_of(driver.writer("up/data", 0)), WriterBusy)
    held.callback(None)
    assert await (await driver.writer("up/data", 5)).close() == 5


def test_minimum_chunk_is_the_minimum_part():
    assert S3Driver(FakeBucket(), reactor).min_chunk_bytes == MIN_PART_BYTES
