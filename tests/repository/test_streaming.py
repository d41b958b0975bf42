"""Streaming of bodies into memory and into the store."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, fail

from tests.repository.worlds import Body, SlowBody, World, begin, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.streaming import (
    BodyBuffer,
    ContentTooLarge,
    read_body,
    stream_body,
)
from twisted_registry.storage.interfaces import StorageError


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
    # IBodyProducer.stopProducing allows it.
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
        producer = None

        def registerProducer(self, producer, streaming):
            self.producer = producer

        def unregisterProducer(self):
            self.producer = None

        def write(self, data):
            self.producer.pauseProducing()
            self.producer.resumeProducing()
            super().write(data)

    consumer = Consumer(3)
    streaming = begin(stream_body(body, consumer))
    body.arrive(b"ab")
    assert calls == ["pause", "resume"]
    body.end()
    result_of(streaming)
    assert consumer.content() == b"ab"
    assert consumer.producer is None


def test_consumer_may_stop_a_body_at_once():
    # It may stop it when it is registered, before there is a Deferred to cancel.
    body = SlowBody()
    body.stopProducing = lambda: None

    class Full(BodyBuffer):
        def registerProducer(self, producer, streaming):
            producer.stopProducing()

    with pytest.raises(CancelledError):
        done(stream_body(body, Full(0)))


@pytest.mark.parametrize("way", ["append", "finish"])
def test_storage_error_during_an_upload_ends_the_request(way):
    """The writer stops the body, and raises the error when it is closed."""
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
                return writer.writer.close().addCallback(
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
