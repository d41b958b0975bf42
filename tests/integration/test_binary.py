"""``dist/twisted-registry``, in a root directory that has nothing but the C library."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest

from tests.integration.images import image, write_dir
from tests.integration.remote import Remote
from tests.integration.servers import answers, missing, program
from tests.support.otlp_collector import OTLPCollector
from tests.support.processes import RegistryProcess, free_port, passing_socket, wait_until
from twisted_registry import __version__
from twisted_registry.testing import write_layout

pytestmark = pytest.mark.integration

COPY = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: /data}}
  cache: {{blobdescriptor: inmemory}}
http:
  addr: 127.0.0.1:0
  workers: {workers}
"""
#: Each of these needs an extra, or the start fails: auth, acme, metrics, redis.
EXTRAS = """\
  debug: {{addr: "127.0.0.1:{debug}", prometheus: {{enabled: true}}}}
  tls:
    letsencrypt:
      hosts: [registry.example]
      cachefile: /data/acme
      directoryurl: https://127.0.0.1:1/dir
auth:
  htpasswd: {{realm: here, path: /data/users}}
access:
  authenticated: [push]
  tokens: {{lifetime: 5m}}
redis: {{addr: "127.0.0.1:1"}}
"""
#: Credentials that botocore asks a service for.
BUCKET = """\
version: 0.1
storage: {s3: {region: us-east-1, bucket: b, regionendpoint: "http://127.0.0.1:1"}}
"""
#: Parts of the C library in files of their own.
C_LIBRARY = re.compile(r"lib(c|m|dl|pthread|resolv|rt|util)\.so\.\d+|ld-linux.*")


class EmptyRoot:
    """A root directory with the C library, an empty ``/tmp`` and ``/data``, and the file.

    It is read-only but for ``/tmp`` and ``/data``.
    """

    def __init__(self, path, binary):
        self.path = path
        for name in ("proc", "dev", "tmp", "data"):
            (path / name).mkdir()
        listed = subprocess.run(("ldd", binary), capture_output=True, text=True, check=True)
        for found in re.findall(r"(/\S+) \(0x", listed.stdout):
            folder = path / Path(found).parent.relative_to("/")
            folder.mkdir(parents=True, exist_ok=True)
            for library in Path(found).parent.iterdir():
                if C_LIBRARY.fullmatch(library.name):
                    shutil.copy(library, folder)
        shutil.copy(binary, path)

    def command(self, *arguments, **environ):
        """Return a command that runs the file in this root, with no other environment.

        Variables of a socket that is passed are kept; the command has the same process id.
        """
        if os.geteuid() != 0:
            missing("only root can make a namespace")
        lines = [
            "mount --bind . .",
            "cd $PWD",
            *(f"mount --bind {name} {name}" for name in ("tmp", "data")),
            "mount -t proc proc proc",
            "mount -t tmpfs tmpfs dev && touch dev/null && mount --bind /dev/null dev/null",
            "mount -o remount,bind,ro .",
            'exec env -i ${LISTEN_PID:+LISTEN_PID=$LISTEN_PID LISTEN_FDS=$LISTEN_FDS} "$@"',
        ]
        variables = [f"{name}={value}" for name, value in environ.items()]
        return (
            *(program("unshare"), "--mount", f"--wd={self.path}"),
            *("sh", "-e", "-c", "\n".join(lines), "sh"),
            *(*variables, program("chroot"), ".", "/twisted-registry", *arguments),
        )

    def run(self, *arguments):
        """Run a command of the file; return exit status, standard output and error."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    def configure(self, *, workers=1, more=""):
        """Write ``/registry.yml``."""
        (self.path / "registry.yml").write_text(CONFIGURATION.format(workers=workers) + more)

    def serve(self, *, workers=1, more=""):
        """Start a registry; returns when it listens."""
        self.configure(workers=workers, more=more)
        return RegistryProcess(*self.command("serve", "/registry.yml"), cwd=self.path)

    def leftovers(self):
        """Return what is in ``/tmp``."""
        return [path.name for path in (self.path / "tmp").iterdir()]


@pytest.fixture
def empty_root(binary):
    made = Path(tempfile.mkdtemp(prefix="empty-root-"))
    yield EmptyRoot(made, binary)
    shutil.rmtree(made)


def test_commands_run(empty_root):
    status, out, err = empty_root.run("--version")
    assert (status, out, err) == (0, f"twisted-registry {__version__}\n", "")
    empty_root.configure()
    status, out, err = empty_root.run("check", "/registry.yml")
    assert status == 0, err
    assert "rootdirectory: /data" in out
    assert empty_root.leftovers() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_skopeo_pushes_and_pulls(empty_root, sandbox, tmp_path, workers):
    made = image("binary", size=100_000)
    folder = tmp_path / "dir"
    write_dir(folder, made)
    with empty_root.serve(workers=workers) as server:
        target = f"docker://127.0.0.1:{server.port}/a:1"
        sandbox.run("skopeo", *COPY, f"dir:{folder}", target)
        Remote(f"127.0.0.1:{server.port}").assert_holds("a", made, "1")
        sandbox.run("skopeo", *COPY, target, f"dir:{tmp_path / 'back'}")
        status, _, lines = server.stop()
    assert status == 0, lines
    assert sum("serving as worker" in line for line in lines) == workers - 1
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    assert empty_root.leftovers() == []
    status, _, err = empty_root.run("garbage-collect", "--dry-run", "/registry.yml")
    assert status == 0, err


def test_docker_pushes_and_pulls(empty_root, docker, tmp_path):
    archive = tmp_path / "saved.tar"
    write_layout(archive, {"saved:1": image("binary")})
    docker("load", "--input", archive)
    before = docker("image", "inspect", "--format={{.Id}}", "saved:1")
    with empty_root.serve(workers=2) as server:
        target = f"127.0.0.1:{server.port}/a:1"
        docker("tag", "saved:1", target)
        docker("push", target)
        docker("rmi", target, "saved:1")
        docker("pull", target)
        assert docker("image", "inspect", "--format={{.Id}}", target) == before
        docker("rmi", target)
        assert server.stop()[0] == 0


def test_all_processes_end_when_the_first_is_killed(empty_root):
    with empty_root.serve(workers=2) as server:
        server.process.kill()
        # Leaving the block waits until every process has closed its standard error.
    with pytest.raises(ConnectionRefusedError):
        server.ask()


def test_the_extras_are_in_the_file(empty_root):
    port = free_port()
    configured = EXTRAS.format(debug=port)
    empty_root.configure(more=configured)
    path = empty_root.path / "registry.yml"
    path.write_text(path.read_text().replace("inmemory", "redis"))
    command = empty_root.command("serve", "/registry.yml")
    with RegistryProcess(*command, cwd=empty_root.path) as server:
        assert (
            "registry_http_requests" in urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        )
        status, _, lines = server.stop()
    assert status == 0
    assert "registry.example" in "\n".join(lines)


def test_spans_are_sent(empty_root):
    empty_root.configure()
    with OTLPCollector() as collector:
        command = empty_root.command(
            "serve", "/registry.yml", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
        )
        with RegistryProcess(*command, cwd=empty_root.path) as server:
            server.ask("GET", "/v2/", None, {"traceparent": f"00-{'4b' * 16}-{'f0' * 8}-01"})
            assert server.stop()[0] == 0
    (span,) = collector.named("GET /v2/")
    assert (span.trace, span.parent) == ("4b" * 16, "f0" * 8)


def test_botocore_finds_the_services_that_it_gets_credentials_from(empty_root):
    (empty_root.path / "registry.yml").write_text(BUCKET)
    (empty_root.path / "data/token").write_text("token of a pod")
    command = empty_root.command(
        "check", "--bucket", "/registry.yml", AWS_ROLE_ARN="arn:aws:iam::123456789012:role/r",
        AWS_WEB_IDENTITY_TOKEN_FILE="/data/token", AWS_ENDPOINT_URL_STS="http://127.0.0.1:1",
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:1/"' in done.stderr


def test_a_socket_of_systemd_is_used(empty_root):
    empty_root.configure(workers=2)
    port = free_port()
    activate = (program("systemd-socket-activate"), f"--listen=127.0.0.1:{port}")
    command = empty_root.command("serve", "/registry.yml")
    with subprocess.Popen((*activate, *command), stderr=subprocess.DEVNULL) as process:
        try:
            remote = Remote(f"127.0.0.1:{port}")
            wait_until(lambda: answers(remote.address))
            remote.push("a", made := image("activated"), "1")
            remote.assert_holds("a", made, "1")
        finally:
            process.terminate()
        assert process.wait(60) == 0
    assert empty_root.leftovers() == []


class Upgrade:
    """A listening socket that stays open, as systemd keeps it, and clients that use it."""

    def __init__(self, empty_root, listening):
        self.root = empty_root
        self.listening = listening
        self.answers = []

    def start(self):
        """Start the registry with the socket."""
        become = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
        return RegistryProcess(
            *passing_socket(self.listening),
            *("-c", become, *self.root.command("serve", "/registry.yml")),
            cwd=self.root.path,
            pass_fds=(self.listening.fileno(),),
        )

    def ask(self):
        """Send requests, each over a new connection, until there are 1,000 answers."""
        while len(self.answers) < 1000:
            try:
                with urlopen(self.url, timeout=60) as response:
                    self.answers.append(response.read())
            except (OSError, HTTPException) as error:
                self.answers.append(repr(error))

    @property
    def url(self):
        host, port = self.listening.getsockname()
        return f"http://{host}:{port}/v2/a/tags/list"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_upgrade_refuses_no_connection(empty_root, binary, workers):
    empty_root.configure(workers=workers, more="  draintimeout: 30s\n")
    installed = empty_root.path / "twisted-registry"
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        upgrade = Upgrade(empty_root, listening)
        with upgrade.start() as old:
            Remote(f"127.0.0.1:{old.port}").push("a", image("upgraded"), "1")
            # A registry reads nothing from its file once it runs.
            (damaged := empty_root.path / "damaged").write_text("")
            damaged.replace(installed)
            clients = [Thread(target=upgrade.ask) for _ in range(8)]
            for client in clients:
                client.start()
            wait_until(lambda: len(upgrade.answers) > 300)
            new_file = Path(shutil.copy(binary, empty_root.path / "new"))
            new_file.replace(installed)
            status, before, lines = old.stop()
            assert status == 0, lines
        with upgrade.start() as new:
            for client in clients:
                client.join()
            status, after, lines = new.stop()
            assert status == 0, lines
    assert set(upgrade.answers) == {b'{"name":"a","tags":["1"]}'}
    assert before.count("/v2/a/tags/list") > 300
    assert after.count("/v2/a/tags/list") > 300
    assert empty_root.leftovers() == []
