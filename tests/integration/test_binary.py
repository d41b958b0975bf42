"""``dist/twisted-registry``, in a root directory that has nothing but the C library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.integration.images import image, write_archive
from tests.integration.remote import Remote
from tests.integration.servers import missing, program
from tests.support.processes import RegistryProcess
from twisted_registry import __version__

pytestmark = pytest.mark.integration

COPY = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
CONFIGURATION = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: /data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0", workers: {workers}}}
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
        """Return a command that runs the file in this root, with no other environment."""
        if os.geteuid() != 0:
            missing("only root can make a namespace")
        lines = [
            "mount --bind . .",
            "cd $PWD",
            *(f"mount --bind {name} {name}" for name in ("tmp", "data")),
            "mount -t proc proc proc",
            "mount -t tmpfs tmpfs dev && touch dev/null && mount --bind /dev/null dev/null",
            "mount -o remount,bind,ro .",
            'exec env -i "$@"',
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

    def serve(self, workers=1):
        """Start a registry; returns when it listens."""
        (self.path / "registry.yml").write_text(CONFIGURATION.format(workers=workers))
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
    (empty_root.path / "registry.yml").write_text(CONFIGURATION.format(workers=1))
    status, out, err = empty_root.run("check", "/registry.yml")
    assert status == 0, err
    assert "rootdirectory: /data" in out
    assert empty_root.leftovers() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_skopeo_pushes_and_pulls(empty_root, sandbox, tmp_path, workers):
    made = image("binary", size=100_000)
    folder = tmp_path / "dir"
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(made.manifest)
    for digest, blob in made.blobs.items():
        (folder / digest.partition(":")[2]).write_bytes(blob)
    with empty_root.serve(workers) as server:
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
    docker("load", "--input", write_archive(tmp_path / "saved.tar", "saved:1", seed="binary"))
    before = docker("image", "inspect", "--format={{.Id}}", "saved:1")
    with empty_root.serve(2) as server:
        target = f"127.0.0.1:{server.port}/a:1"
        docker("tag", "saved:1", target)
        docker("push", target)
        docker("rmi", target, "saved:1")
        docker("pull", target)
        assert docker("image", "inspect", "--format={{.Id}}", target) == before
        docker("rmi", target)
        assert server.stop()[0] == 0


def test_all_processes_end_when_the_first_is_killed(empty_root):
    with empty_root.serve(2) as server:
        server.process.kill()
        # Leaving the block waits until every process has closed its standard error.
    with pytest.raises(ConnectionRefusedError):
        server.ask()
