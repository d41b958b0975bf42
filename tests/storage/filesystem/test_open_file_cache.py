"""The cache of open files."""

import os
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.storage.filesystem.kit import descriptors
from twisted_registry.storage.filesystem.driver import MAX_CACHED_FILE_BYTES, FilesystemDriver
from twisted_registry.testing.stream_contract import RecordingConsumer


class Opens:
    """Counts the calls of ``open`` by the operating system."""

    def __init__(self, driver):
        self.count = 0
        self.real = driver.files.open
        driver.files.open = self

    def __call__(self, path, flags, mode=0o666):
        self.count += 1
        return self.real(path, flags, mode)


async def read_file(driver, path, offset=0, length=None):
    sink = RecordingConsumer()
    await (await driver.open(path, offset, length)).deliver(sink)
    return sink.content


@pytest.fixture
def driver(tmp_path):
    driver = FilesystemDriver(str(tmp_path), reactor, max_open_files=2)
    yield driver
    pytest_twisted.blockon(driver.close())


async def stored(driver, path, content):
    """Store a file and make it old enough to be cached."""
    await driver.put(path, content)
    full = Path(driver.root) / path
    os.utime(full, (1000, 1000))


@pytest_twisted.ensureDeferred
async def test_a_small_file_is_opened_once(driver):
    await stored(driver, "a", b"content")
    opens = Opens(driver)
    assert await read_file(driver, "a") == b"content"
    assert opens.count == 1
    assert await read_file(driver, "a", 2, 3) == b"nte"
    assert await read_file(driver, "a", 7) == b""
    assert opens.count == 1


@pytest_twisted.ensureDeferred
async def test_a_replaced_or_deleted_file_is_not_served_from_the_cache(driver):
    await stored(driver, "a", b"old")
    assert await read_file(driver, "a") == b"old"
    await driver.put("a", b"new")
    assert await read_file(driver, "a") == b"new"
    await driver.delete("a")
    with pytest.raises(Exception, match="a"):
        await driver.open("a")


@pytest_twisted.ensureDeferred
async def test_a_running_reader_keeps_its_file(driver):
    await stored(driver, "a", b"old")
    await read_file(driver, "a")
    begun = await driver.open("a")
    await driver.put("a", b"new")
    assert await read_file(driver, "a") == b"new"
    sink = RecordingConsumer()
    await begun.deliver(sink)
    assert sink.content == b"old"


@pytest_twisted.ensureDeferred
async def test_an_unchanged_file_is_opened_without_waiting(driver):
    await stored(driver, "a", b"content")
    seen = driver.peek("a")
    assert driver.validate([("a", seen)])
    assert driver.open_cached("a", seen) is None, "nobody has read it before"
    await read_file(driver, "a")
    opens, sink = Opens(driver), RecordingConsumer()
    await driver.open_cached("a", seen).deliver(sink)
    assert (sink.content, opens.count) == (b"content", 0)
    await driver.put("a", b"another")
    assert not driver.validate([("a", seen)])


@pytest_twisted.ensureDeferred
async def test_a_descriptor_is_closed_with_its_last_reader(driver):
    await stored(driver, "a", b"content")
    await read_file(driver, "a")
    before, seen = descriptors(), driver.peek("a")
    first, second = driver.open_cached("a", seen), await driver.open("a")
    assert descriptors() == before
    await driver.close()
    first.close()
    first.close()
    assert descriptors() == before
    assert os.pread(second.fileno(), 7, 0) == b"content"
    second.close()
    assert descriptors() == before - 1


@pytest_twisted.ensureDeferred
async def test_open_files_are_bounded_and_closed_with_the_driver(tmp_path):
    before = descriptors()
    driver = FilesystemDriver(str(tmp_path), reactor, max_open_files=2)
    for name in "abcde":
        await stored(driver, name, b"content")
        await read_file(driver, name)
        await read_file(driver, name)
    assert descriptors() <= before + 2
    await driver.close()
    assert descriptors() <= before


@pytest_twisted.ensureDeferred
async def test_large_and_new_files_do_not_stay_open(driver):
    await stored(driver, "large", b"x" * (MAX_CACHED_FILE_BYTES + 1))
    await driver.put("fresh", b"x")
    os.utime(Path(driver.root) / "fresh", (2**33, 2**33))
    opens = Opens(driver)
    for _ in range(2):
        await read_file(driver, "large")
        await read_file(driver, "fresh")
    assert opens.count == 4


@pytest_twisted.ensureDeferred
async def test_an_offset_beyond_the_end_of_a_cached_file_is_refused(driver):
    await stored(driver, "a", b"content")
    await read_file(driver, "a")
    with pytest.raises(Exception, match="ends at 7"):
        await driver.open("a", 8)
