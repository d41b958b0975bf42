"""The registry as a whole and its small parts: secret, locks, many at once, bodies, failures."""

from __future__ import annotations

from contextlib import suppress

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.repository.watched_driver import Pauses, fails_at
from tests.repository.worlds import ORIGIN, Body, SlowBody, World, begin, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import MAX_CONCURRENT, KeyedLock, map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.streaming import (
    BodyBuffer,
    ContentTooLarge,
    read_body,
    stream_body,
)
from twisted_registry.storage.interfaces import (
    IPresigner,
    OffsetInvalid,
    PathExists,
    PathInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)
from twisted_registry.storage.memory import MemoryDriver

# The secret.


def test_upload_secret_is_created_once_for_a_store(world):
    secret = done(world.registry.upload_secret.load())
    assert len(secret) == 64
    assert done(world.registry.upload_secret.load()) == secret
    world.restart()
    assert done(world.registry.upload_secret.load()) == secret
    assert done(World().registry.upload_secret.load()) != secret


def test_concurrent_creation_gives_one_upload_secret(world):
    pauses = Pauses("create", "")
    world.driver.before = pauses
    waiting = [
        begin(registry.upload_secret.load()) for registry in (world.registry, world.another())
    ]
    pauses.release()
    first, second = map(result_of, waiting)
    assert first == second


@pytest.mark.parametrize("torn", [b"", b"short"])
def test_torn_upload_secret_is_replaced(world, torn):
    world.write(layout.UPLOAD_SECRET, torn)
    secret = done(world.registry.upload_secret.load())
    assert len(secret) == 64
    assert done(world.registry.upload_secret.load()) == secret


def test_upload_secret_of_a_failing_store_is_unavailable(world):
    world.driver.before = fails_at(0)
    with pytest.raises(RegistryError) as caught:
        done(world.registry.upload_secret.load())
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_a_registry_needs_a_driver_and_a_clock(world):
    driver = MemoryDriver(Clock())
    driver.min_chunk_bytes = 5
    registry = Registry(driver, Clock())
    assert registry.min_chunk_bytes == 5
    assert done(registry.repository("a").uploads.store_blob(Digest.of(b"x"), Body(b"x"))) == 1
    assert world.repo().name == "a/b"
    assert world.repo().blobs.publish_event.origin == ORIGIN


# Failures.


@pytest.mark.parametrize("kind", [StorageError, PathNotFound, PathExists, PathInvalid, WriterBusy])
@pytest.mark.parametrize("full", [False, True])
def test_unexpected_storage_error_is_unavailable(kind, full):
    @translate_storage_errors
    async def broken():
        raise kind("secret/path", "reason", full)

    with pytest.raises(RegistryError) as caught:
        done(broken())
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.http_status == (507 if full else 503)
    # Paths of the store are for the log.
    assert "secret" not in str(caught.value.as_json())


def test_other_errors_are_not_translated():
    @translate_storage_errors
    async def broken(error):
        raise error

    for error in (ValueError(), RegistryError(ErrorCode.DENIED), CancelledError()):
        with pytest.raises(type(error)):
            done(broken(error))
    with pytest.raises(RegistryError):
        done(broken(OffsetInvalid("a", size=1)))


# Many at once.


def test_results_are_in_order_and_concurrency_is_bounded():
    under_way = []

    async def work(item):
        under_way.append(Deferred())
        await under_way[-1]
        return item * 2

    waiting = begin(map_concurrently(work, range(100)))
    done_so_far = 0
    while done_so_far < 100:
        assert len(under_way) - done_so_far == min(MAX_CONCURRENT, 100 - done_so_far)
        # The latest first, so that they end out of order.
        batch = under_way[done_so_far:]
        done_so_far += len(batch)
        for deferred in reversed(batch):
            deferred.callback(None)
    assert result_of(waiting) == [number * 2 for number in range(100)]
    assert done(map_concurrently(work, [])) == []


def test_a_thousand_calls_that_end_at_once_need_no_deep_stack():
    """A sweep whose time is over has nothing more to wait for."""
    waiting = [Deferred() for _ in range(MAX_CONCURRENT)]

    async def work(item):
        if item < MAX_CONCURRENT:
            await waiting[item]
        return item

    working = begin(map_concurrently(work, range(2000)))
    for deferred in waiting:
        deferred.callback(None)
    assert result_of(working) == list(range(2000))


@pytest.mark.parametrize("at", [0, 20, 49])
def test_first_error_cancels_the_rest_and_is_raised(at):
    cancelled = []
    started = []

    async def work(item):
        started.append(item)
        if item == at:
            raise ValueError(item)
        if item > at - 10:
            await Deferred(lambda _: cancelled.append(item))

    with pytest.raises(ValueError, match=str(at)):
        done(map_concurrently(work, range(50)))
    assert sorted(cancelled) == [item for item in started if item > at - 10 and item != at]
    assert len(started) <= at + MAX_CONCURRENT + 1


def test_cancelling_cancels_all():
    cancelled = []

    async def work(item):
        await Deferred(lambda _: cancelled.append(item))

    waiting = begin(map_concurrently(work, range(50)))
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    # Those that waited for their turn are not begun to be cancelled.
    assert sorted(cancelled) == list(range(MAX_CONCURRENT))


def test_no_call_starts_after_one_that_ignores_cancellation():
    begun = []

    async def work(item):
        begun.append(item)
        with suppress(CancelledError):
            await Deferred()

    waiting = begin(map_concurrently(work, range(50)))
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    assert begun == list(range(MAX_CONCURRENT))


def test_keyed_lock_excludes_by_key_and_keeps_no_keys():
    locks = KeyedLock()
    log = []
    gates = {}

    async def work(key, name):
        async with locks.lock(key):
            log.append(name)
            gates[name] = Deferred()
            await gates[name]

    waiting = [begin(work(key, name)) for key, name in (("a", 1), ("a", 2), ("b", 3), ("a", 4))]
    assert log == [1, 3]
    gates[1].callback(None)
    assert log == [1, 3, 2]
    # Whoever gives up waiting, or fails inside, keeps nobody out.
    waiting[3].cancel()
    gates[2].errback(ValueError())
    for number, error in ((1, ValueError), (3, CancelledError)):
        with pytest.raises(error):
            result_of(waiting[number])
    gates[3].callback(None)
    again = begin(work("a", 5))
    assert log[-1] == 5
    gates[5].callback(None)
    result_of(again)
    assert locks.key_count == 0


# Small bodies.


def test_small_body_is_read():
    assert done(read_body(Body(b"ab", b"", b"c"), 3)) == b"abc"
    assert done(read_body(Body(length=0), 0)) == b""


def test_body_with_a_too_large_length_is_not_started():
    body = Body(b"abcd", length=4)
    with pytest.raises(ContentTooLarge):
        done(read_body(body, 3))
    assert not body.started


def test_body_that_exceeds_the_limit_is_stopped():
    body = SlowBody()
    waiting = begin(read_body(body, 3))
    body.arrive(b"ab")
    assert not waiting.called
    body.arrive(b"cd")
    assert body.stopped
    with pytest.raises(ContentTooLarge):
        result_of(waiting)


def test_stopped_body_whose_deferred_never_fires():
    # As IBodyProducer.stopProducing promises.
    body = SlowBody()
    body.stopProducing = lambda: None
    waiting = begin(read_body(body, 3))
    body.arrive(b"abcd")
    with pytest.raises(ContentTooLarge):
        result_of(waiting)


def test_bytes_after_the_limit_are_dropped():
    with pytest.raises(ContentTooLarge):
        done(read_body(Body(b"abcd", b"x" * 100), 3))
    collector = BodyBuffer(3)
    collector.write(b"abcd")
    collector.write(b"abc")
    assert collector.overflowed
    assert collector.content() == b""


def test_error_of_a_body_is_raised():
    with pytest.raises(ZeroDivisionError):
        done(read_body(Body(b"a", error=ZeroDivisionError()), 3))


def test_consumer_pauses_the_body():
    body = SlowBody()
    calls = []
    body.pauseProducing = lambda: calls.append("pause")
    body.resumeProducing = lambda: calls.append("resume")

    class Consumer(BodyBuffer):
        def write(self, data):
            self._producer.pauseProducing()
            self._producer.resumeProducing()
            super().write(data)

    consumer = Consumer(3)
    streaming = begin(stream_body(body, consumer))
    body.arrive(b"ab")
    assert calls == ["pause", "resume"]
    body.end()
    result_of(streaming)
    assert consumer.content() == b"ab"
    assert consumer._producer is None


def test_consumer_may_stop_a_body_at_once():
    # It may do so while it is handed the body, before there is anything to cancel.
    body = SlowBody()
    body.stopProducing = lambda: None

    class Full(BodyBuffer):
        def registerProducer(self, producer, streaming):
            producer.stopProducing()

    with pytest.raises(CancelledError):
        done(stream_body(body, Full(0)))


@pytest.mark.parametrize("way", ["append", "finish"])
def test_storage_error_during_an_upload_ends_the_request(way):
    """The writer tells the body to stop, and says why when it is closed."""
    world = World()
    upload = done(world.repo().uploads.start())
    body = SlowBody()
    body.stopProducing = lambda: None
    opened = []
    opening = world.driver.writer

    def failing(path, *arguments, **beside):
        def spoil(writer):
            writer.registerProducer = lambda producer, _: opened.append(producer)

            def fails():
                return writer._writer.close().addCallback(
                    lambda _: fail(StorageError(path, "", True))
                )

            writer.flush = writer.commit = writer.close = fails
            return writer

        return opening(path, *arguments, **beside).addCallback(spoil)

    world.driver.writer = failing
    digest = Digest.of(b"x")
    waiting = begin(upload.append(body) if way == "append" else upload.finish(digest, body))
    (producer,) = opened
    producer.stopProducing()
    with pytest.raises(RegistryError) as caught:
        result_of(waiting)
    assert caught.value.http_status == 507


def test_url_of_a_blob_comes_from_the_driver():
    @implementer(IPresigner)
    class Presigning(MemoryDriver):
        def presign(self, path, method, expires, client=""):
            return succeed(f"{method} {path} {expires}")

    world = World(memory=Presigning(Clock()))
    digest = world.blob(b"x")
    url = done(world.repo().blobs.url(digest, "HEAD"))
    assert url == f"HEAD {layout.blob(digest)} 1200"
    assert world.listener.brief()[-1] == ("pull", "blob", None)


def test_each_request_has_its_own_repository_object(world):
    assert world.repo() is not world.repo()
