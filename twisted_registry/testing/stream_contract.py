"""The promises of readers; see :mod:`twisted_registry.testing.storage_contract`.

The promises of writers; see :mod:`twisted_registry.testing.storage_contract`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from twisted_registry.storage.interfaces import (
    Change,
    ILocalFileReader,
    IReader,
    IStorageDriver,
    IWriter,
    Move,
    OffsetInvalid,
    PathNotFound,
    Put,
    Remove,
    WriterBusy,
)
from twisted_registry.testing.contract_kit import LARGE_CONTENT, Sink, error_of, read, store

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


async def open_reads_a_stretch(driver: IStorageDriver) -> None:
    """A reader delivers what lies between offset and length, cut at the end."""
    content = b"0123456789"
    await driver.put("file", content)
    for offset, length in ((0, None), (0, 3), (4, None), (4, 3), (4, 99), (10, None), (3, 0)):
        reader = await driver.open("file", offset, length)
        verifyObject(IReader, reader)
        wanted = content[offset:][:length]
        assert reader.size == len(wanted)
        if ILocalFileReader.providedBy(reader):
            assert reader.offset() == offset
        sink = Sink()
        await reader.deliver(sink)
        assert sink.content == wanted
        assert not sink.is_fed
        reader.close()
    error = await error_of(driver.open("file", 11))
    assert isinstance(error, OffsetInvalid)
    assert error.size == 10
    await driver.delete("file")


async def a_reader_honours_pauses(driver: IStorageDriver) -> None:
    """A consumer that pauses at every piece gets no other before it resumes, and gets all."""
    await store(driver, "file", LARGE_CONTENT)
    sink = Sink(pauses=True)
    wanted = sink.wanted
    done = (await driver.open("file")).deliver(sink)
    count = 0
    while not done.called:
        await wanted
        count += 1
        assert len(sink.received) == count
        assert sink.producer is not None
        wanted = sink.wanted
        sink.producer.resumeProducing()
        if len(sink.content) == len(LARGE_CONTENT):
            break
    await done
    assert sink.content == LARGE_CONTENT
    assert count > 1
    await driver.delete("file")


async def a_reader_can_be_cancelled(driver: IStorageDriver) -> None:
    """Cancelling, closing, and a consumer that stops, end the delivery at once."""
    await store(driver, "file", LARGE_CONTENT)
    for way in range(3):
        sink = Sink(pauses=True)
        wanted = sink.wanted
        reader = await driver.open("file")
        done = reader.deliver(sink)
        await wanted
        assert sink.producer is not None
        (done.cancel, reader.close, sink.producer.stopProducing)[way]()
        assert not sink.is_fed
        cancelled = False
        try:
            await done
        except CancelledError:
            cancelled = True
        assert cancelled
        assert len(sink.received) == 1
        reader.close()
    await driver.delete("file")


async def a_reader_keeps_what_it_opened(driver: IStorageDriver) -> None:
    """What happens to the path afterwards does not matter to a reader."""
    await driver.put("a/file", b"first")
    readers = [await driver.open("a/file") for _ in range(4)]
    await driver.put("a/file", b"second content")
    readers.append(await driver.open("a/file", 7))
    await driver.move("a/file", "b/file")
    readers.append(await driver.open("b/file"))
    await driver.delete("b/file")
    sinks = [Sink() for _ in readers]
    for reader, sink in zip(readers, sinks, strict=True):
        await reader.deliver(sink)
    contents = [sink.content for sink in sinks]
    assert contents == [b"first"] * 4 + [b"content", b"second content"]
    reader = await _opened_and_closed(driver)
    reader.close()


async def feed_observes(driver: IStorageDriver) -> None:
    """``feed`` shows a stretch to a function, in order."""
    await store(driver, "file", LARGE_CONTENT)
    pieces: list[bytes] = []
    await (await driver.open("file", 7, len(LARGE_CONTENT) - 20)).feed(pieces.append)
    assert b"".join(pieces) == LARGE_CONTENT[7:-13]
    await driver.delete("file")


async def a_descriptor_reads_the_file(driver: IStorageDriver) -> None:
    """If a reader has a descriptor, the stretch is there to be read from it."""
    await driver.put("file", b"0123456789")
    reader = await driver.open("file", 3, 4)
    if ILocalFileReader.providedBy(reader):
        assert os.pread(reader.fileno(), reader.size, reader.offset()) == b"3456"
    reader.close()
    await driver.delete("file")


async def _opened_and_closed(driver: IStorageDriver) -> IReader:
    await driver.put("file", b"never read")
    reader = await driver.open("file")
    reader.close()
    await driver.delete("file")
    return reader


READER_PROMISES = (
    open_reads_a_stretch,
    a_reader_honours_pauses,
    a_reader_can_be_cancelled,
    a_reader_keeps_what_it_opened,
    feed_observes,
    a_descriptor_reads_the_file,
)


async def a_writer_begins_and_continues(driver: IStorageDriver) -> None:
    """A writer begins at nothing, goes on where the file ends, and nowhere else."""
    seen: list[bytes] = []
    writer = await driver.writer("a/b/file", 0, seen.append)
    verifyObject(IWriter, writer)
    assert writer.size == 0
    for start in range(0, len(LARGE_CONTENT), 99_991):
        writer.write(LARGE_CONTENT[start : start + 99_991])
    assert writer.size == len(LARGE_CONTENT)
    assert await writer.flush() == len(LARGE_CONTENT)
    assert b"".join(seen) == LARGE_CONTENT
    assert await read(driver, "a/b/file") == LARGE_CONTENT
    assert await writer.close() == len(LARGE_CONTENT)
    for offset in (0, 5, len(LARGE_CONTENT) - 1, len(LARGE_CONTENT) + 1):
        error = await error_of(driver.writer("a/b/file", offset))
        assert isinstance(error, OffsetInvalid)
        assert error.size == len(LARGE_CONTENT)
    for offset_or_end, addition in ((None, b"more"), (len(LARGE_CONTENT) + 4, b"and more")):
        seen.clear()
        writer = await driver.writer("a/b/file", offset_or_end, seen.append)
        writer.write(addition)
        await writer.close()
        assert b"".join(seen) == addition
    assert await read(driver, "a/b/file") == LARGE_CONTENT + b"moreand more"
    await driver.delete("a")


async def a_writer_makes_no_file_where_one_is_expected(driver: IStorageDriver) -> None:
    """An offset beyond nothing is wrong, and leaves nothing behind."""
    error = await error_of(driver.writer("no/file", 5))
    assert isinstance(error, OffsetInvalid)
    assert error.size == 0
    assert isinstance(await error_of(driver.stat("no/file")), PathNotFound)


async def one_writer_at_a_time(driver: IStorageDriver) -> None:
    """A second writer is refused until the first ends, whatever way it ends."""
    first = await driver.writer("file", 0)
    other = await driver.writer("other", 0)
    for _ in range(2):
        assert isinstance(await error_of(driver.writer("file")), WriterBusy)
    first.write(b"12")
    await first.flush()
    assert isinstance(await error_of(driver.writer("file", 2)), WriterBusy)
    await first.commit()
    assert isinstance(await error_of(driver.writer("file", 2)), WriterBusy)
    await first.close()
    second = await driver.writer("file", 2)
    await second.cancel()
    third = await driver.writer("file", 0)
    await third.cancel()
    await other.cancel()


async def commit_makes_a_file_that_can_go(driver: IStorageDriver) -> None:
    """A committed file can be read and moved before the writer closes."""
    writer = await driver.writer("uploads/data", 0)
    writer.write(b"content")
    assert await writer.commit() == 7
    assert await read(driver, "uploads/data") == b"content"
    await driver.move("uploads/data", "blobs/ab/data")
    assert await writer.close() == 7
    assert await writer.close() == 7
    assert await driver.get("blobs/ab/data", 7) == b"content"
    assert isinstance(await error_of(driver.stat("uploads/data")), PathNotFound)
    await driver.delete("blobs")


async def close_keeps(driver: IStorageDriver) -> None:
    """``close`` stores what was written, and what comes after it is dropped."""
    writer = await driver.writer("file", 0)
    writer.write(b"kept")
    closing = writer.close()
    writer.write(b"dropped")
    assert await closing == 4
    await writer.cancel()
    assert await driver.get("file", 100) == b"kept"
    await driver.delete("file")


async def cancel_removes(driver: IStorageDriver) -> None:
    """``cancel`` takes the file away, and can be called twice, or after ``commit``."""
    for commits in (False, True):
        writer = await driver.writer("a/file", 0)
        writer.write(LARGE_CONTENT)
        if commits:
            await writer.commit()
        await writer.cancel()
        await writer.cancel()
        await writer.close()
        assert isinstance(await error_of(driver.stat("a/file")), PathNotFound)


async def a_mark_tells_whose_bytes_they_are(driver: IStorageDriver) -> None:
    """What one writer leaves, the next one finds under the same mark; more bytes may change it."""
    writer = await driver.writer("a/file", 0)
    marks = [writer.content_id]
    for content in (b"one", LARGE_CONTENT, b"two"):
        writer.write(content)
        size = await writer.flush()
        left = writer.content_id
        await writer.close()
        writer = await driver.writer("a/file", size)
        assert writer.content_id == left
        marks.append(left)
    await writer.close()
    assert len(set(marks)) in {1, len(marks)}
    await driver.delete("a/file")


async def a_file_may_know_its_destination(driver: IStorageDriver) -> None:
    """A file that is begun with its later name is there once it is moved, and not before."""
    for content in (b"", b"small", LARGE_CONTENT, LARGE_CONTENT * 2):
        seen: list[bytes] = []
        writer = await driver.writer("up/file", 0, seen.append, destination="new/name")
        for start in range(0, len(content), 4_999_999):
            writer.write(content[start : start + 4_999_999])
        assert await writer.commit() == len(content)
        assert b"".join(seen) == content
        assert isinstance(await error_of(driver.stat("new/name")), PathNotFound)
        await driver.move("up/file", "new/name")
        await writer.close()
        assert await read(driver, "new/name") == content
        assert isinstance(await error_of(driver.stat("up/file")), PathNotFound)
        await driver.delete("new/name")


async def what_was_not_moved_is_not_at_its_destination(driver: IStorageDriver) -> None:
    """Whatever way such a writer ends, its destination stays as it was; ``flush`` is honest."""
    await driver.put("new/name", b"old")
    for way in ("close", "cancel", "flush"):
        writer = await driver.writer("up/file", 0, destination="new/name")
        writer.write(LARGE_CONTENT)
        kept = await writer.flush() if way == "flush" else 0
        await (writer.cancel() if way == "cancel" else writer.close())
        if way == "flush":
            assert kept in {0, len(LARGE_CONTENT)}
            again = await driver.writer("up/file", kept)
            await again.cancel()
        elif way == "close":
            again = await driver.writer("up/file")
            await again.cancel()
        assert await driver.get("new/name", 3) == b"old"
    await driver.delete("new/name")


async def conclude_changes_in_order(driver: IStorageDriver) -> None:
    """``finalize`` makes the changes that were decided on when all was stored, and closes."""
    await driver.put("uploads/1/startedat", b"now")
    for round_ in (1, 2):
        seen: list[bytes] = []
        writer = await driver.writer("uploads/1/data", 0, seen.append)
        writer.write(LARGE_CONTENT)

        def decide(size: int, seen: list[bytes] = seen) -> list[Change]:
            assert size == len(LARGE_CONTENT)
            assert b"".join(seen) == LARGE_CONTENT
            return [
                Remove("uploads/1/startedat"),
                Move("uploads/1/data", "blobs/ab/data"),
                Put("links/new/link", b"content"),
                Remove("uploads/1"),
                Remove("nothing/there"),
            ]

        assert await writer.finalize(decide) == len(LARGE_CONTENT), round_
        assert await read(driver, "blobs/ab/data") == LARGE_CONTENT
        assert await driver.get("links/new/link", 7) == b"content"
        assert isinstance(await error_of(driver.stat("uploads/1")), PathNotFound)
        # It is closed.
        assert await writer.close() == len(LARGE_CONTENT)
        again = await driver.writer("uploads/1/data", 0)
        await again.cancel()
        await driver.put("uploads/1/startedat", b"again")
    for folder in ("blobs", "links", "uploads"):
        await driver.delete(folder)


async def a_conclusion_that_fails_leaves_the_writer_open(driver: IStorageDriver) -> None:
    """What was changed before stays so; the writer can go another way, or the same again."""

    class Undecided(Exception):
        pass

    def undecided(_: int) -> list[Change]:
        raise Undecided

    writer = await driver.writer("a/file", 0)
    writer.write(b"content")
    told = False
    try:
        await writer.finalize(undecided)
    except Undecided:
        told = True
    assert told
    changes: list[Change] = [Put("b", b""), Move("no/where", "c"), Put("c", b"")]
    assert isinstance(await error_of(writer.finalize(lambda _: changes)), PathNotFound)
    assert await driver.get("b", 0) == b""
    assert isinstance(await error_of(driver.stat("c")), PathNotFound)
    assert isinstance(await error_of(driver.writer("a/file", 7)), WriterBusy)
    assert await writer.commit() == 7
    assert await writer.finalize(lambda size: [Move("a/file", f"moved/{size}")]) == 7
    assert await driver.get("moved/7", 7) == b"content"
    await driver.delete("moved")
    await driver.delete("b")


async def a_writer_looks_at_what_lies_beside(driver: IStorageDriver) -> None:
    """A file is not begun where another is missing, or where one is that must not be."""

    def begin() -> Deferred[IWriter]:
        return driver.writer("a/file", 0, present="a/begun", absent="a/ended")

    assert isinstance(await error_of(begin()), PathNotFound)
    assert list(await driver.walk("a")) == []
    await driver.put("a/begun", b"")
    writer = await begin()
    await writer.close()
    await driver.put("a/ended", b"")
    assert isinstance(await error_of(begin()), PathNotFound)
    assert isinstance(await error_of(driver.stat("a/file")), PathNotFound)
    await driver.delete("a/ended")
    await driver.delete("a/begun")
    await driver.put("a/other", b"")
    assert isinstance(await error_of(begin()), PathNotFound)
    await driver.delete("a/other")


async def an_empty_file_can_be_written(driver: IStorageDriver) -> None:
    """Nothing at all is a file too."""
    writer = await driver.writer("file", 0)
    assert await writer.commit() == 0
    await writer.close()
    assert await driver.get("file", 0) == b""
    await driver.delete("file")


WRITER_PROMISES = (
    a_writer_begins_and_continues,
    a_writer_makes_no_file_where_one_is_expected,
    one_writer_at_a_time,
    commit_makes_a_file_that_can_go,
    close_keeps,
    cancel_removes,
    a_mark_tells_whose_bytes_they_are,
    a_file_may_know_its_destination,
    what_was_not_moved_is_not_at_its_destination,
    conclude_changes_in_order,
    a_conclusion_that_fails_leaves_the_writer_open,
    a_writer_looks_at_what_lies_beside,
    an_empty_file_can_be_written,
)
