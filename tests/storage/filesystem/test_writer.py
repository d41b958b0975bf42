"""The writer of files: batches, threads, backpressure and locks."""

from __future__ import annotations

import hashlib
import os
from threading import Event, get_ident

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults

from tests.storage.filesystem.counting_oscalls import CountingFiles
from tests.storage.filesystem.kit import (
    MIB,
    Producer,
    descriptors,
    failure_of,
    make_driver,
    result_of,
)
from twisted_registry.storage.filesystem import writer as writer_module
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.filesystem.oscalls import OSCalls
from twisted_registry.storage.filesystem.writer import WriteBudget
from twisted_registry.storage.interfaces import StorageError, WriterBusy


def test_writes_of_one_reactor_turn_are_one_batch(held):
    writer, threads = held.writer, held.threads
    for _ in range(100):
        writer.write(b"12345")
    assert not threads.waiting
    held.clock.advance(0)
    assert len(threads.waiting) == 1
    threads.step()
    assert held.stored == 500
    assert not threads.waiting


def test_writes_during_a_batch_are_the_next_batch(held):
    writer, threads = held.writer, held.threads
    writer.write(b"x" * MIB)
    for _ in range(1000):
        writer.write(b"y" * 2000)
    assert len(threads.waiting) == 1
    threads.step()
    assert not threads.waiting
    assert held.stored == writer.size == MIB + 2_000_000


def test_a_call_stores_what_is_written_meanwhile_up_to_a_limit(held, monkeypatch):
    writer, threads = held.writer, held.threads
    monkeypatch.setattr(writer_module, "_MAX_TURN_BYTES", 3 * MIB)
    for _ in range(10):
        writer.write(b"x" * MIB)
    assert len(threads.waiting) == 1
    threads.step()
    # Then other writers have a turn.
    assert held.stored == 4 * MIB
    assert len(threads.waiting) == 1
    threads.step()
    threads.step()
    assert held.stored == 10 * MIB
    assert not threads.waiting


def test_cancel_drops_bytes_behind_the_current_batch(make_held):
    sizes = []

    def observe(_):
        sizes.append(held.stored)
        held.writer.cancel()

    held = make_held(observe)
    writer, threads = held.writer, held.threads
    for _ in range(3):
        writer.write(b"x" * MIB)
    threads.finish()
    assert sizes == [MIB]
    assert not held.path.exists()


def test_writeback_starts_before_the_file_is_complete(tmp_path):
    begun = []

    class Files(OSCalls):
        def start_writeback(self, fd, offset, length):
            super().start_writeback(fd, offset, length)
            begun.append((offset, length))

    writer = result_of(make_driver(tmp_path, Files()).writer("file", 0))
    for _ in range(20):
        writer.write(b"x" * MIB)
    writer.write(b"x" * 13 * MIB)
    assert begun == [(0, 8 * MIB), (8 * MIB, 8 * MIB), (16 * MIB, 16 * MIB)]
    result_of(writer.close())
    assert (tmp_path / "file").stat().st_size == 33 * MIB


def test_small_pieces_are_joined_to_one_write(tmp_path):
    files = CountingFiles()
    writer = result_of(make_driver(tmp_path, files).writer("file", 0))
    for _ in range(100):
        writer.write(b"small")
    result_of(writer.close())
    assert files.calls["pwrite"] == 1


def test_commit_stores_buffered_bytes_in_the_same_call(held):
    writer, threads = held.writer, held.threads
    writer.write(b"small")
    committing = writer.commit()
    threads.step()
    assert result_of(committing) == 5
    held.clock.advance(1)
    assert not threads.waiting


def test_the_producer_is_paused_above_the_limit_and_resumed_below_half(held):
    writer, threads = held.writer, held.threads
    left = []

    class Watching(Producer):
        def resumeProducing(self):
            super().resumeProducing()
            left.append(writer.size - held.stored)

    producer = Watching()
    writer.registerProducer(producer, True)
    written = 0
    while not producer.paused:
        writer.write(b"x" * 100_000)
        written += 100_000
        assert written < 10 * MIB
    assert 4 * MIB < written <= 4 * MIB + 100_000
    threads.step()
    # It was resumed before all bytes were stored.
    assert 0 < left[0] < 2 * MIB
    assert producer.log == ["pause", "resume"]
    writer.unregisterProducer()
    writer.write(b"x" * 8 * MIB)
    assert producer.log == ["pause", "resume"]
    writer.registerProducer(producer, True)
    assert producer.log == ["pause", "resume", "pause"]


def test_a_producer_can_write_while_it_is_resumed(held):
    writer, threads = held.writer, held.threads

    class Eager(Producer):
        left = 20

        def resumeProducing(self):
            super().resumeProducing()
            while self.left and not self.paused:
                self.left -= 1
                writer.write(b"x" * MIB)

    producer = Eager()
    writer.registerProducer(producer, True)
    producer.resumeProducing()
    while threads.waiting:
        threads.step()
        assert writer.size - held.stored <= 6 * MIB
    assert held.stored == 20 * MIB


def test_pull_producers_and_second_producers_are_refused(held):
    writer = held.writer
    with pytest.raises(RuntimeError):
        writer.registerProducer(Producer(), False)
    writer.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError):
        writer.registerProducer(Producer(), True)


def test_the_limit_of_a_writer_shrinks_with_their_number():
    share = WriteBudget()
    assert share.limit == 4 * MIB
    share.writers = 1
    assert share.limit == 4 * MIB
    share.writers = 32
    assert share.limit == MIB
    share.writers = 10_000
    assert share.limit == 256 * 1024


def test_the_budget_counts_open_writers(tmp_path):
    budget = WriteBudget()
    driver = make_driver(tmp_path, budget=budget)
    writers = [result_of(driver.writer(f"file{number}")) for number in range(3)]
    assert budget.writers == 3
    result_of(writers[0].close())
    result_of(writers[1].cancel())
    result_of(writers[1].cancel())
    assert budget.writers == 1
    result_of(writers[2].close())
    assert budget.writers == 0


def test_cancel_drops_buffered_bytes_and_the_file(held, tmp_path):
    writer, threads = held.writer, held.threads
    writer.write(b"x" * MIB)
    writer.write(b"y" * MIB)
    flushing = writer.flush()
    cancelling = writer.cancel()
    failure_of(flushing, StorageError)
    while threads.waiting:
        threads.step()
    assert result_of(cancelling) is None
    assert not (tmp_path / "file").exists()


def test_cancelling_a_flush_does_not_affect_the_writer(held, tmp_path):
    writer, threads = held.writer, held.threads
    writer.write(b"x" * MIB)
    flushing = writer.flush()
    flushing.cancel()
    failure_of(flushing, CancelledError)
    closing = writer.close()
    while threads.waiting:
        threads.step()
    assert result_of(closing) == MIB


def test_flush_and_commit_fail_after_close(tmp_path):
    writer = result_of(make_driver(tmp_path).writer("file", 0))
    result_of(writer.close())
    for ask in (writer.flush, writer.commit):
        failure_of(ask(), StorageError)


def test_cancel_keeps_a_file_that_replaced_its_own(tmp_path):
    driver = make_driver(tmp_path)
    writer = result_of(driver.writer("file", 0))
    writer.write(b"mine")
    result_of(writer.commit())
    result_of(driver.move("file", "moved"))
    result_of(driver.put("file", b"another"))
    result_of(writer.cancel())
    assert (tmp_path / "file").read_bytes() == b"another"
    assert (tmp_path / "moved").read_bytes() == b"mine"


def test_a_file_replaced_before_it_is_locked_is_opened_again(tmp_path):
    """After locking, the name belongs to another file or to none: open it again."""

    class Racing(OSCalls):
        rounds = 3

        def lock(self, fd):
            super().lock(fd)
            if self.rounds:
                self.rounds -= 1
                (tmp_path / "file").unlink()

    before = descriptors()
    driver = make_driver(tmp_path, Racing())
    writer = result_of(driver.writer("file", 0))
    writer.write(b"here")
    result_of(writer.close())
    assert (tmp_path / "file").read_bytes() == b"here"
    driver.files.rounds = 1000
    failure_of(driver.writer("file"), WriterBusy)
    assert descriptors() == before


@pytest_twisted.ensureDeferred
async def test_storing_and_observing_happen_on_a_thread(tmp_path):
    driver = FilesystemDriver(str(tmp_path), reactor)
    threads = set()
    hold, held = Event(), Event()

    def observe(_):
        threads.add(get_ident())
        held.set()
        assert hold.wait(30)

    writer = await driver.writer("file", 0, observe)
    writer.write(b"x" * MIB)
    # The reactor runs while the thread waits.
    assert held.wait(30)
    writer.write(b"y")
    assert writer.size == MIB + 1
    hold.set()
    assert await writer.commit() == MIB + 1
    await writer.close()
    assert get_ident() not in threads
    await driver.close()


@pytest_twisted.ensureDeferred
async def test_many_writers_store_their_own_bytes(tmp_path):
    before = descriptors()
    driver = FilesystemDriver(str(tmp_path), reactor, max_threads=4)
    contents = {f"folder{number % 3}/file{number}": os.urandom(300_007) for number in range(20)}
    digests = {path: hashlib.sha256() for path in contents}

    async def push(path):
        writer = await driver.writer(path, 0, digests[path].update)
        for start in range(0, len(contents[path]), 7001):
            writer.write(contents[path][start : start + 7001])
        await writer.commit()
        await driver.move(path, f"done/{path}")
        await writer.close()

    await gatherResults([writer_module.Deferred.fromCoroutine(push(path)) for path in contents])
    for path, content in contents.items():
        assert (tmp_path / "done" / path).read_bytes() == content
        assert digests[path].digest() == hashlib.sha256(content).digest()
    await driver.close()
    assert descriptors() == before
