"""Helpers that send operations to a fake agent."""

from __future__ import annotations

from twisted.internet.defer import succeed

from twisted_registry.storage.s3.interfaces import Operation


class FakeCredentials:
    def __init__(self, *results, renewed=()):
        self.results = list(results)
        self.renewed = list(renewed)
        self.refused = []
        self.closed = False

    def current(self):
        return self.results.pop(0)

    def renew(self, refused):
        self.refused.append(refused)
        return self.renewed.pop(0) if self.renewed else succeed(refused)

    def close(self):
        self.closed = True
        return succeed(None)


GET = Operation("GetObject", "GET", "a b")
LATER = "Fri, 24 May 2013 01:00:00 GMT"


def collect(answer):
    return answer.collect(1000)


def run(sender, clock, operation=GET, read=collect, seconds=60.0):
    """Send an operation, and advance the clock past the delays between attempts."""
    sending = sender.send(operation, read)
    for _ in range(int(seconds * 10)):
        if sending.called:
            break
        clock.advance(0.1)
    return sending
