"""Starts the load generators: wrk where it is installed and able, else ``load.py``.

wrk counts statuses of 400 and more and broken connections, but compares nothing; the cases
compare a whole answer before and after each run of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Self

from attrs import frozen

WRK = shutil.which("wrk")
_LOAD = Path(__file__).with_name("load.py")
#: Seconds that a generator may take beyond those that it was told.
_PATIENCE = 300
_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\nresult %d %d %f %f %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@frozen
class Load:
    """What a generator saw. Times are in ms, ``elapsed`` is in seconds."""

    count: int
    elapsed: float
    p50: float
    p99: float
    errors: int
    fault: str = ""
    digests: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """How many a second."""
        return self.count / self.elapsed


class Generator:
    """``load.py`` at work in a process of its own; ``with`` ends it whatever happens."""

    def __init__(self, kind: str, **spec) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_LOAD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._spec = json.dumps({"kind": kind, **spec})

    def __enter__(self) -> Self:
        self._process.stdin.write(self._spec)
        self._process.stdin.close()
        self._process.stdin = None
        return self

    def result(self) -> Load:
        """Wait for its end; a generator that fails is one error."""
        out, err = self._process.communicate(timeout=_PATIENCE)
        if self._process.returncode:
            return Load(0, 1, 0, 0, 1, err.strip().splitlines()[-1] if err else "no result")
        seen = json.loads(out)
        return Load(**{**seen, "digests": tuple(seen["digests"])})

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            stream.close()


def load(kind: str, **spec) -> Load:
    """Run ``load.py`` to its end."""
    with Generator(kind, **spec) as running:
        return running.result()


def requests(url, target, *, connections, seconds, answer, method="GET", headers=None) -> Load:
    """The same request over and over; ``answer`` is what a right answer looks like."""
    headers = headers or {}
    # wrk would wait for the body that the answer to a HEAD announces.
    if WRK and method == "GET":
        return _wrk(url + target, connections, seconds, headers)
    return load(
        "requests", url=url, target=target, method=method, headers=headers, seconds=seconds,
        connections=connections, status=answer.status, body=b64encode(answer.body).decode(),
    )  # fmt: skip


def _wrk(url: str, connections: int, seconds: float, headers: dict[str, str]) -> Load:
    fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        command = [WRK, "-t", "1", "-c", str(connections), "-d", str(max(1, round(seconds)))]
        done = subprocess.run(
            [*command, "--timeout", "20", "-s", script.name, *fields, url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _PATIENCE,
            check=False,
        )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("result ")]
    if not lines:
        return Load(0, 1, 0, 0, 1, f"wrk: {(done.stderr or done.stdout).strip()}")
    count, duration, p50, p99, errors = map(float, lines[0][1:])
    fault = "wrk met broken connections or statuses of 400 and more" if errors else ""
    return Load(int(count), duration / 1e6, p50 / 1000, p99 / 1000, int(errors), fault)
