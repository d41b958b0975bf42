"""The operating system, with calls that are counted or fail."""

from __future__ import annotations

import errno
import os
from collections import Counter

from twisted_registry.storage.filesystem.oscalls import OSCalls


class CountingFiles(OSCalls):
    """Counts the calls of each name in ``calls``."""

    def __init__(self):
        self.calls = Counter()

    def __getattribute__(self, name):
        if not name.startswith("_") and hasattr(OSCalls, name):
            self.calls[name] += 1
        return super().__getattribute__(name)


class FaultyFiles(OSCalls):
    """Fails calls: ``faults[name]`` is a list of an errno, or None for success, for each call.

    A negative number for ``pwrite`` makes it take only so many bytes.
    """

    def __init__(self, **faults):
        self.faults = faults

    def __getattribute__(self, name):
        real = super().__getattribute__(name)
        if name.startswith("_") or not hasattr(OSCalls, name):
            return real
        waiting = self.faults.get(name)
        fault = waiting.pop(0) if waiting else None
        if fault is None:
            return real
        if fault < 0:
            return lambda fd, data, offset: real(fd, data[:-fault], offset)

        def failing(*_, **__):
            raise OSError(fault, os.strerror(fault))

        return failing


FULL = errno.ENOSPC
BROKEN = errno.EIO
