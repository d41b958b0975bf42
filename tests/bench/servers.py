"""The servers that are measured, each on a free port of 127.0.0.1 with a separate store."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self

from tests.bench import processes
from tests.bench.kinds import Serves, environment
from tests.bench.wire import WireError, send_request
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.bench.buckets import Bucket
    from tests.bench.certificate import Certificate
    from tests.bench.kinds import Kind
    from tests.bench.setups import Setup

TIMEOUT_S = 30


class ServerFailed(Exception):
    """A server did not start, or ended; the text says why."""


class Peer:
    """A registry that already runs; its process and its store are not accessible."""

    store: Path | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    serves: Serves = "registry"
    fault = ""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self.seeded: set[str] = set()

    def check(self) -> None:
        """Do nothing: the state of its process is unknown."""


class Server:
    """A server to start and end.

    :param folder: the folder of its store, configuration and log.
    :param prefix: a command that runs the server, such as a tracer.
    """

    def __init__(
        self,
        kind: Kind,
        setup: Setup,
        folder: Path,
        certificate: Certificate,
        prefix: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self.name = kind.name
        self.setup = setup
        self.serves = kind.serves
        self.headers = kind.headers(setup, certificate)
        self.folder = folder
        self.store = folder / "store"
        self.port = 0
        self.url = ""
        #: The bucket that it uses instead of the folder.
        self.bucket: Bucket | None = None
        #: Seconds from the start of the process to the first 200.
        self.started = 0.0
        #: Memory in MiB after the start.
        self.idle = 0.0
        #: Why it cannot be measured.
        self.fault = ""
        #: The parts of the content that it has.
        self.seeded: set[str] = set()
        self.certificate = certificate
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when it responds with 200.

        Another process may have taken its port, so a failed start is repeated once.

        :raises ServerFailed: with the end of its log.
        """
        try:
            self._start()
        except ServerFailed:
            self._start()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"{'https' if self.setup.tls else 'http'}://127.0.0.1:{self.port}"
        command = [*self._prefix, *self.kind.command(self)]
        with (self.folder / "log").open("ab") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=self.folder,
                process_group=0,  # ^C interrupts the run, which then stops the servers
            )
        try:
            self._wait(begin)
            self.started = time.perf_counter() - begin
            self.idle = self.memory("VmRSS")
        except BaseException:
            self.stop()
            raise

    def _wait(self, begin: float) -> None:
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - begin > TIMEOUT_S:
                raise ServerFailed(f"{self.name} is not up: {self._log()}")
            time.sleep(0.002)

    def stop(self) -> None:
        """Terminate it; kill it if that takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """Restart it if it ended, so that the other cases can be measured.

        :raises ServerFailed: if it had ended.
        """
        status = self._process.poll() if self._process else None
        if status is None:
            return
        log = self._log()
        try:
            self.start()
        except ServerFailed as fault:
            self.fault = str(fault)
        raise ServerFailed(f"{self.name} ended with status {status}: {log}")

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-1000:].strip()

    def _answers(self) -> bool:
        try:
            return send_request(self, "GET", "/v2/").status == 200
        except (OSError, WireError):
            return False

    def fresh(self, prefix: Iterable[str] = ()) -> Server:
        """Return another server of the same kind, with an empty store."""
        folder = self.folder / "fresh"
        shutil.rmtree(folder, ignore_errors=True)
        return Server(self.kind, self.setup, folder, self.certificate, prefix)

    def memory(self, line: str) -> float:
        """Return the memory of its processes in MiB: now (VmRSS) or at the peak (VmHWM)."""
        return processes.memory(self._process.pid, line)

    def processor_seconds(self) -> float:
        """Return the processor time of its processes in seconds."""
        return processes.processor_seconds(self._process.pid)

    def forget(self, digests: Iterable[str]) -> None:
        """Delete blobs, so that a long run does not fill the disk."""
        if self.bucket is not None:
            self.bucket.forget(digests)
            return
        blobs = self.store / "docker/registry/v2/blobs/sha256"
        for digest in digests:
            hexadecimal = digest.removeprefix("sha256:")
            shutil.rmtree(blobs / hexadecimal[:2] / hexadecimal, ignore_errors=True)
