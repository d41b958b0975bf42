"""The registries that are measured, each on a free port of 127.0.0.1 over a store of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from wire import WireError, ask

ROOT = Path(__file__).parents[2]
OURS = "ours"
DISTRIBUTION = "docker-registry"
PATIENCE = 30
MIB = 1024 * 1024

#: Both read it. The access log is off, and so is what is logged of each request.
CONFIGURATION = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
  secret: the same everywhere
"""


class NotUp(Exception):
    """A server did not come up; says why."""


def commands() -> dict[str, list[str]]:
    """How to start what is installed here: name -> command, the configuration goes last."""
    found = {OURS: [sys.executable, "-m", "twisted_registry", "serve"]}
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    if program := shutil.which("docker-registry", path=path):
        found[DISTRIBUTION] = [program, "serve"]
    return found


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Given:
    """A registry that somebody else started: its process and its store are out of reach."""

    store: Path | None = None

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url.rstrip("/")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


class Server:
    """A registry of ours to start and end.

    :param command: what to run; the path of the configuration is added.
    :param folder: where its store, its configuration and its log go.
    """

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self.command = command
        self.folder = folder
        self.store = folder / "store"
        self.url = ""
        self.started = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it; ``started`` is the seconds to the first 200."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.store.mkdir(parents=True, exist_ok=True)
        config = self.folder / "registry.yml"
        config.write_text(CONFIGURATION.format(root=self.store, port=port))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        environment["PYTHONPATH"] = str(ROOT)
        with (self.folder / "log").open("wb") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                [*self.command, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
            )
        try:
            self._wait(begin)
        except BaseException:
            self.__exit__()
            raise
        self.started = time.perf_counter() - begin
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, begin: float) -> None:
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - begin > PATIENCE:
                raise NotUp(f"{self.name}: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.002)

    def _answers(self) -> bool:
        try:
            return ask(self.url, "GET", "/v2/").status == 200
        except (OSError, WireError):
            return False

    def fresh(self) -> Server:
        """Another one of the same kind, over an empty store."""
        folder = self.folder / "fresh"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return Server(self.name, self.command, folder)

    def memory(self, line: str) -> float:
        """A line of the process's status in MiB: VmRSS is what it has, VmHWM its most ever."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        (found,) = [each for each in text.splitlines() if each.startswith(f"{line}:")]
        return int(found.split()[1]) / 1024

    def processor_seconds(self) -> float:
        """The processor time that the process has used."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget(self, digests) -> None:
        """Take blobs out of the store, so that a long run does not fill the disk."""
        blobs = self.store / "docker/registry/v2/blobs/sha256"
        for digest in digests:
            hexadecimal = digest.removeprefix("sha256:")
            shutil.rmtree(blobs / hexadecimal[:2] / hexadecimal, ignore_errors=True)
