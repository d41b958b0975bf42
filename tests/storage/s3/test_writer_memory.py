"""The memory that uploads hold."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.storage.s3.upload_helpers import CHUNK, MIB, Source, noise
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.writer import MemoryBudget


@pytest_twisted.ensureDeferred
async def test_producer_is_paused_while_two_chunks_are_held(bucket, driver):
    held = []

    def hold(key):
        held.append(Deferred())
        return held[-1]

    bucket.hooks["put_object"] = hold
    writer = await driver.writer("up/data", 0)
    source = Source()
    writer.registerProducer(source, True)
    with pytest.raises(RuntimeError):
        writer.registerProducer(source, True)
    writer.write(noise(CHUNK))
    assert source.asked == []
    writer.write(noise(CHUNK - 1))
    assert source.asked == []
    writer.write(b"x")
    assert source.asked == ["pause"]
    assert len(held) == 2
    writer.write(noise(CHUNK))
    assert len(held) == 2
    held[0].callback(None)
    assert source.asked == ["pause"]
    held[1].callback(None)
    assert source.asked == ["pause", "resume"]
    bucket.hooks.clear()
    writer.unregisterProducer()
    for one in held[2:]:
        one.callback(None)
    assert await writer.flush() == 3 * CHUNK
    await writer.cancel()
    late = Source()
    writer.registerProducer(late, True)
    assert late.asked == ["stop"]


@pytest_twisted.ensureDeferred
async def test_uploads_share_the_memory_budget(bucket):
    """Many uploads together stay near the budget, and all of them finish."""
    budget = MemoryBudget(8 * MIB)
    driver = S3Driver(bucket, reactor, "root", CHUNK, budget=budget)
    writers = [await driver.writer(f"up{number}/data", 0) for number in range(12)]
    sources = [Source() for _ in writers]
    for writer, source in zip(writers, sources, strict=True):
        writer.registerProducer(source, True)
    contents = [noise(7 * MIB, number) for number in range(len(writers))]
    highest = 0
    positions = [0] * len(writers)
    while any(position < 7 * MIB for position in positions):
        for number, (writer, source) in enumerate(zip(writers, sources, strict=True)):
            paused = source.asked and source.asked[-1] == "pause"
            if not paused and positions[number] < 7 * MIB:
                start = positions[number]
                writer.write(contents[number][start : start + MIB // 2])
                positions[number] += MIB // 2
                highest = max(highest, budget.held_bytes)
        await deferLater(reactor, 0)
    assert highest <= 10 * MIB
    for number, writer in enumerate(writers):
        writer.unregisterProducer()
        await writer.commit()
        await driver.move(f"up{number}/data", f"blob{number}")
        await writer.close()
        assert bucket.objects[f"root/blob{number}"].content == contents[number]
    assert budget.held_bytes == 0
    assert len(bucket.objects) == len(writers)
    await driver.close()


@pytest_twisted.ensureDeferred
async def test_uploads_of_parts_share_the_memory_budget(bucket):
    """One writer continues until it has enough for a part, although the budget is exhausted."""
    budget = MemoryBudget(6 * MIB)
    driver = S3Driver(bucket, reactor, "root", CHUNK, budget=budget)
    writers = [await driver.writer(f"up{n}", 0, destination=f"blob{n}") for n in range(4)]
    sources = [Source() for _ in writers]
    for writer, source in zip(writers, sources, strict=True):
        writer.registerProducer(source, True)
    left = [12] * len(writers)
    while any(left):
        for number, (writer, source) in enumerate(zip(writers, sources, strict=True)):
            paused = source.asked and source.asked[-1] == "pause"
            if not paused and left[number]:
                writer.write(noise(MIB, number))
                left[number] -= 1
        await deferLater(reactor, 0)
    for number, writer in enumerate(writers):
        assert await writer.commit() == 12 * MIB
        await driver.move(f"up{number}", f"blob{number}")
        await writer.close()
        assert bucket.objects[f"root/blob{number}"].content == noise(MIB, number) * 12
    assert bucket.uploads == {}
    assert budget.held_bytes == 0
    await driver.close()
