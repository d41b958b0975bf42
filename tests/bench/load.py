"""The load generator, a separate process that reads a task and writes its result as JSON.

Requests run in one loop over many connections, each with one request at a time. Pushes, mounts
and large downloads use a thread for each client, because they wait for the kernel.
"""

from __future__ import annotations

import json
import selectors
import ssl
import sys
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, process_time
from urllib.parse import urlsplit

from tests.bench.content import BlobMaker, push
from tests.bench.wire import (
    Connection,
    RedirectedConnections,
    WireError,
    connect,
    parse_response,
    request_bytes,
)


class Results:
    """The result of a run: the seconds of each success, and the faults."""

    def __init__(self) -> None:
        self.begin = perf_counter()
        self._used = process_time()
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

    def result(self) -> dict:
        elapsed, times = perf_counter() - self.begin, sorted(self.times)
        return {
            "count": len(times),
            "elapsed": elapsed,
            "p50": percentile(times, 0.5),
            "p99": percentile(times, 0.99),
            "errors": self.errors,
            "fault": self.fault,
            "digests": self.digests,
            "processor": process_time() - self._used,
        }


def percentile(ordered: list[float], part: float) -> float:
    """Return the quantile ``part`` of the times, in ms."""
    if not ordered:
        return 0.0
    return 1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def requests(spec: dict) -> dict:
    """Repeat a request over many connections; compare every status and body."""
    method, times = spec["method"], spec["times"]
    data = request_bytes(method, spec["target"], urlsplit(spec["url"]).netloc, spec["headers"])
    wanted = spec["status"], b64decode(spec["body"])
    selector = selectors.DefaultSelector()
    for _ in range(spec["connections"]):
        selector.register(connect(spec["url"]), selectors.EVENT_READ, [bytearray(), 0.0, 0])
    results = Results()
    for key in selector.get_map().values():
        key.data[1] = perf_counter()
        key.fileobj.sendall(data)
    end = results.begin + (spec["seconds"] or 1e9)
    # Wait for one response at least: on a busy machine the first may take longer.
    while selector.get_map() and (perf_counter() < end or not (results.times or results.errors)):
        for key, _ in selector.select(0.1):
            sock, (buffer, since, done) = key.fileobj, key.data
            response = _receive(sock, buffer, method)
            if response is None:
                continue
            now = perf_counter()
            right = (response.status, response.body) == wanted
            results.add(now - since, "" if right else _difference(response, wanted))
            if done + 1 == times:
                selector.unregister(sock)
                sock.close()
                continue
            key.data[1:] = now, done + 1
            sock.sendall(data)
    result = results.result()
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return result


def _receive(sock, buffer: bytearray, method: str):
    """Read once; return the response if it is complete."""
    received = sock.recv(256 * 1024)
    if not received:
        raise WireError("the server closed a connection")
    buffer += received
    # The selector does not report data that TLS has already read from the socket.
    while isinstance(sock, ssl.SSLSocket) and (pending := sock.pending()):
        buffer += sock.recv(pending)
    return parse_response(buffer, method)


def _difference(response, wanted) -> str:
    if response.status != wanted[0]:
        return f"status {response.status} instead of {wanted[0]}"
    return "a body that differs"


def fetches(spec: dict) -> dict:
    """Each client reads its share of many blobs, and follows redirects."""
    clients = spec["clients"]
    redirected = [RedirectedConnections() for _ in range(clients)]

    def operation(number: int, connection: Connection) -> str:
        digest, size, last = spec["blobs"][number]
        target = f"/v2/{spec['repository']}/blobs/{digest}"
        received = redirected[number % clients].fetch(connection, target)
        if received.status != 200:
            return f"status {received.status} instead of 200"
        is_right = (received.size, received.last) == (size, b64decode(last))
        return "" if is_right else "a body that differs"

    result = _run_clients({**spec, "times": len(spec["blobs"]) // clients}, operation)
    for each in redirected:
        each.__exit__()
    return result


def pushes(spec: dict) -> dict:
    """Each client pushes new blobs, ``times`` of them or as many as ``seconds`` allow."""
    maker = BlobMaker(spec["size"])

    def operation(number: int, connection: Connection) -> str:
        blob = maker.make(f"{spec['label']} {number}")
        digests.append(blob.digest)
        return push(connection, spec["repository"], blob)

    digests: list[str] = []
    result = _run_clients(spec, operation)
    return {**result, "digests": digests}


def mounts(spec: dict) -> dict:
    """One client mounts the blobs ``digests`` from one repository into another."""

    def operation(number: int, connection: Connection) -> str:
        query = f"mount={spec['digests'][number]}&from={spec['source']}"
        response = connection.request("POST", f"/v2/{spec['repository']}/blobs/uploads/?{query}")
        return "" if response.status == 201 else f"status {response.status} instead of 201"

    return _run_clients(spec, operation)


def _run_clients(spec: dict, operation) -> dict:
    clients, times = spec["clients"], spec.get("times")
    connections = [Connection(spec["url"], spec["headers"]) for _ in range(clients)]
    results = Results()
    end = results.begin + spec.get("seconds", 0)

    def run(client: int) -> None:
        done = 0
        while done < times if times else perf_counter() < end or not done:
            since = perf_counter()
            fault = operation(client + done * clients, connections[client])
            results.add(perf_counter() - since, fault)
            done += 1

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(run, range(clients)))
    result = results.result()
    for connection in connections:
        connection.__exit__()
    return result


TASKS = {each.__name__: each for each in (requests, fetches, pushes, mounts)}

if __name__ == "__main__":
    task = json.load(sys.stdin)
    json.dump(TASKS[task["kind"]](task), sys.stdout)
