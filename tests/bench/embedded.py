"""Time to the first answer of a registry for a test: ``python -m tests.bench.embedded``.

Measures the import of ``twisted_registry.testing``, ``with Registry()`` until the first request is
answered, and the same for registries in a process of their own, as far as they are installed:
Distribution (``docker-registry``) and that of go-containerregistry (``crane registry serve``).
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 60.0
#: Run in a process of its own: prints the seconds of the import, and of the first registry.
_FIRST = """
import time
begun = time.perf_counter()
from twisted_registry.testing import Registry
imported = time.perf_counter()
from tests.bench.embedded import ask
ready = time.perf_counter()
with Registry() as registry:
    ask(registry.port)
    print(imported - begun, time.perf_counter() - ready)
"""
_CONFIG = {
    "version": "0.1",
    "log": {"level": "error", "accesslog": {"disabled": True}},
    "storage": {"inmemory": {}},
}


def ask(port: int, tls: bool = False) -> None:
    """Send one request, and wait for the answer.

    :raises OSError: if nothing listens.
    """
    with ExitStack() as opened:
        connection = opened.enter_context(
            socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        )
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = opened.enter_context(context.wrap_socket(connection))
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = connection.recv(4096)
    if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 401")):
        raise ValueError(answer)


@frozen
class Row:
    """A line of the table.

    :ivar seconds: of each run.
    """

    name: str
    seconds: list[float] = field(factory=list)

    def __str__(self) -> str:
        if not self.seconds:
            return f"{self.name:<44} not installed"
        low, middle = 1000 * min(self.seconds), 1000 * median(self.seconds)
        return f"{self.name:<44} {low:9.1f} ms {middle:9.1f} ms"


def measure(rounds: int) -> list[Row]:
    """Measure everything in turn, as often as ``rounds`` says."""
    from twisted_registry.testing import Registry

    kinds: dict[str, dict[str, Any]] = {
        "with Registry()": {},
        "with Registry(auth=True)": {"auth": True},
        "with Registry(tls=True)": {"tls": True},
        "with Registry(token_auth=True)": {"token_auth": True},
    }
    imports, first = Row("import twisted_registry.testing"), Row("with Registry(), the first")
    inside = {name: Row(name) for name in kinds}
    outside = {name: Row(name) for name in _SERVERS}
    for options in kinds.values():
        with Registry(**options):  # imports what it needs
            pass
    for _ in range(rounds):
        out = subprocess.run(
            [sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True, cwd=ROOT
        )
        for row, seconds in zip((imports, first), out.stdout.split(), strict=True):
            row.seconds.append(float(seconds))
        for name, options in kinds.items():
            begun = time.perf_counter()
            with Registry(**options) as registry:
                ask(registry.port, registry.ca_file is not None)
                inside[name].seconds.append(time.perf_counter() - begun)
        for name, make in _SERVERS.items():
            with _server(make) as seconds:
                if seconds is not None:
                    outside[name].seconds.append(seconds)
    return [imports, first, *inside.values(), *outside.values()]


@contextmanager
def _server(make: Callable[[int, Path], list[str] | None]) -> Iterator[float | None]:
    """Start a process; yields the seconds until it has answered, or None if it is missing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = make(port, Path(folder))
        if command is None:
            yield None
            return
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield _wait(port, process) - begun
        finally:
            process.kill()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> float:
    """Ask until there is an answer; return the time."""
    end = time.perf_counter() + _TIMEOUT_S
    while True:
        try:
            ask(port)
        except OSError:
            if process.poll() is not None or time.perf_counter() > end:
                raise
            time.sleep(0.001)
        else:
            return time.perf_counter()


def _write_config(port: int, folder: Path) -> str:
    path = folder / "config.yml"
    # JSON is YAML as well.
    path.write_text(json.dumps({**_CONFIG, "http": {"addr": f"127.0.0.1:{port}"}}))
    return str(path)


def _distribution(port: int, folder: Path) -> list[str] | None:
    program = shutil.which("docker-registry")
    return program and [program, "serve", _write_config(port, folder)]


def _crane(port: int, folder: Path) -> list[str] | None:
    del folder
    program = shutil.which("crane")
    return program and [program, "registry", "serve", "--address", f"127.0.0.1:{port}"]


def _own_process(port: int, folder: Path) -> list[str] | None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from twisted_registry.cli import main"
    program = [sys.executable, "-c", f"{code}; sys.exit(main(sys.argv[1:]))"]
    return [*program, "serve", _write_config(port, folder)]


_SERVERS: dict[str, Callable[[int, Path], list[str] | None]] = {
    "docker-registry serve, a process": _distribution,
    "crane registry serve, a process": _crane,
    "twisted-registry serve, a process": _own_process,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = ArgumentParser(prog="python -m tests.bench.embedded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds (15)")
    options = parser.parse_args(arguments)
    print(f"{'until the first request is answered':<44} {'best':>9}    {'median':>9}")
    for row in measure(options.rounds):
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
