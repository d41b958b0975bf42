"""The promises of readers; see :mod:`twisted_registry.storage.contract`."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from twisted_registry.storage.contractkit import LARGE_CONTENT, Sink, error_of, store
from twisted_registry.storage.interfaces import (
    IStorageDriver,
    OffsetInvalid,
)
from twisted_registry.storage.streams import IReader


async def open_reads_a_stretch(driver: IStorageDriver) -> None:
    """A reader delivers what lies between offset and length, cut at the end."""
    content = b"0123456789"
    await driver.put("file", content)
    for offset, length in ((0, None), (0, 3), (4, None), (4, 3), (4, 99), (10, None), (3, 0)):
        reader = await driver.open("file", offset, length)
        verifyObject(IReader, reader)
        wanted = content[offset:][:length]
        assert reader.size == len(wanted)
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
    fd = reader.fileno()
    assert fd is None or os.pread(fd, reader.size, reader.offset()) == b"3456"
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
