"""The memory that writers hold, and what they do while there is none."""

from __future__ import annotations

from collections import Counter

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.storage.s3.fake_bucket import FakeBucket
from tests.storage.s3.upload_helpers import CHUNK, MIB, Source, noise
from tests.support.inline_thread import InlineThread
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.upload_memory import PATIENCE_S, READ_BYTES, BlockBuffer
from twisted_registry.testing.stream_contract import error_of

LIMIT = 40 * MIB


@implementer(IPushProducer)
@define(eq=False)
class Client:
    """A client that sends a content, in reads of a size, while it is not paused."""

    content: bytes
    read_bytes: int = READ_BYTES
    sent: int = 0
    paused: bool = False
    committing: Deferred | None = None

    @property
    def is_done(self):
        return self.sent == len(self.content)

    def send(self, writer):
        """Send one read, if the writer accepts it; return whether it did."""
        if self.paused or self.is_done:
            return False
        piece = self.content[self.sent : self.sent + self.read_bytes]
        self.sent += len(piece)
        writer.write(piece)
        if self.is_done:
            writer.unregisterProducer()
            self.committing = writer.commit()
        return True

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False

    def stopProducing(self):
        raise AssertionError("no upload fails")


@define(eq=False)
class SlowBucket(FakeBucket):
    """A bucket whose uploads end when the test says so, and that records what is in flight."""

    pending: list[Deferred] = field(factory=list)
    in_flight: int = 0
    highest: int = 0

    def do(self, name, key, function, *arguments):
        if name not in {"put_object", "upload_part"} or key.endswith("/data"):
            return super().do(name, key, function, *arguments)
        self.hooks[name] = lambda _: self.pending.append(Deferred()) or self.pending[-1]
        try:
            return super().do(name, key, function, *arguments)
        finally:
            del self.hooks[name]

    def end_one(self):
        if self.pending:
            self.pending.pop(0).callback(None)
            return True
        return False


class World:
    """Uploads of many clients to one process."""

    def __init__(self, bucket, count, size, chunk=10 * MIB, known=False, read_bytes=READ_BYTES):
        self.bucket, self.clock = bucket, Clock()
        self.driver = S3Driver(bucket, self.clock, "root", chunk, threads=InlineThread())
        self.clients = [Client(noise(size, n), read_bytes) for n in range(count)]
        self.known = known
        self.writers = []
        self.highest = 0

    async def open(self):
        for number, client in enumerate(self.clients):
            destination = f"blob{number}" if self.known else None
            writer = await self.driver.writer(f"up{number}/data", 0, destination=destination)
            self.writers.append(writer)
            writer.registerProducer(client, True)

    @property
    def held(self):
        return self.driver.memory.used

    def run(self, seconds=0.0001, uploads=1):
        """Let every client send, and some uploads end, until all have sent everything."""
        for _ in range(10_000):
            for client, writer in zip(self.clients, self.writers, strict=True):
                client.send(writer)
                self.highest = max(self.highest, self.held)
            self.clock.advance(seconds)
            for _ in range(uploads):
                self.bucket.end_one()
            if all(client.is_done for client in self.clients):
                return
        raise AssertionError("the uploads do not proceed")

    async def finish(self):
        for number, (client, writer) in enumerate(zip(self.clients, self.writers, strict=True)):
            while self.bucket.end_one():
                pass
            assert await client.committing == len(client.content)
            moving = self.driver.move(f"up{number}/data", f"blob{number}")
            while self.bucket.end_one():
                pass
            await moving
            await writer.close()
            assert self.bucket.objects[f"root/blob{number}"].content == client.content
        assert self.held == 0
        assert len(self.bucket.objects) == len(self.clients)
        assert self.bucket.uploads == {}
        assert self.clock.getDelayedCalls() == []
        await self.driver.close()


@pytest.mark.parametrize("known", [False, True])
@pytest_twisted.ensureDeferred
async def test_many_uploads_never_exceed_the_bound(known):
    """All bytes that are in memory are counted."""
    world = World(SlowBucket(), 40, 7 * MIB, known=known)
    await world.open()
    assert sum(not client.paused for client in world.clients) == LIMIT // (2 * READ_BYTES)
    world.run()
    assert world.highest <= LIMIT
    await world.finish()
    # Few pieces are small although memory was short.
    counts = Counter(name for name, _ in world.bucket.asked)
    assert counts["put_object"] + counts["upload_part"] <= 40 * 5


@pytest_twisted.ensureDeferred
async def test_clients_that_wait_are_resumed_in_order():
    world = World(SlowBucket(), 30, 2 * MIB)
    await world.open()
    waiting = [number for number, client in enumerate(world.clients) if client.paused]
    assert waiting == list(range(20, 30))
    resumed = []
    for number in range(20):
        writer = world.writers[number]
        while world.clients[number].send(writer):
            pass
        while world.bucket.end_one():
            pass
        await world.clients[number].committing
        await writer.cancel()
        resumed += [n for n in waiting if not world.clients[n].paused and n not in resumed]
    assert resumed == waiting
    for writer in world.writers[20:]:
        writer.unregisterProducer()
        await writer.cancel()
    assert world.held == 0
    await world.driver.close()


@pytest.mark.parametrize("known", [False, True])
@pytest_twisted.ensureDeferred
async def test_clients_that_stall_do_not_block_others(known):
    """20 clients take all memory and send next to nothing."""
    world = World(SlowBucket(), 24, 12 * MIB, known=known)
    await world.open()
    stalled, others = world.clients[:20], world.clients[20:]
    assert all(client.paused for client in others)
    for client, writer in zip(stalled, world.writers, strict=False):
        client.read_bytes = 1000
        client.send(writer)
    world.clock.advance(PATIENCE_S)
    while world.bucket.end_one():
        pass
    assert not any(client.paused for client in others)
    pairs = list(zip(others, world.writers[20:], strict=True))
    for _ in range(1000):
        if not any([client.send(writer) for client, writer in pairs]):  # noqa: C419 - all send
            world.clock.advance(0.01)
            world.bucket.end_one()
    assert all(client.is_done for client in others)
    for client in stalled:
        client.read_bytes = READ_BYTES
    world.run()
    assert world.highest <= LIMIT
    await world.finish()


@pytest_twisted.ensureDeferred
async def test_slow_clients_are_given_what_they_can_fill():
    """40 clients of 1 MiB/s: three at a time would proceed if each took a whole piece."""
    world = World(SlowBucket(), 40, 6 * MIB, read_bytes=MIB // 4)
    await world.open()
    started = world.clock.seconds()
    world.run(seconds=0.25, uploads=40)
    assert world.highest <= LIMIT
    assert world.clock.seconds() - started < 40 * 6 / 3 / 2
    await world.finish()


@pytest.mark.parametrize("chunk", [64 * MIB, 5 * 1024 * MIB])
def test_bound_leaves_room_for_two_pieces_of_any_size(chunk):
    driver = S3Driver(FakeBucket(), Clock(), chunk_size=chunk)
    assert driver.memory.limit == 2 * (chunk + READ_BYTES)
    assert S3Driver(FakeBucket(), Clock()).memory.limit == LIMIT


@pytest.mark.parametrize("known", [False, True])
@pytest_twisted.ensureDeferred
async def test_chunk_size_above_the_usual_bound_is_obeyed(known):
    world = World(SlowBucket(), 1, 130 * MIB, chunk=64 * MIB, known=known)
    await world.open()
    world.run()
    await world.finish()
    counts = Counter(name for name, _ in world.bucket.asked)
    assert counts["upload_part" if known else "upload_part_copy"] == 3


@pytest_twisted.ensureDeferred
async def test_producer_is_paused_while_two_pieces_are_stored_and_one_is_complete():
    bucket = SlowBucket()
    world = World(bucket, 1, 100 * MIB, chunk=5 * MIB)
    await world.open()
    (client,), (writer,) = world.clients, world.writers
    while client.send(writer):
        pass
    assert len(bucket.pending) == 2
    assert 15 * MIB <= client.sent <= 15 * MIB + READ_BYTES
    assert bucket.end_one()
    assert not client.paused
    world.run()
    await world.finish()


@pytest_twisted.ensureDeferred
async def test_writer_that_is_closed_with_its_producer_returns_its_memory(driver):
    writer = await driver.writer("up/data", 0)
    writer.registerProducer(Source(), True)
    writer.write(b"some")
    assert driver.memory.used == 2 * READ_BYTES
    await writer.close()
    assert driver.memory.used == 0


@pytest_twisted.ensureDeferred
async def test_cancelled_upload_returns_its_memory(bucket, driver):
    writer = await driver.writer("up/data", 0)
    source = Source()
    writer.registerProducer(source, True)
    with pytest.raises(RuntimeError):
        writer.registerProducer(source, True)
    bucket.hooks["put_object"] = lambda key: Deferred()
    writer.write(noise(2 * CHUNK + 5))
    assert driver.memory.used >= 2 * CHUNK + 5
    await writer.cancel()
    assert driver.memory.used == 0
    writer.unregisterProducer()
    late = Source()
    writer.registerProducer(late, True)
    assert late.asked == ["stop"]
    assert isinstance(await error_of(writer.flush()), StorageError)


def test_small_blocks_are_joined():
    buffer, whole = BlockBuffer(), noise(100_000)
    for start in range(0, len(whole), 7):
        buffer.append(whole[start : start + 7])
    assert buffer.size == len(whole)
    first = buffer.take(30_000)
    buffer.append(whole)
    assert buffer.size == 2 * len(whole) - 30_000
    rest = buffer.take(buffer.size)
    assert b"".join(first) == whole[:30_000]
    assert b"".join(rest) == whole[30_000:] + whole
    assert len(first) + len(rest) <= 100_000 // (16 * 1024) + 4
    assert all(type(block) is bytes for block in first + rest)
    buffer.append(b"123")
    buffer.clear()
    assert (buffer.size, buffer.take(0)) == (0, [])
