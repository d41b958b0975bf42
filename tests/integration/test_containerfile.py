"""The Containerfile, built by buildah on a base image of this Python, and run by podman."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.integration.containers import UID, push_and_pull, run_podman, users_of
from tests.integration.images import image
from tests.integration.servers import program
from tests.support.processes import ROOT, free_port
from twisted_registry.testing import File, Folder, Symlink, build_image, write_layout

BASE = "localhost/python:base"
#: What the steps of the Containerfile run, beside Python.
PROGRAMS = ("sh", "mkdir", "ln", "install")
#: Parts of the standard library that a build does not need.
LEFT_OUT = {"test", "idlelib", "tkinter", "site-packages", "__pycache__"}
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def python_image():
    """A base image: the interpreter that runs this test, its library, and some programs."""
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    library = Path(sysconfig.get_path("stdlib"))
    files = {
        str(path): path
        for path in library.rglob("*")
        if path.is_file() and not LEFT_OUT.intersection(path.relative_to(library).parts)
    }
    programs = {f"/usr/bin/{name}": Path(program(name)).resolve() for name in PROGRAMS}
    programs[str(python)] = python.resolve()
    modules = [path for path in files.values() if path.suffix == ".so"]
    listed = subprocess.run(
        ["ldd", *programs.values(), *modules], capture_output=True, text=True, check=False
    ).stdout
    libraries = {Path(path) for path in re.findall(r"(/\S+) \(0x", listed)}
    (libc,) = (path for path in libraries if path.name == "libc.so.6")
    # Wheels need parts of the C library that this Python may not need.
    libraries |= {libc.with_name(f"lib{name}") for name in ("dl.so.2", "pthread.so.0", "rt.so.1")}
    programs |= {str(path): path.resolve() for path in libraries}
    return build_image(
        files={
            **files,
            **{name: File(path, 0o755) for name, path in programs.items()},
            "/usr/local/bin/python": Symlink(str(python)),
            "/bin/sh": Symlink("/usr/bin/sh"),
            "/tmp": Folder(0o1777),
            "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
            "/etc/group": "root:x:0:\n",
            "/etc/nsswitch.conf": "hosts: files dns\n",
            AUTHORITIES: Path(AUTHORITIES).resolve(),
        },
        config={
            "Env": [
                "PATH=/usr/local/bin:/usr/bin:/bin",
                f"PIP_CERT={AUTHORITIES}",
                f"SSL_CERT_FILE={AUTHORITIES}",
            ]
        },
    )


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_containerfile_builds_and_serves(sandbox, tmp_path):
    write_layout(tmp_path / "base.tar", {BASE: python_image()})
    sandbox.run("buildah", "pull", f"oci-archive:{tmp_path / 'base.tar'}")
    limits = {
        name: resource.getrlimit(number)[1]
        for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    }
    built = subprocess.run(
        [
            *(program("buildah"), "build", "--isolation=chroot", "--pull=never"),
            *(f"--ulimit={name}={limit}:{limit}" for name, limit in limits.items()),
            *(f"--build-arg=PYTHON={BASE}", "--tag=twisted-registry:built", ROOT),
        ],
        env=sandbox.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    address = f"127.0.0.1:{free_port()}"
    with run_podman(
        sandbox,
        "localhost/twisted-registry:built",
        address=address,
        options=[f"--env=REGISTRY_HTTP_ADDR={address}"],
    ) as podman:
        archive = tmp_path / "saved.tar"
        write_layout(archive, {"saved:1": image("containerfile")})
        push_and_pull(sandbox, address, f"docker-archive:{archive}")
        pid = podman("inspect", "--format={{.State.Pid}}", "registry").strip()
        assert users_of(pid) == {UID}
        path = "/etc/docker/registry/config.yml"
        assert "0 manifests eligible" in podman(
            "exec", "registry", "registry", "garbage-collect", "--dry-run", path
        )
