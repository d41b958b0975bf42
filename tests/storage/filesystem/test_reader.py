from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.filesystem.counting_oscalls import BROKEN, FaultyFiles
from tests.storage.filesystem.kit import (
    HeldThreads,
    InlineThreads,
    descriptors,
    failure_of,
    make_driver,
    result_of,
)
from twisted_registry.storage.filesystem.reader import PIECE_BYTES
from twisted_registry.testing.stream_contract import RecordingConsumer

no_result = SynchronousTestCase().assertNoResult
CONTENT = os.urandom(2 * PIECE_BYTES + 12_345)


@pytest.fixture
def threads():
    return HeldThreads()


@pytest.fixture
def reader(tmp_path, threads):
    (tmp_path / "file").write_bytes(CONTENT)
    before = descriptors(tmp_path)
    reader = open_file(tmp_path, threads)
    threads.hold()
    yield reader
    reader.close()
    threads.finish()
    assert descriptors(tmp_path) == before


def open_file(root, threads, files=None):
    return result_of(make_driver(root, files, threads=threads).open("file"))


def test_pieces_are_read_one_after_the_other(reader, threads):
    sink = RecordingConsumer()
    done = reader.deliver(sink)
    for count in (1, 2, 3):
        assert len(threads.waiting) == 1
        threads.step()
        assert len(sink.received) == count
    assert max(map(len, sink.received)) == PIECE_BYTES
    assert result_of(done) is None
    assert sink.content == CONTENT
    with pytest.raises(ValueError, match="closed"):
        reader.fileno()


def test_at_most_one_piece_is_delivered_after_a_pause(reader, threads):
    sink = RecordingConsumer()
    done = reader.deliver(sink)
    sink.producer.pauseProducing()
    threads.step()
    assert len(sink.received) == 1
    assert threads.waiting == []
    sink.producer.resumeProducing()
    sink.producer.resumeProducing()
    assert len(threads.waiting) == 1
    threads.finish()
    result_of(done)
    assert sink.content == CONTENT


@pytest.mark.parametrize("how", ["cancel", "stop", "close"])
@pytest.mark.parametrize("fault", [None, BROKEN])
def test_the_descriptor_stays_open_while_a_thread_reads(tmp_path, threads, how, fault):
    (tmp_path / "file").write_bytes(CONTENT)
    before = descriptors(tmp_path)
    reader = open_file(tmp_path, threads, FaultyFiles(pread=[fault]))
    threads.hold()
    sink = RecordingConsumer()
    fd = reader.fileno()
    done = reader.deliver(sink)
    {"cancel": done.cancel, "stop": reader.stopProducing, "close": reader.close}[how]()
    assert not sink.has_producer
    # The thread still reads: the number must not be reused for another file.
    os.fstat(fd)
    threads.step()
    assert descriptors(tmp_path) == before
    assert sink.received == []
    failure_of(done, CancelledError)
    reader.stopProducing()


def test_a_consumer_can_stop_inside_write(reader, threads):
    class Leaving(RecordingConsumer):
        def write(self, data):
            super().write(data)
            self.producer.stopProducing()

    sink = Leaving()
    done = reader.deliver(sink)
    threads.step()
    failure_of(done, CancelledError)
    assert threads.waiting == []


def test_feeding_can_be_cancelled(reader, threads):
    pieces = []

    def observe(piece):
        pieces.append(piece)
        feeding.cancel()

    feeding = reader.feed(observe)
    threads.step()
    failure_of(feeding, CancelledError)
    assert len(pieces) == 1


def test_feed_needs_one_call_of_a_thread(reader, threads):
    pieces = []
    feeding = reader.feed(pieces.append)
    threads.step()
    result_of(feeding)
    assert b"".join(pieces) == CONTENT


def test_an_observer_that_fails_fails_the_feed(reader, threads):
    def observe(_):
        raise ValueError("cannot hash")

    feeding = reader.feed(observe)
    threads.step()
    failure_of(feeding, ValueError)


def test_a_file_opened_for_a_cancelled_call_is_closed(tmp_path):
    """The driver passes ``undo`` to the threads."""
    (tmp_path / "file").write_bytes(CONTENT)
    before = descriptors(tmp_path)

    class Cancelled(InlineThreads):
        def run_blocking(self, work, *arguments, undo=None):
            undo(work(*arguments))
            return Deferred()

    driver = make_driver(tmp_path, threads=Cancelled())
    no_result(driver.open("file"))
    no_result(driver.writer("file"))
    assert descriptors(tmp_path) == before
