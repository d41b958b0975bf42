"""The load generator, a process of its own: reads what to do as JSON, writes what it saw as JSON.

Requests run in one loop over many connections, each with one request under way; pushes,
mounts and large downloads take a thread for each client, since they wait for the kernel.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from urllib.parse import urlsplit

from content import Maker, push
from wire import Connection, WireError, request_bytes, take_answer


class Tally:
    """What a run saw: the seconds of each success, and what went wrong."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.errors = 0
        self.fault = ""
        self.digests: list[str] = []

    def add(self, seconds: float, fault: str = "") -> None:
        if fault:
            self.errors += 1
            self.fault = self.fault or fault
        else:
            self.times.append(seconds)

    def result(self, elapsed: float) -> dict:
        times = sorted(self.times)
        return {
            "count": len(times),
            "elapsed": elapsed,
            "p50": percentile(times, 0.5),
            "p99": percentile(times, 0.99),
            "errors": self.errors,
            "fault": self.fault,
            "digests": self.digests,
        }


def percentile(ordered: list[float], part: float) -> float:
    """The time, in ms, that ``part`` of the requests did not exceed."""
    if not ordered:
        return 0.0
    return 1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def requests(spec: dict) -> dict:
    """The same request for ``seconds`` over ``connections``; every status and body is compared."""
    split = urlsplit(spec["url"])
    method = spec["method"]
    data = request_bytes(method, spec["target"], split.netloc, spec["headers"])
    wanted = spec["status"], b64decode(spec["body"])
    tally = Tally()
    selector = selectors.DefaultSelector()
    for _ in range(spec["connections"]):
        sock = socket.create_connection((split.hostname, split.port or 80), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, [bytearray(), 0.0])
    begin = perf_counter()
    for key in selector.get_map().values():
        key.data[1] = perf_counter()
        key.fileobj.sendall(data)
    end = begin + spec["seconds"]
    while perf_counter() < end:
        for key, _ in selector.select(0.1):
            sock, (buffer, since) = key.fileobj, key.data
            received = sock.recv(256 * 1024)
            if not received:
                raise WireError("the server closed a connection")
            buffer += received
            answer = take_answer(buffer, method)
            if answer is None:
                continue
            now = perf_counter()
            right = (answer.status, answer.body) == wanted
            tally.add(now - since, "" if right else _difference(answer, wanted))
            key.data[1] = now
            sock.sendall(data)
    elapsed = perf_counter() - begin
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return tally.result(elapsed)


def _difference(answer, wanted) -> str:
    if answer.status != wanted[0]:
        return f"status {answer.status} instead of {wanted[0]}"
    return "a body that differs"


def downloads(spec: dict) -> dict:
    """Each client reads one large blob ``times`` times; status, size and end are compared."""

    def one(_number: int, connection: Connection) -> str:
        status, size, last = connection.download(spec["target"])
        if status != 200:
            return f"status {status} instead of 200"
        right = size == spec["size"] and last == b64decode(spec["last"])
        return "" if right else "a body that differs"

    return _clients(spec, one)


def pushes(spec: dict) -> dict:
    """Each client pushes blobs of its own, ``times`` of them or as many as ``seconds`` allow."""
    maker = Maker(spec["size"])

    def one(number: int, connection: Connection) -> str:
        blob = maker.make(f"{spec['mark']} {number}")
        digests.append(blob.digest)
        return push(connection, spec["repository"], blob)

    digests: list[str] = []
    result = _clients(spec, one)
    return {**result, "digests": digests}


def mounts(spec: dict) -> dict:
    """One client mounts the blobs ``digests`` from one repository into another."""

    def one(number: int, connection: Connection) -> str:
        query = f"mount={spec['digests'][number]}&from={spec['source']}"
        answer = connection.ask("POST", f"/v2/{spec['repository']}/blobs/uploads/?{query}")
        return "" if answer.status == 201 else f"status {answer.status} instead of 201"

    return _clients(spec, one)


def _clients(spec: dict, one) -> dict:
    tally = Tally()
    clients, times = spec["clients"], spec.get("times")
    connections = [Connection(spec["url"]) for _ in range(clients)]
    begin = perf_counter()
    end = begin + spec.get("seconds", 0)

    def run(client: int) -> None:
        done = 0
        while done < times if times else perf_counter() < end:
            since = perf_counter()
            fault = one(client + done * clients, connections[client])
            tally.add(perf_counter() - since, fault)
            done += 1

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(run, range(clients)))
    elapsed = perf_counter() - begin
    for connection in connections:
        connection.__exit__()
    return tally.result(elapsed)


KINDS = {"requests": requests, "downloads": downloads, "pushes": pushes, "mounts": mounts}

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump(KINDS[asked["kind"]](asked), sys.stdout)
