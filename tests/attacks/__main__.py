"""Print the latency of a proper client beside each attack: ``python -m tests.attacks``.

Each attack runs in a process of its own. Samples beside it alternate with samples of a registry
that nobody attacks, since the machine may be busy. The ratio of both medians should be below 2.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.attacks.test_oversized import REQUESTS
from tests.support.manifests import OCI_IMAGE, digest_of, image
from tests.support.processes import SERVE, RegistryProcess, write_configuration

if TYPE_CHECKING:
    from collections.abc import Callable

LAYER, CONFIG = os.urandom(16 * 2**20), b"{}"
IMAGE = image(CONFIG, LAYER)
BLOB = f"/v2/a/blobs/{digest_of(LAYER)}"
ROUNDS, REQUESTS_PER_SAMPLE = 9, 60


def connect(port: int, data: bytes) -> socket.socket:
    """Open a connection, and send the beginning of a request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(data)
    connection.setblocking(False)
    return connection


def crowd(count: int, first: bytes, piece: bytes = b"") -> Callable[[int], None]:
    """Hold connections; send a piece on each of them four times a second, and open new ones.

    What the registry sends is read byte by byte.
    """

    def attack(port: int) -> None:
        held = [connect(port, first) for _ in range(count)]
        while True:
            for number, connection in enumerate(held):
                try:
                    if piece:
                        connection.sendall(piece)
                    closed = not connection.recv(1)
                except BlockingIOError:
                    closed = False
                except OSError:
                    closed = True
                if closed:
                    connection.close()
                    held[number] = connect(port, first)
            time.sleep(0.25)

    return attack


def repeat(*requests: bytes, pause_s: float) -> Callable[[int], None]:
    """Send requests one after the other, each on a connection of its own."""

    def attack(port: int) -> None:
        while True:
            for data in requests:
                with suppress(OSError), closing(connect(port, b"")) as connection:
                    connection.settimeout(30)
                    with suppress(ConnectionError):
                        connection.sendall(data)
                    while connection.recv(65536):
                        pass
                time.sleep(pause_s)

    return attack


HEAD = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n"
BODY = b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
BOMBS = [data for what, (data, _) in REQUESTS.items() if "deep" in what or "array" in what]
ATTACKS = {
    "2000 idle connections": crowd(2000, b""),
    "500 slow heads": crowd(500, HEAD, b"X: a\r\n"),
    "500 slow bodies": crowd(500, BODY, b"a"),
    "200 slow readers": crowd(200, f"GET {BLOB} HTTP/1.1\r\nHost: a\r\n\r\n".encode()),
    "oversized requests": repeat(*[data for data, _ in REQUESTS.values()], pause_s=0.02),
    "JSON bombs": repeat(*BOMBS, pause_s=0.05),
}


def sample(registry: RegistryProcess) -> float:
    """Return the median time of a request on a connection that is kept, in milliseconds."""
    times = []
    with closing(registry.connection()) as connection:
        for number in range(REQUESTS_PER_SAMPLE):
            began = time.perf_counter()
            connection.request("GET", ("/v2/", "/v2/a/manifests/latest")[number % 2])
            response = connection.getresponse()
            response.read()
            times.append(time.perf_counter() - began)
            assert response.status == 200
    return median(times) * 1000


def push(registry: RegistryProcess) -> None:
    """Push the image that clients pull."""
    for blob in (LAYER, CONFIG):
        target = f"/v2/a/blobs/uploads/?digest={digest_of(blob)}"
        assert registry.ask("POST", target, blob)[0].status == 201
    kind = {"Content-Type": OCI_IMAGE}
    assert registry.ask("PUT", "/v2/a/manifests/latest", IMAGE, kind)[0].status == 201


def measure(name: str, workers: int) -> tuple[float, float]:
    """Return the latency without and with an attack, in milliseconds."""
    with ExitStack() as stack:
        registries = []
        for _ in range(2):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="attacks-"))
            path = write_configuration(Path(folder), more=f"  workers: {workers}\n")
            registries.append(stack.enter_context(RegistryProcess(*SERVE, path, cwd=folder)))
            push(registries[-1])
        calm, attacked = registries
        attacker = multiprocessing.get_context("fork").Process(
            target=ATTACKS[name], args=(attacked.port,), daemon=True
        )
        attacker.start()
        stack.callback(attacker.join)
        stack.callback(attacker.kill)
        time.sleep(3)
        samples = [(sample(calm), sample(attacked)) for _ in range(ROUNDS)]
        assert attacker.is_alive()
    usual, beside = zip(*samples, strict=True)
    return median(usual), median(beside)


def main() -> int:
    """Print a line for each attack."""
    parser = argparse.ArgumentParser(prog="attacks", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=ATTACKS, help="one attack")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(f"{'attack':24} {'usual':>9} {'beside':>9} {'ratio':>6}")
    for name in [options.only] if options.only else ATTACKS:
        usual, beside = measure(name, options.workers)
        print(f"{name:24} {usual:6.2f} ms {beside:6.2f} ms {beside / usual:6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
