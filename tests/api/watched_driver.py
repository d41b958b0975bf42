"""A storage driver whose calls a test holds back or fails."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from zope.interface import alsoProvides, implementer

from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    IFastLookup,
    ILocalFileReader,
    IReader,
    IStorageDriver,
    IWriter,
)
from twisted_registry.storage.writers import finalize_in_steps

#: Methods that a test neither holds back nor fails; every other one is watched, whatever its name.
UNWATCHED = {"close", "lock"}


@implementer(IStorageDriver)
class Watched:
    """A driver that calls ``before(number, name)`` before each call of another driver.

    ``number`` counts the calls from 0. ``before`` returns None, or a Deferred that the call waits
    for, and with which it fails.

    :ivar calls: the names of the calls.
    :ivar opened: the number of open readers and writers.
    """

    def __init__(self, driver, before):
        self.driver = driver
        self.name = driver.name
        self.min_chunk_bytes = driver.min_chunk_bytes
        self.before = before
        self.calls = []
        self.opened = 0

    def pass_on(self, name, function, *args, **kwargs):
        self.calls.append(name)
        first = self.before(len(self.calls) - 1, name)
        if first is None:
            return function(*args, **kwargs)
        return first.addCallback(lambda _: function(*args, **kwargs))

    def __conform__(self, interface):
        """Watch the optional interfaces, too; without IFastLookup, every read is a call."""
        if interface not in OPTIONAL_INTERFACES or interface is IFastLookup:
            return None
        optional = interface(self.driver, None)
        return None if optional is None else WatchedOptional(self, optional)

    def __getattr__(self, name):
        return self.watched(self.driver, name)

    def watched(self, target, name):
        function = getattr(target, name)
        if name in UNWATCHED or not callable(function):
            return function

        def call(*args, **kwargs):
            result = self.pass_on(name, function, *args, **kwargs)
            if name == "open":
                result.addCallback(lambda reader: WatchedReader(self, reader))
            elif name == "writer":
                result.addCallback(lambda writer: WatchedWriter(self, writer))
            return result

        return call

    def close(self):
        return self.driver.close()


class WatchedOptional:
    """An optional interface of a watched store."""

    def __init__(self, store, optional):
        self._store, self._optional = store, optional

    def __getattr__(self, name):
        return self._store.watched(self._optional, name)


@implementer(IReader)
class WatchedReader:
    """A reader of a watched driver."""

    def __init__(self, store, reader):
        self._store, self._reader = store, reader
        self.size = reader.size
        self._closed = False
        store.opened += 1
        if ILocalFileReader.providedBy(reader):
            alsoProvides(self, ILocalFileReader)
            self.fileno, self.offset = reader.fileno, reader.offset

    def deliver(self, consumer):
        return self._store.pass_on("deliver", self._reader.deliver, consumer).addBoth(self._done)

    def feed(self, observe):
        return self._store.pass_on("feed", self._reader.feed, observe).addBoth(self._done)

    def close(self):
        self._done(None)
        self._reader.close()

    def _done(self, result):
        if not self._closed:
            self._closed = True
            self._store.opened -= 1
        return result


@implementer(IWriter)
class WatchedWriter:
    """A writer of a watched driver."""

    def __init__(self, store, writer):
        self._store, self._writer = store, writer
        self._closed = False
        store.opened += 1

    @property
    def size(self):
        return self._writer.size

    @property
    def content_id(self):
        return self._writer.content_id

    def registerProducer(self, producer, streaming):
        self._writer.registerProducer(producer, streaming)

    def unregisterProducer(self):
        self._writer.unregisterProducer()

    def write(self, data):
        self._writer.write(data)

    def flush(self):
        return self._store.pass_on("flush", self._writer.flush)

    def commit(self):
        return self._store.pass_on("commit", self._writer.commit)

    def finalize(self, decide):
        return finalize_in_steps(self._store, self, decide)

    def close(self):
        return self._end("close")

    def cancel(self):
        return self._end("cancel")

    def _end(self, name):
        if not self._closed:
            self._closed = True
            self._store.opened -= 1
        # Drivers guarantee that this works even if the store fails.
        return getattr(self._writer, name)()


def refuse(number, name):
    """Fail a test that uses storage at all."""
    return fail(AssertionError(f"storage was touched: call {number}, {name}"))


def failing_at(number, error):
    """Fail the call with this number (None: no call) with ``error``."""

    def before(call, _name):
        return fail(error) if call == number else None

    return before


class HeldCall:
    """Holds one call back; ``reached`` fires with its name when it is made."""

    def __init__(self, number):
        self.number = number
        self.reached = Deferred()
        self.cancelled = False

    def __call__(self, call, name):
        if call != self.number:
            return None
        held = Deferred(self._cancel)
        self.reached.callback(name)
        return held

    def _cancel(self, _deferred):
        self.cancelled = True
