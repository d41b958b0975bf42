"""Contract tests of readers and writers; a part of :data:`~.storage_contract.STORAGE_CONTRACT`.

It begins with the tools of all contract tests: a consumer that records, and whole files in one
call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer
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
    StorageError,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from twisted.internet.interfaces import IProducer

#: More than any driver reads, writes or buffers at once, and not a round number.
LARGE_CONTENT = bytes(range(251)) * 43_000


async def error_of(answer: Awaitable[Any]) -> StorageError:
    """Return the error that an awaitable fails with.

    :raises AssertionError: if it does not fail.
    """
    try:
        result = await answer
    except StorageError as error:
        return error
    raise AssertionError(f"no error, but {result!r}")


@implementer(IConsumer)
@define(eq=False)
class RecordingConsumer:
    """A consumer that records the bytes written to it.

    :ivar pauses: whether to pause the producer at each write.
    :ivar received: what was written, one item for each call.
    :ivar producer: the registered producer, or None.
    :ivar wanted: fires at the next write, if ``pauses``.
    """

    pauses: bool = False
    received: list[bytes] = field(factory=list)
    producer: IPushProducer | None = None
    wanted: Deferred[None] = field(factory=Deferred)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Accept one push producer."""
        assert streaming
        assert self.producer is None
        verifyObject(IPushProducer, producer)
        self.producer = cast("IPushProducer", producer)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        """Record ``data``."""
        assert self.producer is not None
        self.received.append(data)
        if self.pauses:
            self.producer.pauseProducing()
            wanted, self.wanted = self.wanted, Deferred()
            wanted.callback(None)

    @property
    def has_producer(self) -> bool:
        """Whether a producer is registered."""
        return self.producer is not None

    @property
    def content(self) -> bytes:
        """All bytes that were written."""
        return b"".join(self.received)


async def read_file(driver: IStorageDriver, path: str) -> bytes:
    """Return the content of a file of any size."""
    consumer = RecordingConsumer()
    await (await driver.open(path)).deliver(consumer)
    return consumer.content


async def store_file(driver: IStorageDriver, path: str, content: bytes) -> None:
    """Write a file of any size."""
    writer = await driver.writer(path, 0)
    writer.write(content)
    await writer.commit()
    await writer.close()


async def a_reader_delivers_the_requested_range(driver: IStorageDriver) -> None:
    """The range is truncated at the end of the file."""
    content = b"0123456789"
    await driver.put("file", content)
    for offset, length in ((0, None), (0, 3), (4, None), (4, 3), (4, 99), (10, None), (3, 0)):
        reader = await driver.open("file", offset, length)
        verifyObject(IReader, reader)
        wanted = content[offset:][:length]
        assert reader.size == len(wanted)
        if ILocalFileReader.providedBy(reader):
            assert reader.offset() == offset
        consumer = RecordingConsumer()
        await reader.deliver(consumer)
        assert consumer.content == wanted
        assert not consumer.has_producer
        reader.close()
    error = await error_of(driver.open("file", 11))
    assert isinstance(error, OffsetInvalid)
    assert error.size == 10
    await driver.delete("file")


async def a_reader_writes_nothing_while_paused(driver: IStorageDriver) -> None:
    """A consumer that pauses at every piece receives them one by one, and all of them."""
    await store_file(driver, "file", LARGE_CONTENT)
    consumer = RecordingConsumer(pauses=True)
    wanted = consumer.wanted
    done = (await driver.open("file")).deliver(consumer)
    count, complete = 0, False
    while not complete:
        await wanted
        count += 1
        assert len(consumer.received) == count
        wanted = consumer.wanted
        complete = len(consumer.content) == len(LARGE_CONTENT)
        # It may have finished with the last piece.
        assert complete or consumer.producer is not None
        if consumer.producer is not None:
            consumer.producer.resumeProducing()
    await done
    assert consumer.content == LARGE_CONTENT
    assert count > 1
    await driver.delete("file")


async def a_delivery_ends_when_cancelled_closed_or_stopped(driver: IStorageDriver) -> None:
    """It ends at once and fails with ``CancelledError``."""
    await store_file(driver, "file", LARGE_CONTENT)
    for way in range(3):
        consumer = RecordingConsumer(pauses=True)
        wanted = consumer.wanted
        reader = await driver.open("file")
        done = reader.deliver(consumer)
        await wanted
        assert consumer.producer is not None
        (done.cancel, reader.close, consumer.producer.stopProducing)[way]()
        assert not consumer.has_producer
        cancelled = False
        try:
            await done
        except CancelledError:
            cancelled = True
        assert cancelled
        assert len(consumer.received) == 1
        reader.close()
    await driver.delete("file")


async def a_reader_keeps_the_content_that_it_opened(driver: IStorageDriver) -> None:
    """Replacing, moving or deleting the path has no effect on an open reader."""
    await driver.put("a/file", b"first")
    readers = [await driver.open("a/file") for _ in range(4)]
    await driver.put("a/file", b"second content")
    readers.append(await driver.open("a/file", 7))
    await driver.move("a/file", "b/file")
    readers.append(await driver.open("b/file"))
    await driver.delete("b/file")
    consumers = [RecordingConsumer() for _ in readers]
    for reader, consumer in zip(readers, consumers, strict=True):
        await reader.deliver(consumer)
    contents = [consumer.content for consumer in consumers]
    assert contents == [b"first"] * 4 + [b"content", b"second content"]
    reader = await _opened_and_closed(driver)
    reader.close()


async def feed_passes_the_range_to_a_function_in_order(driver: IStorageDriver) -> None:
    """``feed`` calls the function with all bytes of the range."""
    await store_file(driver, "file", LARGE_CONTENT)
    pieces: list[bytes] = []
    await (await driver.open("file", 7, len(LARGE_CONTENT) - 20)).feed(pieces.append)
    assert b"".join(pieces) == LARGE_CONTENT[7:-13]
    await driver.delete("file")


async def the_descriptor_of_a_reader_reads_the_range(driver: IStorageDriver) -> None:
    """Readers of local files have a descriptor and the offset of the range."""
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


READER_CONTRACT = (
    a_reader_delivers_the_requested_range,
    a_reader_writes_nothing_while_paused,
    a_delivery_ends_when_cancelled_closed_or_stopped,
    a_reader_keeps_the_content_that_it_opened,
    feed_passes_the_range_to_a_function_in_order,
    the_descriptor_of_a_reader_reads_the_range,
)


async def a_writer_continues_only_at_the_end_of_the_file(driver: IStorageDriver) -> None:
    """Another offset raises ``OffsetInvalid`` with the size."""
    seen: list[bytes] = []
    writer = await driver.writer("a/b/file", 0, seen.append)
    verifyObject(IWriter, writer)
    assert writer.size == 0
    for start in range(0, len(LARGE_CONTENT), 99_991):
        writer.write(LARGE_CONTENT[start : start + 99_991])
    assert writer.size == len(LARGE_CONTENT)
    assert await writer.flush() == len(LARGE_CONTENT)
    assert b"".join(seen) == LARGE_CONTENT
    assert await read_file(driver, "a/b/file") == LARGE_CONTENT
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
    assert await read_file(driver, "a/b/file") == LARGE_CONTENT + b"moreand more"
    await driver.delete("a")


async def a_writer_makes_no_file_if_the_offset_is_wrong(driver: IStorageDriver) -> None:
    """A missing file has size 0."""
    error = await error_of(driver.writer("no/file", 5))
    assert isinstance(error, OffsetInvalid)
    assert error.size == 0
    assert isinstance(await error_of(driver.stat("no/file")), PathNotFound)


async def a_path_has_one_writer_at_a_time(driver: IStorageDriver) -> None:
    """The path is free again after ``close`` and after ``cancel``."""
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


async def a_committed_file_can_be_moved_before_the_writer_closes(driver: IStorageDriver) -> None:
    """It can be read before, too."""
    writer = await driver.writer("uploads/data", 0)
    writer.write(b"content")
    assert await writer.commit() == 7
    assert await read_file(driver, "uploads/data") == b"content"
    await driver.move("uploads/data", "blobs/ab/data")
    assert await writer.close() == 7
    assert await writer.close() == 7
    assert await driver.get("blobs/ab/data", 7) == b"content"
    assert isinstance(await error_of(driver.stat("uploads/data")), PathNotFound)
    await driver.delete("blobs")


async def close_keeps_what_was_written_before_it(driver: IStorageDriver) -> None:
    """Bytes that are written after ``close`` are dropped."""
    writer = await driver.writer("file", 0)
    writer.write(b"kept")
    closing = writer.close()
    writer.write(b"dropped")
    assert await closing == 4
    await writer.cancel()
    assert await driver.get("file", 100) == b"kept"
    await driver.delete("file")


async def cancel_deletes_the_file(driver: IStorageDriver) -> None:
    """``cancel`` can be called twice, and after ``commit``."""
    for commits in (False, True):
        writer = await driver.writer("a/file", 0)
        writer.write(LARGE_CONTENT)
        if commits:
            await writer.commit()
        await writer.cancel()
        await writer.cancel()
        await writer.close()
        assert isinstance(await error_of(driver.stat("a/file")), PathNotFound)


async def content_id_identifies_the_bytes_that_a_writer_left(driver: IStorageDriver) -> None:
    """The next writer has the same value; more bytes may change it."""
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


async def a_file_with_a_destination_appears_when_it_is_moved(driver: IStorageDriver) -> None:
    """Before the move it is not visible at the destination."""
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
        assert await read_file(driver, "new/name") == content
        assert isinstance(await error_of(driver.stat("up/file")), PathNotFound)
        await driver.delete("new/name")


async def the_destination_is_unchanged_if_the_file_is_not_moved(driver: IStorageDriver) -> None:
    """``flush`` fires with the number of bytes that it really kept."""
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


async def finalize_makes_the_changes_in_order_and_closes(driver: IStorageDriver) -> None:
    """The changes are requested after all bytes are stored and observed."""
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
        assert await read_file(driver, "blobs/ab/data") == LARGE_CONTENT
        assert await driver.get("links/new/link", 7) == b"content"
        assert isinstance(await error_of(driver.stat("uploads/1")), PathNotFound)
        # It is closed.
        assert await writer.close() == len(LARGE_CONTENT)
        again = await driver.writer("uploads/1/data", 0)
        await again.cancel()
        await driver.put("uploads/1/startedat", b"again")
    for folder in ("blobs", "links", "uploads"):
        await driver.delete(folder)


async def the_writer_stays_open_if_finalize_fails(driver: IStorageDriver) -> None:
    """The changes before the failed one stay; ``finalize`` can be called again."""

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


async def a_writer_checks_its_sibling_files(driver: IStorageDriver) -> None:
    """``present`` must exist and ``absent`` must not; otherwise no file is made."""

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


async def a_writer_can_make_an_empty_file(driver: IStorageDriver) -> None:
    """A file without bytes is a file."""
    writer = await driver.writer("file", 0)
    assert await writer.commit() == 0
    await writer.close()
    assert await driver.get("file", 0) == b""
    await driver.delete("file")


WRITER_CONTRACT = (
    a_writer_continues_only_at_the_end_of_the_file,
    a_writer_makes_no_file_if_the_offset_is_wrong,
    a_path_has_one_writer_at_a_time,
    a_committed_file_can_be_moved_before_the_writer_closes,
    close_keeps_what_was_written_before_it,
    cancel_deletes_the_file,
    content_id_identifies_the_bytes_that_a_writer_left,
    a_file_with_a_destination_appears_when_it_is_moved,
    the_destination_is_unchanged_if_the_file_is_not_moved,
    finalize_makes_the_changes_in_order_and_closes,
    the_writer_stays_open_if_finalize_fails,
    a_writer_checks_its_sibling_files,
    a_writer_can_make_an_empty_file,
)
