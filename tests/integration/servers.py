"""Registries under test, each a process on a free port of 127.0.0.1.

Ours and Debian's ``docker-registry`` read the same configuration file; only the command differs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from attrs import define, field, frozen

from tests.integration.remote import Remote
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ssl import SSLContext

    from tests.support.s3_servers import ObjectStore

OURS = "ours"
DISTRIBUTION = "distribution"

#: The registry that the client programs use. A run against Distribution shows whether a failure is
#: a defect of this registry or the behaviour of a client; tests of features that it lacks are
#: skipped.
AGAINST = os.environ.get("INTEGRATION_AGAINST", OURS)

#: Seconds that a server may take to start, and to stop.
TIMEOUT_S = 30

#: The default address of registries.
HERE = "127.0.0.1"

CONFIGURATION = """\
version: 0.1
log:
  level: info
storage:
  {storage}
  delete:
    enabled: true
{within}http:
  addr: {address}
  workers: {workers}
  secret: the same after a restart
"""


@frozen
class Bucket:
    """A part of an object store: all keys that begin with ``prefix``.

    :ivar more: further options of the section.
    """

    store: ObjectStore
    prefix: str
    more: Mapping[str, object] = field(factory=dict, kw_only=True)

    @property
    def section(self) -> str:
        """The storage section of a configuration, for ours and for Distribution."""
        root = f"/{self.prefix}"
        options = {**self.store.options, "rootdirectory": root, "v4auth": True, **self.more}
        return f"s3: {json.dumps(options)}"

    def keys(self) -> list[str]:
        """Return the keys of all its objects."""
        from tests.support.s3_servers import client

        pages = client(self.store).get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.store.options["bucket"], Prefix=f"{self.prefix}/")
        return [each["Key"] for page in found for each in page.get("Contents", [])]


def missing(reason: str) -> NoReturn:
    """Skip a test that this machine cannot run; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str) -> str:
    """Return the path of a program; without it, the test fails in CI and is skipped elsewhere."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        missing(f"the program {name} is not installed")
    return path


def own_address() -> str | None:
    """Return an address of this machine that docker does not treat as local, unlike 127.0.0.1.

    None if the machine has no network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def wait_until(ready, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``ready()`` is true; fail with the log if the process ends before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args} (exit {process.poll()}) is not up:\n{tail(log)}")
        time.sleep(0.05)


def answers(address: str, secure: SSLContext | None = None) -> bool:
    """Return whether a registry responds at ``address``, over TLS with the context ``secure``."""
    with suppress(OSError, HTTPException):
        connection = (
            HTTPSConnection(address, timeout=5, context=secure)
            if secure
            else HTTPConnection(address, timeout=5)
        )
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in {200, 401}
        finally:
            connection.close()
    return False


def end(process: subprocess.Popen[bytes]) -> int:
    """Send SIGTERM, then SIGKILL if it does not end; return the exit status."""
    process.terminate()
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tail(path: Path, size: int = 3000) -> str:
    """Return the last ``size`` bytes of a log."""
    return path.read_bytes()[-size:].decode(errors="replace") if path.exists() else "(no log)"


def written(
    work: Path,
    kind: str,
    root: Path | Bucket,
    port: int,
    workers: int = 1,
    more: str = "",
    host: str = HERE,
    within: str = "",
) -> Path:
    """Write the configuration file of a registry over ``root``; return its path.

    :param more: further sections; the text continues the section ``http``.
    :param within: further lines of the section ``storage``.
    """
    config = work / f"{kind}-{port}.yml"
    bucket = root if isinstance(root, Bucket) else None
    storage = bucket.section if bucket else f"filesystem: {{rootdirectory: {root}}}"
    text = CONFIGURATION.format(
        storage=storage, address=f"{host}:{port}", workers=workers, within=within
    )
    config.write_text(text + more)
    return config


def peak_memory(pid: int) -> int:
    """Return the peak memory of a process in bytes; 0 if it has ended."""
    with suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


@define(eq=False)
class Served:
    """A registry over ``root``; ``kind`` is OURS, or DISTRIBUTION, which is a single process.

    :ivar more: further sections of its configuration; the text continues the section ``http``.
    :ivar secure: the TLS context of clients, if it serves over TLS.
    :ivar host: the address that it listens at.
    :ivar within: further lines of its section ``storage``.
    """

    kind: str
    root: Path | Bucket
    work: Path
    workers: int = 1
    more: str = ""
    secure: SSLContext | None = None
    host: str = HERE
    within: str = ""
    log: Path = field(init=False)
    port: int = field(init=False, factory=free_port)
    address: str = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> Served:
        """Start it, and return when it responds."""
        self.work.mkdir(parents=True, exist_ok=True)
        port = self.port
        self.address = f"{self.host}:{port}"
        self.log = self.work / f"{self.kind}-{port}.log"
        place = self.work, self.kind, self.root, port
        config = written(*place, self.workers, self.more, self.host, self.within)
        if self.kind == OURS:
            command = [sys.executable, "-m", "twisted_registry", "serve", str(config)]
        else:
            command = [program("docker-registry"), "serve", str(config)]
        environment = {
            name: value
            for name, value in os.environ.items()
            # The AWS library of Distribution 2.8.3 panics if AWS_CA_BUNDLE is set.
            if not name.startswith("REGISTRY_") and name != "AWS_CA_BUNDLE"
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.work,
            )
        wait_until(self._answers, self.process, self.log)
        wait_until(self._all_serve, self.process, self.log)
        return self

    def _all_serve(self) -> bool:
        return self.log.read_bytes().count(b"serving as worker") >= self.workers - 1

    def _answers(self) -> bool:
        return answers(self.address, self.secure)

    @property
    def remote(self) -> Remote:
        """The registry over plain HTTP."""
        return Remote(self.address)

    def image(self, name: str, tag: str = "1") -> str:
        """Return an image reference for the command line of a client."""
        return f"{self.address}/{name}:{tag}"

    def peak_memory(self) -> int:
        """Return the peak memory of the process in bytes."""
        return peak_memory(self.process.pid)

    def kill(self) -> None:
        """Kill all of its processes with SIGKILL.

        Worker processes that outlive the first one abort their requests, which is an orderly end.
        """
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.process.kill()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop it; ours must exit with status 0 and without a traceback in its log."""
        if self.process.poll() is not None:
            return
        status = end(self.process)
        if self.kind == OURS:
            log = tail(self.log, 1_000_000)
            assert status == 0, f"exit status {status}\n{log}"
            assert "Traceback" not in log, log


@define(eq=False)
class Launcher:
    """Starts registries, and stops those that still run."""

    work: Path
    servers: list[Served] = field(factory=list)

    def start(
        self,
        kind: str,
        root: Path | Bucket,
        workers: int = 1,
        more: str = "",
        secure: SSLContext | None = None,
        host: str = HERE,
        within: str = "",
    ) -> Served:
        """Start a registry over ``root``."""
        served = Served(kind, root, self.work, workers, more, secure, host, within)
        self.servers.append(served)
        return served.start()

    def close(self) -> None:
        """Stop the registries that still run; raise the first failure after all are stopped."""
        faults = []
        for served in self.servers:
            try:
                served.stop()
            except AssertionError as fault:
                faults.append(fault)
        if faults:
            raise faults[0]
