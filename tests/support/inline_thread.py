"""A replacement for a thread that makes calls at once."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred, succeed


class InlineThread:
    """Runs blocking work at once, in the calling thread."""

    closed = False

    def run_blocking(self, work, *arguments):
        return maybeDeferred(work, *arguments)

    def close(self):
        self.closed = True
        return succeed(None)
