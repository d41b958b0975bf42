"""A receiver of notifications."""

from __future__ import annotations

import json
import time

from attrs import define, field

from tests.support.post_server import PostServer


@define(eq=False)
class Receiver(PostServer):
    """Collects the bodies of POSTs.

    :ivar answer: returns the status of a response, given the body as JSON; it may wait.
    :ivar received: headers and body of each request, before it was answered.
    """

    answer: object = lambda _: 200
    received: list = field(init=False, factory=list)

    @property
    def url(self):
        """The URL that takes events."""
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def events(self):
        """All events of Distribution's envelopes, in order."""
        return [event for _, body in [*self.received] for event in json.loads(body)["events"]]

    def respond(self, path, headers, body):
        """Keep the request, and return the status of its response."""
        self.received.append((headers, body))
        return self.answer(json.loads(body))


def wait_for(condition, timeout_s=30.0):
    """Wait until a function returns true, and fail if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.02)
