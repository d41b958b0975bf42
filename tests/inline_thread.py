"""A thread that is none: calls are made at once."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred, succeed


class Inline:
    closed = False

    def run_blocking(self, work, *arguments):
        return maybeDeferred(work, *arguments)

    def close(self):
        self.closed = True
        return succeed(None)
