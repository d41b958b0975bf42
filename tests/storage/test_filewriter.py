from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from threading import Event, get_ident

import pytest
import pytest_twisted
from countingfiles import BROKEN, FULL, CountingFiles, FaultyFiles
from powerloss import InlineThreads
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_registry.storage import filewriter
from twisted_registry.storage.fileops import OsFiles
from twisted_registry.storage.filesystem import FilesystemDriver
from twisted_registry.storage.filewriter import Share
from twisted_registry.storage.interfaces import StorageError, WriterBusy

case = SynchronousTestCase()
result_of, failure_of = case.successResultOf, case.failureResultOf
MIB = 1024 * 1024


@implementer(IPushProducer)
class Producer:
    def __init__(self):
        self.log = []
        self.paused = False

    def pauseProducing(self):
        self.paused = True
        self.log.append("pause")

    def resumeProducing(self):
        self.paused = False
        self.log.append("resume")

    def stopProducing(self):
        self.log.append("stop")


class HeldThreads(InlineThreads):
    """Runs nothing until told to."""

    def __init__(self):
        self.waiting = []

    def run(self, work, *arguments, undo=None):
        answer = filewriter.Deferred()
        self.waiting.append((work, arguments, answer))
        return answer

    def step(self):
        work, arguments, answer = self.waiting.pop(0)
        super().run(work, *arguments).chainDeferred(answer)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def inline(root, files=None):
    return FilesystemDriver(str(root), Clock(), files=files or OsFiles(), threads=InlineThreads())


@pytest.fixture
def held(tmp_path):
    """A writer whose thread waits, and the threads."""
    driver = inline(tmp_path)
    writer = result_of(driver.writer("file", 0))
    writer._threads = threads = HeldThreads()
    yield writer, threads
    closing = writer.close()
    while threads.waiting:
        threads.step()
    result_of(closing.addErrback(lambda failure: failure.trap(StorageError)))


def test_writes_of_one_turn_travel_together(held):
    writer, threads = held
    for _ in range(100):
        writer.write(b"12345")
    assert not threads.waiting
    writer._clock.advance(0)
    assert len(threads.waiting) == 1
    threads.step()
    assert os.fstat(writer._file.fd).st_size == 500
    assert not threads.waiting


def test_small_writes_gather_while_a_batch_is_under_way(held):
    writer, threads = held
    writer.write(b"x" * MIB)
    for _ in range(1000):
        writer.write(b"y" * 2000)
    assert len(threads.waiting) == 1
    threads.step()
    assert not threads.waiting
    assert os.fstat(writer._file.fd).st_size == writer.size == MIB + 2_000_000


def test_a_thread_goes_on_with_what_has_come_meanwhile(held, monkeypatch):
    writer, threads = held
    monkeypatch.setattr(filewriter, "STRETCH", 3 * MIB)
    for _ in range(10):
        writer.write(b"x" * MIB)
    assert len(threads.waiting) == 1
    threads.step()
    # Then others have their turn.
    assert os.fstat(writer._file.fd).st_size == 4 * MIB
    assert len(threads.waiting) == 1
    threads.step()
    threads.step()
    assert os.fstat(writer._file.fd).st_size == 10 * MIB
    assert not threads.waiting


def test_what_is_cancelled_is_not_gone_on_with(held):
    writer, threads = held
    writer._file._observe = lambda _: writer._drop_pending(StorageError("file"))
    for _ in range(3):
        writer.write(b"x" * MIB)
    threads.step()
    assert os.fstat(writer._file.fd).st_size == MIB


def test_the_disk_begins_early(tmp_path):
    begun = []

    class Files(OsFiles):
        def begin_writing(self, fd, offset, length):
            super().begin_writing(fd, offset, length)
            begun.append((offset, length))

    writer = result_of(inline(tmp_path, Files()).writer("file", 0))
    for _ in range(20):
        writer.write(b"x" * MIB)
    writer.write(b"x" * 13 * MIB)
    assert begun == [(0, 8 * MIB), (8 * MIB, 8 * MIB), (16 * MIB, 16 * MIB)]
    result_of(writer.close())
    assert (tmp_path / "file").stat().st_size == 33 * MIB


def test_many_small_pieces_are_one_write(tmp_path):
    files = CountingFiles()
    writer = result_of(inline(tmp_path, files).writer("file", 0))
    for _ in range(100):
        writer.write(b"small")
    result_of(writer.close())
    assert files.calls["pwrite"] == 1


def test_commit_takes_the_bytes_along(held):
    writer, threads = held
    writer.write(b"small")
    committing = writer.commit()
    threads.step()
    assert result_of(committing) == 5
    writer._clock.advance(1)
    assert not threads.waiting


def test_the_producer_is_paused_and_resumed(held):
    writer, threads = held
    left = []

    class Watching(Producer):
        def resumeProducing(self):
            super().resumeProducing()
            left.append(writer.size - os.fstat(writer._file.fd).st_size)

    producer = Watching()
    writer.registerProducer(producer, True)
    written = 0
    while not producer.paused:
        writer.write(b"x" * 100_000)
        written += 100_000
        assert written < 10 * MIB
    assert 4 * MIB < written <= 4 * MIB + 100_000
    threads.step()
    # It was resumed before all was stored.
    assert 0 < left[0] < 2 * MIB
    assert producer.log == ["pause", "resume"]
    writer.unregisterProducer()
    writer.write(b"x" * 8 * MIB)
    assert producer.log == ["pause", "resume"]
    writer.registerProducer(producer, True)
    assert producer.log == ["pause", "resume", "pause"]


def test_a_producer_that_writes_when_it_is_resumed(held):
    writer, threads = held

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
        assert writer.size - os.fstat(writer._file.fd).st_size <= 6 * MIB
    assert os.fstat(writer._file.fd).st_size == 20 * MIB


def test_one_push_producer_only(held):
    writer, _ = held
    with pytest.raises(RuntimeError):
        writer.registerProducer(Producer(), False)
    writer.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError):
        writer.registerProducer(Producer(), True)


def test_many_writers_share():
    share = Share()
    assert share.limit == 4 * MIB
    share.writers = 1
    assert share.limit == 4 * MIB
    share.writers = 32
    assert share.limit == MIB
    share.writers = 10_000
    assert share.limit == 256 * 1024


def test_writers_count_while_they_are_open(tmp_path):
    driver = inline(tmp_path)
    writers = [result_of(driver.writer(f"file{number}")) for number in range(3)]
    assert driver._share.writers == 3
    result_of(writers[0].close())
    result_of(writers[1].cancel())
    result_of(writers[1].cancel())
    assert driver._share.writers == 1
    result_of(writers[2].close())
    assert driver._share.writers == 0


def test_a_full_disk(tmp_path):
    before = descriptors()
    files = FaultyFiles(pwrite=[None, -10, FULL])
    driver = inline(tmp_path, files)
    hasher = hashlib.sha256()
    writer = result_of(driver.writer("file", 0, hasher.update))
    producer = Producer()
    writer.registerProducer(producer, True)
    writer.write(b"x" * MIB)
    assert result_of(writer.flush()) == MIB
    writer.write(b"y" * MIB)
    assert producer.log == ["stop"]
    # The half-written batch is taken back; size and observer tell the truth.
    assert writer.size == MIB
    assert (tmp_path / "file").stat().st_size == MIB
    assert hasher.digest() == hashlib.sha256(b"x" * MIB).digest()
    writer.write(b"dropped")
    for ask in (writer.flush, writer.commit, writer.flush):
        error = failure_of(ask(), StorageError).value
        assert error.full
        assert error.path == "file"
    assert result_of(writer.close()) == MIB
    assert descriptors() == before
    again = result_of(driver.writer("file", MIB))
    again.write(b"y" * MIB)
    assert result_of(again.commit()) == 2 * MIB
    result_of(again.close())
    assert descriptors() == before


def test_close_tells_of_a_failure_that_nobody_was_told(tmp_path):
    before = descriptors()
    driver = inline(tmp_path, FaultyFiles(pwrite=[BROKEN]))
    writer = result_of(driver.writer("file", 0))
    writer.write(b"x" * MIB)
    error = failure_of(writer.close(), StorageError).value
    assert not error.full
    assert os.strerror(errno.EIO) in str(error)
    assert result_of(writer.close()) == 0
    assert descriptors() == before


def test_a_producer_that_comes_after_the_failure_is_stopped(tmp_path):
    driver = inline(tmp_path, FaultyFiles(pwrite=[BROKEN]))
    writer = result_of(driver.writer("file", 0))
    writer.write(b"x" * MIB)
    producer = Producer()
    writer.registerProducer(producer, True)
    assert producer.log == ["stop"]
    result_of(writer.cancel())
    assert not (tmp_path / "file").exists()


def test_a_failed_sync_takes_back_what_may_be_lost(tmp_path):
    driver = inline(tmp_path, FaultyFiles(fsync=[None, None, BROKEN]))
    writer = result_of(driver.writer("file", 0))
    writer.write(b"safe")
    assert result_of(writer.flush()) == 4
    writer.write(b" perhaps lost")
    failure_of(writer.flush(), StorageError)
    assert writer.size == 4
    assert result_of(writer.close()) == 4
    assert (tmp_path / "file").read_bytes() == b"safe"


def test_an_observer_that_fails(tmp_path):
    before = descriptors()
    driver = inline(tmp_path)

    def observe(_):
        raise ValueError("cannot hash")

    writer = result_of(driver.writer("file", 0, observe))
    writer.write(b"x" * MIB)
    assert "cannot hash" in str(failure_of(writer.commit(), StorageError).value)
    assert writer.size == 0
    result_of(writer.close())
    assert descriptors() == before


def test_cancel_while_bytes_wait(held, tmp_path):
    writer, threads = held
    writer.write(b"x" * MIB)
    writer.write(b"y" * MIB)
    flushing = writer.flush()
    cancelling = writer.cancel()
    failure_of(flushing, StorageError)
    while threads.waiting:
        threads.step()
    assert result_of(cancelling) is None
    assert not (tmp_path / "file").exists()


def test_a_flush_that_is_cancelled_harms_nobody(held, tmp_path):
    writer, threads = held
    writer.write(b"x" * MIB)
    flushing = writer.flush()
    flushing.cancel()
    failure_of(flushing, CancelledError)
    closing = writer.close()
    while threads.waiting:
        threads.step()
    assert result_of(closing) == MIB


def test_nothing_after_close(tmp_path):
    writer = result_of(inline(tmp_path).writer("file", 0))
    result_of(writer.close())
    for ask in (writer.flush, writer.commit):
        failure_of(ask(), StorageError)


def test_cancel_leaves_the_file_of_another(tmp_path):
    driver = inline(tmp_path)
    writer = result_of(driver.writer("file", 0))
    writer.write(b"mine")
    result_of(writer.commit())
    result_of(driver.move("file", "moved"))
    result_of(driver.put("file", b"another"))
    result_of(writer.cancel())
    assert (tmp_path / "file").read_bytes() == b"another"
    assert (tmp_path / "moved").read_bytes() == b"mine"


def test_close_frees_the_lock_even_if_removing_fails(tmp_path):
    before = descriptors()
    driver = inline(tmp_path, FaultyFiles(unlink=[BROKEN]))
    writer = result_of(driver.writer("file", 0))
    failure_of(writer.cancel(), StorageError)
    assert descriptors() == before
    result_of(result_of(driver.writer("file", 0)).close())


@pytest.mark.parametrize("call", ["lock", "fstat", "stat", "open"])
def test_no_descriptor_is_lost_when_opening_fails(tmp_path, call):
    before = descriptors()
    driver = inline(tmp_path, FaultyFiles(**{call: [BROKEN]}))
    failure_of(driver.writer("file", 0), StorageError)
    assert descriptors() == before


def test_a_file_that_was_removed_before_it_was_locked(tmp_path):
    """The first look after locking finds another file, or none, under the name: try again."""

    class Racing(OsFiles):
        rounds = 3

        def lock(self, fd):
            super().lock(fd)
            if self.rounds:
                self.rounds -= 1
                (tmp_path / "file").unlink()

    before = descriptors()
    driver = inline(tmp_path, Racing())
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
    # The reactor is free while the thread is held.
    assert held.wait(30)
    writer.write(b"y")
    assert writer.size == MIB + 1
    hold.set()
    assert await writer.commit() == MIB + 1
    await writer.close()
    assert get_ident() not in threads
    await driver.close()


@pytest_twisted.ensureDeferred
async def test_many_writers_at_once(tmp_path):
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

    await gatherResults([filewriter.Deferred.fromCoroutine(push(path)) for path in contents])
    for path, content in contents.items():
        assert (tmp_path / "done" / path).read_bytes() == content
        assert digests[path].digest() == hashlib.sha256(content).digest()
    await driver.close()
    assert descriptors() == before


class Source:
    """Pieces that a writer draws."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.over = False

    def read_into(self, room):
        piece = self.pieces.pop(0)
        room[: len(piece)] = piece
        self.over = not self.pieces
        return len(piece)


def drawn_by(writer, source):
    """Let it draw, as it does when it is not the only one."""
    writer._share.writers += 1
    return writer.draw(source)


def test_one_writer_alone_does_not_draw(held):
    writer, _ = held
    assert writer.draw is None
    writer._share.writers += 1
    assert writer.draw is not None


def test_what_is_drawn_follows_what_was_written(held):
    writer, threads = held
    seen = hashlib.sha256()
    writer._file._observe = seen.update
    writer.write(b"1" * MIB)
    drawn = drawn_by(writer, Source(b"2" * 1000, b"", b"3" * 2000))
    assert not drawn.called
    threads.step()
    result_of(drawn)
    content = b"1" * MIB + b"2" * 1000 + b"3" * 2000
    assert os.pread(writer._file.fd, 2 * MIB, 0) == content
    assert writer.size == len(content)
    assert seen.digest() == hashlib.sha256(content).digest()
    writer.write(b"4" * MIB)
    threads.step()
    assert writer.size == os.fstat(writer._file.fd).st_size == len(content) + MIB


def test_what_is_drawn_takes_its_turn(held, monkeypatch):
    writer, threads = held
    monkeypatch.setattr(filewriter, "STRETCH", 250)
    source = Source(*[b"x" * 100] * 9)
    drawn = drawn_by(writer, source)
    threads.step()
    result_of(drawn)
    assert source.over
    assert writer.size == 300
    assert not threads.waiting


def test_a_source_that_comes_while_a_thread_ends_is_drawn_from_by_the_next(held):
    writer, threads = held
    writer.write(b"x" * MIB)
    answer = threads.waiting[0][2]
    # Where a thread is when it has found nothing more, and has not said so yet.
    threads.waiting[0] = (lambda: None, (), answer)
    drawn = drawn_by(writer, Source(b"y" * 100))
    threads.step()
    assert not drawn.called
    threads.step()
    result_of(drawn)


def test_a_source_is_let_go_when_the_writer_ends(held):
    writer, threads = held
    writer.write(b"x" * MIB)
    drawn = drawn_by(writer, Source(b"y" * 100))
    writer.close()
    assert not drawn.called
    threads.step()
    result_of(drawn)
    assert drawn_by(writer, Source(b"z")) is None


def test_a_source_is_let_go_when_its_bytes_can_not_be_stored(held):
    writer, threads = held
    producer = Producer()
    writer.registerProducer(producer, True)

    def fail(_):
        raise ValueError

    writer._file._observe = fail
    source = Source(b"y" * 100, b"z" * 100)
    drawn = drawn_by(writer, source)
    drawn.addCallback(lambda _: producer.log.append("over"))
    threads.step()
    assert producer.log == ["over", "stop"]
    assert os.fstat(writer._file.fd).st_size == writer.size == 0
