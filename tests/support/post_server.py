"""An HTTP server on a thread, without Twisted, that takes POSTs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field


@define(eq=False)
class PostServer(ABC):
    """Calls :meth:`respond` for each POST; a context manager that listens."""

    port: int = field(init=False, default=0)
    _server: ThreadingHTTPServer | None = field(init=False, default=None)

    @abstractmethod
    def respond(self, path, headers, body):
        """Return the status of a response; it may wait."""

    def start(self):
        """Listen, at the port of the last time."""
        respond = self.respond

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(respond(self.path, self.headers, body))
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
