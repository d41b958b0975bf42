"""A writer that draws by itself what it stores."""

from __future__ import annotations

import hashlib
import os

from tests.storage.filesystem.kit import MIB, Producer, result_of
from twisted_registry.storage.filesystem import writer as writer_module


class Source:
    """Pieces that a writer draws."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.finished = False

    def read_into(self, room):
        piece = self.pieces.pop(0)
        room[: len(piece)] = piece
        self.finished = not self.pieces
        return len(piece)


def drawn_by(writer, source):
    """Let it draw, as it does when it is not the only one."""
    writer._budget.writers += 1
    return writer.append_from(source)


def test_one_writer_alone_does_not_draw(held):
    writer, _ = held
    assert writer.append_from is None
    writer._budget.writers += 1
    assert writer.append_from is not None


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
    monkeypatch.setattr(writer_module, "_MAX_TURN_BYTES", 250)
    source = Source(*[b"x" * 100] * 9)
    drawn = drawn_by(writer, source)
    threads.step()
    result_of(drawn)
    assert source.finished
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
