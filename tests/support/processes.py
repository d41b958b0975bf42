"""Registries as processes, started by their command lines."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Event, Thread

ROOT = Path(__file__).parents[2]
SERVE = (sys.executable, "-m", "twisted_registry", "serve")
TWISTD = (
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    "--nodaemon",
    "--pidfile=",
)

CONFIGURATION = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: {addr}
  secret: do-not-tell
"""


_PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def environment(**more):
    """Return the environment of a process, without REGISTRY_* variables of this one."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **more}


def prepared(statements):
    """Return the command of a registry whose process begins with statements of Python."""
    code = f"import sys; {statements}; from twisted_registry.cli import main; sys.exit(main())"
    return (sys.executable, "-c", code, "serve")


def free_port():
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command, cwd, timeout_s=60, **environ):
    """Run a command; returns exit status, standard output, and lines of standard error."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(**environ), capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


def write_configuration(folder, text=CONFIGURATION, *, addr="127.0.0.1:0", more=""):
    """Write a configuration file, and return its path."""
    path = folder / "registry.yml"
    path.write_text(text.format(root=folder / "store", addr=addr) + more)
    return str(path)


def wait_until(ready, seconds=60):
    """Poll ``ready`` until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (result := ready()):
        assert time.monotonic() < deadline, f"not ready after {seconds} s"
        time.sleep(0.02)
    return result


def status_over_unix(path):
    """Send GET /v2/ over a Unix socket; return the status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = HTTPResponse(connection)
        response.begin()
        return response.status


def passing_socket(listening):
    """Return the beginning of a command of Python that passes a socket as systemd does.

    It is followed by the arguments of the interpreter; the process inherits the socket.
    """
    return (sys.executable, "-c", _PASS_SOCKET, str(listening.fileno()))


class RegistryProcess:
    """A registry process that listens.

    :ivar lines: of its standard error so far.
    """

    def __init__(self, *command, cwd, pass_fds=(), secure=None, **environ):
        """Start the process, and wait until it listens.

        :param secure: the SSL context of the client if the registry serves TLS.
        """
        self.secure = secure
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        self.lines, self._out = [], []
        ready = Event()
        self._readers = [
            Thread(target=self._read, args=(ready,)),
            Thread(target=self._read_out),
        ]
        for reader in self._readers:
            reader.start()
        ready.wait(60)
        listening = [line for line in self.lines if "listening on" in line]
        if not listening:
            self.process.kill()
            raise AssertionError("\n".join(self.lines))
        found = re.search(r"https?://\S+:(\d+)", listening[0])
        self.port = int(found[1]) if found else None

    def _read(self, ready):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if "listening on" in line:
                ready.set()
        ready.set()

    def _read_out(self):
        # Otherwise the registry blocks on a full pipe. Odd sizes split lines of the access log.
        self._out.extend(iter(lambda: self.process.stdout.buffer.read1(999), b""))

    @property
    def output(self):
        """Its standard output so far: the access log."""
        return b"".join(self._out).decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._join()
        self.process.stdout.close()
        self.process.stderr.close()

    def connection(self):
        """Return a connection that is not open yet."""
        if self.secure is not None:
            return HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.secure)
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method="GET", path="/v2/", body=None, headers=None):
        """Send one request; returns the response and its body."""
        with closing(self.connection()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()

    def stop(self):
        """Send SIGTERM; returns exit status, standard output, and lines of standard error."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            self._join()
            raise AssertionError("\n".join(self.lines)) from None
        self._join()
        return self.process.returncode, self.output, self.lines

    def _join(self):
        for reader in self._readers:
            reader.join()
