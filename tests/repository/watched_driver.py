"""A storage driver that notes every call, and calls that are held, or fail."""

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
    """Passes every call on, and notes it; ``before`` and ``after`` may delay it or raise."""

    def __init__(self, driver, *, glances=False):
        self.driver = driver
        #: True: what was read is kept as long as a look at the file tells that it is the same.
        self.glances = glances
        self.name = driver.name
        self.min_chunk_bytes = driver.min_chunk_bytes
        self.calls = []
        self.looks = []
        #: False: what is written is stored, but the hash does not hear of it.
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
        """The calls that change the store."""
        changing = {"put", "create", "move", "copy", "delete", "writer", "commit", "flush"}
        return [call for call in self.calls if call[0] in changing]

    def writer(self, path, offset=None, observe=None, **beside):
        if not self.observes:
            observe = None
        opening = self.call(
            "writer", path, lambda: self.driver.writer(path, offset, observe, **beside)
        )
        return opening.addCallback(lambda writer: WatchedWriter(self, path, writer))

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
    """Notes which files are peeked at, and finds nothing unless the driver ``glances``."""

    def __init__(self, watched):
        self._watched = watched
        self._lookup = fast_lookup(watched.driver)

    def peek(self, path):
        self._watched.looks.append(path)
        return self._lookup.peek(path) if self._watched.glances else None

    def validate(self, versions):
        return all(self.peek(path) == version for path, version in versions)

    def open_cached(self, path, version):
        return self._lookup.open_cached(path, version)


class WatchedWriter:
    def __init__(self, watched, path, writer):
        self._watched = watched
        self._path = path
        self._writer = writer

    def finalize(self, decide):
        # Step by step, so that each step can be held, or fail.
        return finalize_in_steps(self._watched, self, decide)

    def __getattr__(self, action):
        attribute = getattr(self._writer, action)
        if action in {"flush", "commit"}:
            return lambda: self._watched.call(action, self._path, attribute)
        if action in {"close", "cancel"}:
            # They free everything even when they fail.
            def ended():
                answer = attribute()
                return self._watched.call(action, self._path, lambda: answer)

            return ended
        return attribute


class Pauses:
    """Holds the calls of one action on paths with some ending, until they are let go."""

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
    """A ``before`` that lets ``fatal`` calls pass and none after, as if the process had ended."""

    def before(number, _action, path):
        if number >= fatal:
            raise StorageError(path, "the process is gone")

    return before


def fails_at(number_of_call, *, full=False):
    """A ``before`` or ``after`` for one call that fails."""

    def hook(number, _action, path):
        if number == number_of_call:
            raise StorageError(path, "broken", full)

    return hook
