"""Readers: truncated responses, objects that change, consumers that stop."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import Stalled, Unreachable
from twisted_registry.testing.stream_contract import RecordingConsumer, error_of

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (4 * 4096 + 1)


@pytest.fixture
def bucket():
    bucket = FakeBucket()
    bucket.store("file", CONTENT)
    return bucket


@pytest_twisted.async_yield_fixture
async def driver(bucket):
    driver = S3Driver(bucket, reactor, "", 5 * MIB)
    yield driver
    await driver.close()


async def read_file(driver, **byte_range):
    sink = RecordingConsumer()
    await (await driver.open("file", **byte_range)).deliver(sink)
    return sink.content


@pytest_twisted.ensureDeferred
async def test_truncated_response_is_continued(bucket, driver):
    bucket.breaks = [3 * MIB, 2 * MIB, 5]
    assert await read_file(driver) == CONTENT
    assert bucket.count("get_object") == 4
    bucket.breaks = [100]
    assert await read_file(driver, offset=7, length=MIB) == CONTENT[7 : MIB + 7]


@pytest_twisted.ensureDeferred
async def test_four_responses_without_a_byte_are_an_error(bucket, driver):
    bucket.breaks = [len(CONTENT) - 5] * 9
    reader = await driver.open("file", 5)
    sink = RecordingConsumer()
    assert "cut short" in str(await error_of(reader.deliver(sink)))
    assert sink.content == b""
    assert not sink.has_producer
    assert bucket.count("get_object") == 4


@pytest_twisted.ensureDeferred
async def test_changed_object_is_not_continued(bucket, driver):
    bucket.breaks = [3 * MIB]
    reader = await driver.open("file")
    bucket.store("file", CONTENT[::-1])
    assert isinstance(await error_of(reader.deliver(RecordingConsumer())), StorageError)


@pytest_twisted.ensureDeferred
async def test_failed_continuation_is_an_error(bucket, driver):
    bucket.breaks = [MIB]
    reader = await driver.open("file")
    # The client has repeated the request.
    bucket.hooks["get_object"] = lambda key: Unreachable("GetObject", "down", retryable=True)
    assert "down" in str(await error_of(reader.deliver(RecordingConsumer())))
    assert bucket.count("get_object") == 2


@pytest_twisted.ensureDeferred
async def test_stalled_response_is_continued_once_unless_bytes_arrive(bucket, driver):
    bucket.break_error = Stalled("GetObject", "no data", retryable=True)
    bucket.breaks = [3 * MIB, 2 * MIB, 5]
    assert await read_file(driver) == CONTENT
    bucket.breaks = [MIB] * 9
    reader = await driver.open("file")
    before = bucket.count("get_object")
    assert "no data" in str(await error_of(reader.deliver(RecordingConsumer())))
    assert bucket.count("get_object") == before + 1


@pytest_twisted.ensureDeferred
async def test_pause_between_two_responses(bucket, driver):
    """The second range is not requested before the consumer resumes."""
    writer = await driver.writer("up/data", 0)
    writer.write(CONTENT)
    writer.write(CONTENT)
    await writer.flush()
    await writer.close()
    bucket.piece = 10 * MIB
    sink = RecordingConsumer(pauses=True)
    done = (await driver.open("up/data")).deliver(sink)
    asked = bucket.count("get_object")
    for _ in range(3):
        await deferLater(reactor, 0)
    assert bucket.count("get_object") == asked
    while not done.called:
        sink.producer.resumeProducing()
        await deferLater(reactor, 0)
    assert sink.content == CONTENT * 2
    await driver.delete("up")


@pytest_twisted.ensureDeferred
async def test_stop_while_a_response_is_pending(bucket, driver):
    bucket.breaks = [MIB]
    reader = await driver.open("file")
    bucket.hooks["get_object"] = lambda key: Deferred()
    sink = RecordingConsumer()
    done = reader.deliver(sink)
    sink.producer.stopProducing()
    with pytest.raises(CancelledError):
        await done
    assert not sink.has_producer


@pytest_twisted.ensureDeferred
async def test_failed_observer_ends_the_feed(bucket, driver):
    seen = []

    def observe(data):
        seen.append(len(data))
        if len(seen) == 2:
            raise RuntimeError("enough")

    feeding = (await driver.open("file")).feed(observe)
    with pytest.raises(RuntimeError):
        await feeding
    assert sum(seen) < len(CONTENT)


@pytest_twisted.ensureDeferred
async def test_feed_can_be_cancelled(bucket, driver):
    bucket.hooks["get_object"] = lambda key: None if len(bucket.asked) < 2 else Deferred()
    bucket.breaks = [MIB]
    feeding = (await driver.open("file")).feed(lambda data: None)
    feeding.cancel()
    with pytest.raises(CancelledError):
        await feeding
    bucket.hooks.clear()


@pytest_twisted.ensureDeferred
async def test_closing_an_unused_reader_drops_the_response(bucket, driver):
    reader = await driver.open("file")
    reader.close()
    (body,) = bucket.bodies
    assert body.closed
    reader.close()
