"""An HTTP proxy in front of an object store that injects network faults."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import ClassVar
from urllib.parse import urlsplit

#: Faults that replace a response, and faults in the body of a response.
BEFORE = ("reset", "500", "503", "stall")
WITHIN = ("truncated", "reset within", "stall within", "corrupted")

_HOP = {"connection", "keep-alive", "transfer-encoding"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy
    disable_nagle_algorithm = True
    #: The connection to the store; each client connection has one.
    upstream: HTTPConnection | None = None

    def log_message(self, *_):
        """Do not log."""

    def handle(self):
        with suppress(ConnectionError):
            super().handle()
        if self.upstream is not None:
            self.upstream.close()

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.choose(self.command, self.path)
        if fault is not None:
            self.server.injected.append((fault, self.command, self.path))
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
        content = self.fetch(body)
        if fault == "corrupted" and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 0x20]) + content[middle + 1 :]
            fault = None
        if fault is None or not content:
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if fault == "reset within":
            self.reset()
        elif fault == "stall within":
            self.stall()
        self.close_connection = True

    def fetch(self, body):
        """Send the request to the store, pass the head of the response on, and return the body."""
        if self.upstream is None:
            self.upstream = HTTPConnection(self.server.store, timeout=60)
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                self.upstream.putheader(name, value)
        self.upstream.endheaders(body)
        found = self.upstream.getresponse()
        content = found.read()
        self.send_response_only(found.status)
        for name, value in found.getheaders():
            if name.lower() not in _HOP | {"content-length"}:
                self.send_header(name, value)
        length = found.getheader("Content-Length") if self.command == "HEAD" else len(content)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        return content

    def stall(self):
        """Send nothing until the proxy or the client closes the connection."""
        self.close_connection = True
        self.connection.settimeout(0.1)
        while not self.server.ended.is_set():
            with suppress(TimeoutError):
                if not self.connection.recv(1):
                    return

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
