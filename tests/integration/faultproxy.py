"""An HTTP proxy in front of an object store that injects network faults."""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import ClassVar
from urllib.parse import urlsplit

#: Faults that replace a response, and faults in the body of a response.
BEFORE = ("reset", "500", "503", "stall")
WITHIN = ("truncated", "reset within", "stall within", "corrupted")
#: Faults in the body of a request: the store gets other bytes, or fewer than announced.
UPLOAD = ("corrupted upload", "reset upload", "stall upload")
#: The store executes the request, and its response is lost.
LOST = "lost"

_HOP = {"connection", "keep-alive", "transfer-encoding"}


def corrupt(content):
    """Return a content with another byte in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x20]) + content[middle + 1 :]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy
    disable_nagle_algorithm = True
    #: The connection to the store; each client connection has one.
    upstream: HTTPConnection | None = None

    def log_message(self, *_):
        """Do not log."""

    def handle(self):
        # The client or the store may close its connection at any time.
        with suppress(OSError, HTTPException):
            super().handle()
        self.close_upstream()

    def close_upstream(self):
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None

    def handle_request(self):
        size = int(self.headers.get("Content-Length", 0))
        fault = self.server.choose(self.command, self.path)
        if fault in UPLOAD and not size:
            fault = None
        if fault is not None:
            self.server.injected.append((fault, self.command, self.path))
        if fault in {"reset upload", "stall upload"}:
            self.send_upstream(self.rfile.read(size // 2))
            self.stall() if fault == "stall upload" else self.reset()
            self.close_upstream()
            return
        body = self.rfile.read(size)
        if fault == "reset":
            self.reset()
        elif fault in {"500", "503"}:
            code = "SlowDown" if fault == "503" else "InternalError"
            self.respond(int(fault), f"<Error><Code>{code}</Code></Error>".encode())
        elif fault == "stall":
            self.stall()
        else:
            self.forward(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def respond(self, status, content):
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def forward(self, body, fault):
        self.send_upstream(corrupt(body) if fault == "corrupted upload" else body)
        found = self.upstream.getresponse()
        content = found.read()
        if fault == LOST:
            self.reset()
            return
        self.send_head(found, content)
        if fault == "corrupted" and content:
            content = corrupt(content)
        if fault not in WITHIN or fault == "corrupted" or not content:
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if fault == "reset within":
            self.reset()
        elif fault == "stall within":
            self.stall()
        self.close_connection = True

    def send_upstream(self, body):
        """Send the request to the store, with a body that may be shorter than announced."""
        if self.upstream is None:
            self.upstream = HTTPConnection(self.server.store, timeout=60)
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                self.upstream.putheader(name, value)
        self.upstream.endheaders(body)

    def send_head(self, found, content):
        """Pass the head of the store's response on."""
        self.send_response_only(found.status)
        for name, value in found.getheaders():
            if name.lower() not in _HOP | {"content-length"}:
                self.send_header(name, value)
        length = found.getheader("Content-Length") if self.command == "HEAD" else len(content)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def stall(self):
        """Send and receive nothing until the proxy or the client closes the connection."""
        self.close_connection = True
        closed = select.poll()
        closed.register(self.connection, select.POLLRDHUP)
        while not (self.server.ended.is_set() or closed.poll(100)):
            pass

    def reset(self):
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()


class FaultProxy(ThreadingHTTPServer):
    """A proxy on a free port; ``choose`` returns the fault for a request, or None.

    :ivar injected: the faults so far: fault, method and path.
    """

    daemon_threads = True
    request_queue_size: ClassVar[int] = 100

    def __init__(self, endpoint: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = urlsplit(endpoint).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.choose = lambda _method, _path: None
        self.injected = []
        self.ended = Event()
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def handle_error(self, *_):
        """Ignore clients that closed their connection."""

    def close(self):
        self.ended.set()
        self.shutdown()
        self.server_close()
        self._thread.join()
