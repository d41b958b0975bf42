"""Fixtures of the tests with real client programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define

from tests.integration.machines import build_package
from tests.integration.servers import (
    AGAINST,
    DISTRIBUTION,
    Launcher,
    Served,
    end,
    missing,
    program,
    tail,
    wait_until,
)
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the logs of the servers to the report of a failed test."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            servers = value.servers if isinstance(value, Launcher) else [value]
            for served in servers:
                if isinstance(served, Served) and hasattr(served, "log"):
                    report.sections.append((f"log of {served.log.name}", tail(served.log)))
    return report


@pytest.fixture
def launcher(tmp_path):
    """Start registries for one test, and stop them."""
    started = Launcher(tmp_path / "servers")
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-processes"])
def registry(request, tmp_path_factory):
    """The registry of a module; each test uses other repositories."""
    if AGAINST == DISTRIBUTION and request.param > 1:
        pytest.skip("Distribution is one process")
    started = Launcher(tmp_path_factory.mktemp("servers"))
    try:
        yield started.start(AGAINST, tmp_path_factory.mktemp("root"), request.param)
    finally:
        started.close()


@pytest.fixture(scope="session")
def binary():
    """The file that ``make binary`` has built from the sources as they are."""
    question = (program("make"), "--question", "--directory", str(ROOT), "binary")
    if subprocess.run(question, capture_output=True, check=False).returncode != 0:
        missing("dist/twisted-registry is missing or older than the sources: run make binary")
    return ROOT / "dist/twisted-registry"


@pytest.fixture(scope="session")
def package(binary, tmp_path_factory):
    """The Debian package of the program that is one file."""
    program("dpkg-deb")
    return build_package(binary, tmp_path_factory.mktemp("package"))


@pytest.fixture
def ours_only():
    """Skip tests of features that Distribution 2.8.3 lacks."""
    if AGAINST == DISTRIBUTION:
        pytest.skip("Distribution 2.8.3 lacks it")


@define(eq=False)
class Sandbox:
    """A folder to run client programs in, with a separate home, storage and credentials."""

    home: Path
    environment: dict[str, str]

    def run(self, name: str, *arguments: object, cwd: Path | None = None) -> str:
        """Run a program that must succeed; return its standard output."""
        done = self.attempt(name, *arguments, cwd=cwd)
        assert done.returncode == 0, (
            f"{name} {' '.join(map(str, arguments))}: exit {done.returncode}\n"
            f"{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def attempt(
        self, name: str, *arguments: object, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program; return its result, even if it failed."""
        return subprocess.run(
            [program(name), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env=self.environment,
            cwd=cwd or self.home,
        )


def make_sandbox() -> Sandbox:
    """Return a sandbox in a folder with a short name, as the paths of sockets are limited."""
    home = Path(tempfile.mkdtemp(prefix="twisted-registry-"))
    containers = home / ".config" / "containers"
    containers.mkdir(parents=True)
    (containers / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (containers / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/storage"\nrunroot = "{home}/run"\n'
    )
    (containers / "registries.conf").write_text(
        '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
    )
    (home / "tmp").mkdir()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "TMPDIR": str(home / "tmp"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local"),
        "DOCKER_CONFIG": str(home / ".docker"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        "CONTAINERS_STORAGE_CONF": str(containers / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(containers / "registries.conf"),
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }
    (home / "auth.json").write_text("{}")
    return Sandbox(home, environment)


@pytest.fixture
def sandbox():
    """A sandbox for one test."""
    made = make_sandbox()
    yield made
    shutil.rmtree(made.home, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_sandbox():
    """A sandbox of the module, for tests that run a daemon."""
    made = make_sandbox()
    yield made
    shutil.rmtree(made.home, ignore_errors=True)


@contextmanager
def run_daemon(sandbox: Sandbox, command: list[str], is_up) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon in a sandbox, and wait until ``is_up()``."""
    log = sandbox.home / "daemon.log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=sandbox.environment,
        )
    try:
        wait_until(is_up, daemon, log)
        yield daemon
    finally:
        end(daemon)


@pytest.fixture(scope="module")
def docker(shared_sandbox):
    """Run the docker command against a daemon that stores in the sandbox.

    The daemon uses no bridge and no firewall rules, and has a private /etc/docker, whose folder
    for certificates is ``certificates``.
    """
    home = shared_sandbox.home
    client = ("docker", f"--host=unix://{home / 'docker.sock'}")
    (home / "daemon.json").write_text("{}")
    program("docker")
    command = [
        *(program("unshare"), "--mount", "sh", "-c"),
        'mkdir -p /etc/docker && mount -t tmpfs none /etc/docker && exec "$@"',
        "sh",
        program("dockerd"),
        f"--config-file={home / 'daemon.json'}",
        client[1],
        f"--data-root={home / 'docker'}",
        f"--exec-root={home / 'exec'}",
        f"--pidfile={home / 'docker.pid'}",
        "--storage-driver=vfs",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]

    def run(*arguments: object) -> str:
        return shared_sandbox.run(*client, *arguments)

    def is_up() -> bool:
        return shared_sandbox.attempt(*client, "version").returncode == 0

    with run_daemon(shared_sandbox, command, is_up) as daemon:
        run.certificates = Path(f"/proc/{daemon.pid}/root/etc/docker/certs.d")
        yield run


@pytest.fixture(scope="module")
def ctr(shared_sandbox):
    """Run the ctr command against a containerd that stores in the sandbox."""
    home = shared_sandbox.home
    socket, config = home / "containerd.sock", home / "config.toml"
    client = ("ctr", f"--address={socket}")
    config.write_text(
        "version = 2\n"
        f'root = "{home / "containerd"}"\n'
        f'state = "{home / "state"}"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
        f'[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )

    def run(*arguments: object) -> str:
        return shared_sandbox.run(*client, *arguments)

    def is_up() -> bool:
        return shared_sandbox.attempt(*client, "version").returncode == 0

    with run_daemon(shared_sandbox, [program("containerd"), f"--config={config}"], is_up):
        yield run
