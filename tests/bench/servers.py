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
NGINX = "nginx"
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

#: One process, as ours is one. Files lie where a registry's URLs say, so that the same requests
#: find them.
NGINX_CONFIGURATION = """\
{user}
daemon off;
master_process off;
error_log stderr crit;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=1000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    location = /v2/ {{ return 200; }}
  }}
}}
"""


class NotUp(Exception):
    """A server did not come up; says why."""


def commands() -> dict[str, list[str]]:
    """How to start what is installed here: name -> command, the configuration goes last."""
    found = {OURS: [sys.executable, "-m", "twisted_registry", "serve"]}
    if program := _program("docker-registry"):
        found[DISTRIBUTION] = [program, "serve"]
    return found


def nginx(folder: Path) -> Nginx | None:
    """nginx over files, if it is installed: the limit of what a pull can be."""
    program = _program("nginx")
    return Nginx(NGINX, [program], folder) if program else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Given:
    """A registry that somebody else started: its process and its store are out of reach."""

    store: Path | None = None
    is_static = False

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

    is_static = False

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
        command = [*self.command, *self._configured(port)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        environment["PYTHONPATH"] = str(ROOT)
        # An installed registry has its bytecode; one that compiles itself starts 70 ms later.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / "log").open("wb") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                command,
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

    def _configured(self, port: int) -> list[str]:
        """Write the configuration; answers what the command needs to find it."""
        self.store.mkdir(parents=True, exist_ok=True)
        config = self.folder / "registry.yml"
        config.write_text(CONFIGURATION.format(root=self.store, port=port))
        return [str(config)]

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


class Nginx(Server):
    """nginx: it takes no push and knows no registry, so only plain downloads are measured."""

    is_static = True

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        super().__init__(name, command, folder)
        self.store = None
        self.files = folder / "files"

    def _configured(self, port: int) -> list[str]:
        self.files.mkdir(exist_ok=True)
        config = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX_CONFIGURATION.format(folder=self.folder, port=port, user=user))
        return ["-p", str(self.folder), "-e", "stderr", "-c", str(config)]
