"""A storage driver with the 12 methods of IStorageDriver only: a dict in memory."""

from __future__ import annotations

import functools

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_registry.storage import interfaces
from twisted_registry.storage.interfaces import Entry, IReader, IStorageDriver, IWriter
from twisted_registry.storage.writers import finalize_in_steps

PIECE_BYTES = 256 * 1024


def deferred(method):
    """Return the result of a method in a Deferred."""
    return functools.wraps(method)(lambda *args, **kwargs: execute(method, *args, **kwargs))


@implementer(IStorageDriver)
class DictDriver:
    name = "dict"
    min_chunk_bytes = 0

    def __init__(self):
        self.files = {}
        self.locked = set()

    @deferred
    def get(self, path, limit):
        if len(self._file(path)) > limit:
            raise interfaces.StorageError(path, f"has more than {limit} bytes")
        return bytes(self._file(path))

    @deferred
    def put(self, path, content, *, durable=True):
        self.files[path] = content

    @deferred
    def create(self, path, content):
        if path in self.files:
            raise interfaces.PathExists(path)
        self.files[path] = content

    @deferred
    def stat(self, path):
        if path in self.files:
            return Entry(path, len(self.files[path]))
        if path and not self._below(path):
            raise interfaces.PathNotFound(path)
        return Entry(path, None)

    @deferred
    def open(self, path, offset=0, length=None):
        content = self._file(path)
        if offset > len(content):
            raise interfaces.OffsetInvalid(path, size=len(content))
        return DictReader(bytes(content[offset:][:length]))

    @deferred
    def writer(
        self, path, offset=None, observe=None, *, destination=None, present=None, absent=None
    ):
        if path in self.locked:
            raise interfaces.WriterBusy(path)
        size = len(self.files.get(path, b""))
        if offset not in (None, size):
            raise interfaces.OffsetInvalid(path, size=size)
        if (present and present not in self.files) or absent in self.files:
            if not size:
                self.files.pop(path, None)
            raise interfaces.PathNotFound(path)
        return DictWriter(self, path, observe or (lambda data: None))

    @deferred
    def copy(self, source, destination):
        self.files[destination] = bytes(self._file(source))

    @deferred
    def move(self, source, destination, *, still=None):
        content = self._file(source)
        if still is not None and not still():
            raise interfaces.MoveRefused(source)
        del self.files[source]
        self.files[destination] = content

    @deferred
    def delete(self, path, *, durable=True):
        gone = [path] if path in self.files else self._below(path)
        if not gone:
            raise interfaces.PathNotFound(path)
        for file in gone:
            del self.files[file]

    @deferred
    def list(self, path, after="", limit=1000):
        below = self._below(path)
        if path and not below:
            raise interfaces.PathNotFound(path)
        names = {}
        for file in below:
            name, slash, _ = file[len(path) + bool(path) :].partition("/")
            names[name] = None if slash else len(self.files[file])
        return [Entry(name, names[name]) for name in sorted(names) if name > after][:limit]

    @deferred
    def walk(self, prefix, after="", limit=1000):
        files = [file for file in self._below(prefix) if file > after][:limit]
        return [Entry(file, len(self.files[file])) for file in files]

    def close(self):
        return succeed(None)

    def _file(self, path):
        if path not in self.files:
            raise interfaces.PathNotFound(path)
        return self.files[path]

    def _below(self, folder):
        return sorted(file for file in self.files if not folder or file.startswith(f"{folder}/"))


@implementer(IReader, IPushProducer)
class DictReader:
    def __init__(self, content):
        self.content, self.size = content, len(content)
        self.consumer = self.done = None

    def deliver(self, consumer):
        self.consumer, self.done = consumer, Deferred(lambda _: self._leave())
        self.paused = False
        consumer.registerProducer(self, True)
        self.resumeProducing()
        return self.done

    @deferred
    def feed(self, observe):
        observe(self.content)

    def close(self):
        if self.done is not None and not self.done.called:
            self.done.cancel()

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False
        while self.consumer is not None and not self.paused:
            piece, self.content = self.content[:PIECE_BYTES], self.content[PIECE_BYTES:]
            if not piece:
                self._leave()
                self.done.callback(None)
            else:
                self.consumer.write(piece)

    stopProducing = close

    def _leave(self):
        self.consumer.unregisterProducer()
        self.consumer = None


@implementer(IWriter)
class DictWriter:
    content_id = ""

    def __init__(self, driver, path, observe):
        self.driver, self.path, self.observe = driver, path, observe
        self.content = driver.files[path] = bytearray(driver.files.get(path, b""))
        driver.locked.add(path)

    @property
    def size(self):
        return len(self.content)

    def registerProducer(self, producer, streaming):
        """Never pause the producer: writes are immediate."""

    def unregisterProducer(self):
        pass

    def write(self, data):
        if self.path is not None:
            self.content += data
            self.observe(data)

    def flush(self):
        return succeed(self.size)

    commit = flush

    def finalize(self, decide):
        return finalize_in_steps(self.driver, self, decide)

    def close(self):
        self.driver.locked.discard(self.path)
        self.path = None
        return succeed(self.size)

    def cancel(self):
        if self.driver.files.get(self.path) is self.content:
            del self.driver.files[self.path]
        return self.close().addCallback(lambda _: None)
