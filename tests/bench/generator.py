"""Start the load generators, which are separate processes, and read their results.

``pull.c`` makes the requests and downloads where there is a compiler and no TLS, else wrk where
it can, else ``load.py``; the latter makes all pushes. The first two compare statuses and at most
lengths; the cases compare a whole response before and after a run.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from attrs import frozen

from tests.bench.wire import request_bytes

if TYPE_CHECKING:
    from tests.bench.content import Blob
    from tests.bench.wire import Response

WRK = shutil.which("wrk")
CC = shutil.which("cc")
_HERE = Path(__file__).parent
#: Seconds that a generator may take beyond its configured duration.
_GRACE_S = 300
_WRK_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\nresult %d %d %f %f %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@frozen
class Load:
    """The result of a generator.

    :ivar elapsed: seconds.
    :ivar p50: the median time in ms; ``p99`` likewise.
    :ivar processor: processor time of the generator in seconds.
    """

    count: int
    elapsed: float
    p50: float
    p99: float
    errors: int
    fault: str = ""
    digests: tuple[str, ...] = ()
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Successes per second."""
        return self.count / self.elapsed


def failed_load(fault: str) -> Load:
    """Return the result of a generator that failed."""
    return Load(0, 1, 0, 0, 1, fault)


class Generator:
    """A running ``load.py``; leaving the ``with`` block ends it."""

    def __init__(self, kind: str, server, *, headers=None, **spec) -> None:
        headers = _headers(server, headers)
        self._spec = json.dumps({"kind": kind, "url": server.url, "headers": headers, **spec})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_HERE.parents[1])},
        )

    def __enter__(self) -> Self:
        self._process.stdin.write(self._spec)
        self._process.stdin.close()
        self._process.stdin = None
        return self

    def result(self) -> Load:
        """Wait for its end; a failed generator counts as one error."""
        out, err = self._process.communicate(timeout=_GRACE_S)
        if self._process.returncode:
            return failed_load(err.strip().splitlines()[-1] if err else "no result")
        seen = json.loads(out)
        return Load(**{**seen, "digests": tuple(seen["digests"])})

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            stream.close()


def load(kind: str, server, **spec) -> Load:
    """Run ``load.py`` to its end."""
    with Generator(kind, server, **spec) as running:
        return running.result()


def requests(
    server, target: str, *, connections: int, expected: Response, seconds=0.0, times=0,
    method="GET", headers=None,
) -> Load:  # fmt: skip
    """Repeat one request.

    :param expected: the expected response.
    :param times: requests on each connection; 0 to repeat them for ``seconds``.
    """
    headers = _headers(server, headers)
    if program := _pull_program(server):
        bodiless = method == "HEAD" or expected.status in {204, 304}
        wanted = expected.status, len(expected.body), int(bodiless)
        request = request_bytes(method, target, urlsplit(server.url).netloc, headers)
        return _pull(program, server.url, request, wanted, connections, seconds, times)
    # wrk would wait for the body that the response to a HEAD announces.
    if WRK and method == "GET" and not times:
        return _wrk(server.url + target, connections, seconds, headers)
    return load(
        "requests", server, target=target, method=method, headers=headers, seconds=seconds,
        connections=connections, times=times, status=expected.status,
        body=b64encode(expected.body).decode(),
    )  # fmt: skip


def downloads(server, repository: str, blob: Blob, *, clients: int, times: int) -> Load:
    """Each client reads a large blob ``times`` times."""
    if program := _pull_program(server):
        target = f"/v2/{repository}/blobs/{blob.digest}"
        request = request_bytes("GET", target, urlsplit(server.url).netloc, server.headers)
        return _pull(program, server.url, request, (200, blob.size, 0), clients, 0, times)
    return fetches(server, repository, [blob] * clients * times, clients=clients)


def fetches(server, repository: str, blobs: list[Blob], *, clients: int) -> Load:
    """Each client reads its share of blobs, and follows redirects."""
    # Blobs differ in their last part.
    expected = [(blob.digest, blob.size, b64encode(blob.parts[-1]).decode()) for blob in blobs]
    return load("fetches", server, repository=repository, clients=clients, blobs=expected)


def _headers(server, headers: dict[str, str] | None) -> dict[str, str]:
    return {**server.headers, **(headers or {})}


def _pull_program(server) -> Path | None:
    """Compile ``pull.c``; return its path, or None for a server over TLS or without a compiler."""
    return _compile(CC) if CC and not server.url.startswith("https:") else None


@cache
def _compile(compiler: str) -> Path | None:
    """Compile into a folder that is deleted when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="registry-bench-")
    _folders.append(folder)
    program = Path(folder.name) / "pull"
    command = [compiler, "-O2", "-o", str(program), str(_HERE / "pull.c")]
    done = subprocess.run(command, capture_output=True, check=False)
    return None if done.returncode else program


_folders: list[tempfile.TemporaryDirectory] = []


def _run(command: list, seconds: float, **more) -> tuple[subprocess.CompletedProcess, float]:
    """Run a program; return its result and its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        list(map(str, command)), capture_output=True, timeout=seconds + _GRACE_S, check=False,
        **more,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, used


def _pull(program, url, request: bytes, wanted, connections, seconds, times) -> Load:
    split = urlsplit(url)
    command = [program, split.hostname, split.port or 80, connections, seconds, times, *wanted]
    done, used = _run(command, seconds, input=request)
    words = done.stdout.decode().split(maxsplit=5)
    if done.returncode or len(words) < 5:
        return failed_load(f"pull: {done.stderr.decode().strip()}")
    count, elapsed, p50, p99, errors = map(float, words[:5])
    fault = words[5].strip() if len(words) > 5 else ""
    return Load(int(count), elapsed, p50, p99, int(errors), fault, processor=used)


def _wrk(url: str, connections: int, seconds: float, headers: dict[str, str]) -> Load:
    fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK_SCRIPT)
        script.flush()
        command = [WRK, "-t", "1", "-c", str(connections), "-d", str(max(1, round(seconds)))]
        command += ["--timeout", "20", "-s", script.name, *fields, url]
        done, used = _run(command, seconds, stdin=subprocess.DEVNULL)
    printed = done.stdout.decode()
    lines = [line.split() for line in printed.splitlines() if line.startswith("result ")]
    if not lines:
        return failed_load(f"wrk: {(done.stderr.decode() or printed).strip()}")
    count, duration, p50, p99, errors = map(float, lines[0][1:])
    fault = "wrk reported broken connections or statuses of 400 and more" if errors else ""
    return Load(
        int(count), duration / 1e6, p50 / 1000, p99 / 1000, int(errors), fault, processor=used
    )
