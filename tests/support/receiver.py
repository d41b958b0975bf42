"""A receiver of notifications: an HTTP server on a thread, without Twisted."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field


@define(eq=False)
class Receiver:
    """Collects the bodies of POSTs.

    :ivar answer: returns the status of a response, given the body as JSON; it may wait.
    :ivar received: headers and body of each request, before it was answered.
    """

    answer: object = lambda _: 200
    received: list = field(init=False, factory=list)
    port: int = field(init=False, default=0)
    _server: ThreadingHTTPServer | None = field(init=False, default=None)

    @property
    def url(self):
        """The URL that takes events."""
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def events(self):
        """All events of Distribution's envelopes, in order."""
        return [event for _, body in [*self.received] for event in json.loads(body)["events"]]

    def start(self):
        """Listen, at the port of the last time."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.headers, body))
                status = receiver.answer(json.loads(body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # A thread that hangs must not hold up the end of the test.
            block_on_close = False

            def handle_error(self, *_):
                pass  # the client has left

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self):
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    __enter__ = start

    def __exit__(self, *_):
        self.stop()


def wait_for(condition, timeout_s=30.0):
    """Wait until a function returns true, and fail if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.02)
