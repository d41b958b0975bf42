"""A storage driver that records every call, and hooks that delay or fail calls."""

from __future__ import annotations

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from twisted_registry.storage.fallbacks import fast_lookup
from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    IFastLookup,
    IHostLock,
    IStorageDriver,
    StorageError,
)
from twisted_registry.storage.writers import finalize_in_steps


@implementer(IStorageDriver)
class WatchedDriver:
    """Records every call and passes it on. Hooks may delay it, or make it fail.

    :ivar can_peek: whether ``peek`` and ``validate`` work, so that links and manifests are cached.
    :ivar calls: pairs of method and path, in order.
    :ivar peeks: the paths that were peeked at, in order.
    :ivar observes: False: bytes are stored, but not added to the running hash.
    :ivar before: called with the number, method and path of each call before it is made; may return
        a Deferred, or raise.
    :ivar after: the same, when the call has ended.
    """

    def __init__(self, driver, *, can_peek=False):
        self.driver = driver
        self.can_peek = can_peek
        self.name = driver.name
        self.min_chunk_bytes = driver.min_chunk_bytes
        self.calls = []
        self.peeks = []
        self.writers = []
        self.observes = True
        self.before = self.after = lambda number, action, path: None

    def call(self, action, path, function):
        number = len(self.calls)
        self.calls.append((action, path))
        calling = maybeDeferred(self.before, number, action, path)
        calling.addCallback(lambda _: function())

        def answered(result):
            waiting = maybeDeferred(self.after, number, action, path)
            return waiting.addCallback(lambda _: result)

        return calling.addBoth(answered)

    def __conform__(self, interface):
        if interface is IFastLookup:
            return WatchedLookup(self)
        if interface is IHostLock:
            return IHostLock(self.driver, None)
        if interface not in OPTIONAL_INTERFACES:
            return None
        optional = interface(self.driver, None)
        return None if optional is None else WatchedOptional(self, optional)

    def writes(self):
        """Return the calls that change the store."""
        changing = {"put", "create", "move", "copy", "delete", "writer", "commit", "flush"}
        return [call for call in self.calls if call[0] in changing]

    def writer(self, path, offset=None, observe=None, **beside):
        if not self.observes:
            observe = None

        def open_writer():
            return self.driver.writer(path, offset, observe, **beside).addCallback(record)

        def record(writer):
            self.writers.append(writer)
            return writer

        opening = self.call("writer", path, open_writer)
        return opening.addCallback(lambda writer: WatchedWriter(self, path, writer))

    def close_writers(self):
        """Close all writers, as the end of the process does."""
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    def __getattr__(self, action):
        return self.watched(self.driver, action)

    def watched(self, target, action):
        method = getattr(target, action)
        return lambda path, *args, **kwargs: self.call(
            action, path, lambda: method(path, *args, **kwargs)
        )


class WatchedOptional:
    """An optional interface of a watched driver."""

    def __init__(self, watched, optional):
        self._watched, self._optional = watched, optional

    def __getattr__(self, action):
        return self._watched.watched(self._optional, action)


class WatchedLookup:
    """Records which files are peeked at, and finds none unless the driver ``can_peek``."""

    def __init__(self, watched):
        self._watched = watched
        self._lookup = fast_lookup(watched.driver)

    def peek(self, path):
        self._watched.peeks.append(path)
        return self._lookup.peek(path) if self._watched.can_peek else None

    def validate(self, versions):
        return all(self.peek(path) == version for path, version in versions)

    def open_cached(self, path, version):
        return self._lookup.open_cached(path, version)


class WatchedWriter:
    """A writer of a watched driver."""

    def __init__(self, watched, path, writer):
        self.writer = writer
        self._watched = watched
        self._path = path

    def finalize(self, decide):
        # In steps, so that each step can be delayed, or fail.
        return finalize_in_steps(self._watched, self, decide)

    def __getattr__(self, action):
        attribute = getattr(self.writer, action)
        if action in {"flush", "commit"}:
            return lambda: self._watched.call(action, self._path, attribute)
        if action in {"close", "cancel"}:
            # They free everything even if they fail.
            def ended():
                answer = attribute()
                return self._watched.call(action, self._path, lambda: answer)

            return ended
        return attribute


class Pauses:
    """A hook that delays the calls of one method on paths with some ending, until a release."""

    def __init__(self, action, ending):
        self.action = action
        self.ending = ending
        self.waiting = []
        self.holding = True

    def __call__(self, _number, action, path):
        if self.holding and action == self.action and path.endswith(self.ending):
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return None

    def release(self):
        self.holding = False
        for deferred in self.waiting:
            deferred.callback(None)


def dies_at(fatal):
    """Return a hook that fails all calls from number ``fatal`` on, as if the process had ended."""

    def before(number, _action, path):
        if number >= fatal:
            raise StorageError(path, "the process has ended")

    return before


def fails_at(number_of_call, *, full=False):
    """Return a hook that fails one call."""

    def hook(number, _action, path):
        if number == number_of_call:
            raise StorageError(path, "broken", full)

    return hook
