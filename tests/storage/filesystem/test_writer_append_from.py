"""Writers that read from a source directly."""

from __future__ import annotations

import hashlib

from tests.storage.filesystem.kit import MIB, Producer, result_of
from twisted_registry.storage.filesystem import writer as writer_module


class Source:
    """A source of pieces."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.finished = False

    def read_into(self, buffer):
        piece = self.pieces.pop(0)
        buffer[: len(piece)] = piece
        self.finished = not self.pieces
        return len(piece)


def append_from(held, source):
    """Append as a writer does that is not the only one."""
    held.budget.writers = 2
    try:
        return held.writer.append_from(source)
    finally:
        held.budget.writers = 1


def test_only_one_of_several_writers_reads_directly(held):
    assert held.writer.append_from is None
    held.budget.writers = 2
    assert held.writer.append_from is not None
    held.budget.writers = 1


def test_appended_bytes_follow_written_bytes(make_held):
    seen = hashlib.sha256()
    held = make_held(seen.update)
    writer, threads = held.writer, held.threads
    writer.write(b"1" * MIB)
    done = append_from(held, Source(b"2" * 1000, b"", b"3" * 2000))
    assert not done.called
    threads.step()
    result_of(done)
    content = b"1" * MIB + b"2" * 1000 + b"3" * 2000
    assert held.path.read_bytes() == content
    assert writer.size == len(content)
    assert seen.digest() == hashlib.sha256(content).digest()
    writer.write(b"4" * MIB)
    threads.step()
    assert writer.size == held.stored == len(content) + MIB


def test_appending_ends_after_the_bytes_of_one_turn(held, monkeypatch):
    writer, threads = held.writer, held.threads
    monkeypatch.setattr(writer_module, "_MAX_TURN_BYTES", 250)
    source = Source(*[b"x" * 100] * 9)
    done = append_from(held, source)
    threads.step()
    result_of(done)
    assert source.finished
    assert writer.size == 300
    assert not threads.waiting


def test_a_source_that_comes_while_a_call_ends_is_read_by_the_next_call(held):
    writer, threads = held.writer, held.threads
    writer.write(b"x" * MIB)
    answer = threads.waiting[0][2]
    # The thread has found nothing more, but its call has not ended yet.
    threads.waiting[0] = (lambda: None, (), answer)
    done = append_from(held, Source(b"y" * 100))
    threads.step()
    assert not done.called
    threads.step()
    result_of(done)


def test_closing_the_writer_ends_appending(held):
    writer, threads = held.writer, held.threads
    writer.write(b"x" * MIB)
    done = append_from(held, Source(b"y" * 100))
    writer.close()
    assert not done.called
    threads.step()
    result_of(done)
    assert append_from(held, Source(b"z")) is None


def test_a_failure_to_store_ends_appending(make_held):
    def fail(_):
        raise ValueError

    held = make_held(fail)
    writer, threads = held.writer, held.threads
    producer = Producer()
    writer.registerProducer(producer, True)
    source = Source(b"y" * 100, b"z" * 100)
    done = append_from(held, source)
    done.addCallback(lambda _: producer.log.append("over"))
    threads.step()
    assert producer.log == ["over", "stop"]
    assert held.stored == writer.size == 0
