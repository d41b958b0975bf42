"""The container image of ``make image``: clients read it, podman and docker run it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest
import yaml
from attrs import frozen

from tests.documentation.pages import blocks_in
from tests.documentation.shell import read_commands
from tests.integration.containers import INSECURE, UID, push_and_pull, run_podman, users_of
from tests.integration.images import image
from tests.integration.remote import Remote
from tests.integration.servers import answers, program
from tests.support.manifests import digest_of
from tests.support.processes import ROOT, free_port, wait_until
from twisted_registry import __version__
from twisted_registry.testing import Registry, read_layout, write_layout

pytestmark = pytest.mark.integration

NAME = f"twisted-registry:{__version__}"
SBOM = b'{"bomFormat": "CycloneDX", "specVersion": "1.6"}'
CYCLONEDX = "application/vnd.cyclonedx+json"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@frozen
class Built:
    """What ``.ci/image`` has written to a folder.

    :ivar digest: the digest of the image, as it was printed.
    """

    folder: object
    digest: str

    @property
    def layout(self):
        """An OCI layout with the image and its SBOM."""
        return self.folder / "image"

    @property
    def archive(self):
        """An archive with the image."""
        return self.folder / "twisted-registry-image.tar"

    @property
    def image(self):
        return read_layout(self.layout)[__version__]

    @property
    def config(self):
        return json.loads(self.image.config.read())


def build(binary, folder):
    sbom = folder / "sbom.cdx.json"
    sbom.write_bytes(SBOM)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/image", binary, sbom, folder, REVISION],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1767225600"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Built(folder, done.stdout.split()[-1])


@pytest.fixture(scope="module")
def built(binary, tmp_path_factory):
    return build(binary, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def files(built):
    """The members of all layers by name, upper layers over lower ones."""
    found = {}
    for layer in built.image.layers:
        with tarfile.open(fileobj=io.BytesIO(layer.read()), mode="r:gz") as archive:
            found |= {each.name: each for each in archive}
    return found


@pytest.fixture
def archive(tmp_path):
    """A small image to push, as a source of skopeo."""
    path = tmp_path / "saved.tar"
    write_layout(path, {"saved:1": image("image")})
    return f"docker-archive:{path}"


def test_skopeo_reads_the_layout_and_the_archive(built, sandbox):
    for source in (f"oci:{built.layout}:{__version__}", f"oci-archive:{built.archive}"):
        shown = json.loads(sandbox.run("skopeo", "inspect", source))
        assert shown["Digest"] == built.digest
        assert shown["Labels"]["org.opencontainers.image.version"] == __version__
        target = f"oci:{sandbox.home}/copy"
        sandbox.run("skopeo", "copy", source, target)
        assert json.loads(sandbox.run("skopeo", "inspect", target))["Digest"] == built.digest
    shown = json.loads(sandbox.run("skopeo", "inspect", f"docker-archive:{built.archive}"))
    assert shown["Created"] == "2026-01-01T00:00:00Z"


def test_the_configuration_is_that_of_distribution(built):
    config = built.config["config"]
    assert config["Cmd"] == ["serve", "/etc/distribution/config.yml"]
    assert config["Entrypoint"] == ["/usr/bin/twisted-registry"]
    assert list(config["ExposedPorts"]) == ["5000/tcp"]
    assert list(config["Volumes"]) == ["/var/lib/registry"]
    assert config["User"] == f"{UID}:{UID}"
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert labels.pop("description")
    assert labels == {
        "title": "Twisted Registry",
        "version": __version__,
        "licenses": "Apache-2.0",
        "created": "2026-01-01T00:00:00Z",
        "revision": REVISION,
    }
    assert built.image.document["annotations"] == config["Labels"]


def test_the_containerfile_sets_the_same(built):
    """Its last stage: the same user, command line, port, volume and labels."""
    config = built.config["config"]
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    stage = dict(re.findall(r"^([A-Z]+) (.+)$", text.rpartition("\nFROM ")[2], re.MULTILINE))
    assert json.loads(stage["ENTRYPOINT"]) == config["Entrypoint"]
    assert json.loads(stage["CMD"]) == config["Cmd"]
    assert stage["USER"] == config["User"]
    assert stage["WORKDIR"] == config["WorkingDir"]
    assert [f"{stage['EXPOSE']}/tcp"] == list(config["ExposedPorts"])
    assert [stage["VOLUME"]] == list(config["Volumes"])
    labels = dict(re.findall(r'(\S+)="(.+?)"', stage["LABEL"]))
    assert len(labels) == 3
    assert labels.items() <= config["Labels"].items()


def test_the_files_have_owners_and_permissions(files):
    by_mode = {
        name: (oct(each.mode), each.uid, each.gid)
        for name, each in files.items()
        if each.isdir() and (each.uid or each.mode != 0o755)
    }
    assert by_mode == {
        "tmp": ("0o1777", 0, 0),
        "var/lib/registry": ("0o750", UID, UID),
    }
    writable = [name for name, each in files.items() if each.isreg() and each.mode & 0o022]
    assert not writable
    assert files["usr/bin/twisted-registry"].mode == 0o755
    assert all(not each.mtime for each in files.values())


def test_libraries_have_their_licences(files):
    """Where packages have them: elsewhere the build says that they are left out."""
    assert "usr/share/doc/twisted-registry/LICENSE" in files
    assert any(re.search(r"/libc\.so\.6$", name) for name in files)
    if os.access("/usr/bin/dpkg-query", os.X_OK):
        assert {"usr/share/doc/libc6/copyright", "usr/share/doc/libgcc-s1/copyright"} <= set(files)


def test_equal_input_makes_equal_files(binary, built, tmp_path):
    # The folder has an image of another build, of which nothing is left.
    (tmp_path / "image/blobs/sha256").mkdir(parents=True)
    (tmp_path / "image/blobs/sha256/old").touch()
    again = build(binary, tmp_path)
    assert again.digest == built.digest
    assert again.archive.read_bytes() == built.archive.read_bytes()
    assert not (again.layout / "blobs/sha256/old").exists()


@pytest.mark.parametrize(
    ("sbom", "reason"),
    [(SBOM, "program is not a program for the GNU C library"), (None, "No such file")],
)
def test_wrong_input_is_refused_in_one_line(tmp_path, sbom, reason):
    (tmp_path / "program").write_text("#!/bin/sh\n")
    if sbom is not None:
        (tmp_path / "sbom.json").write_bytes(sbom)
    done = subprocess.run(
        [
            sys.executable,
            ROOT / ".ci/image",
            tmp_path / "program",
            tmp_path / "sbom.json",
            tmp_path,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert reason in line
    assert not (tmp_path / "image").exists()


def test_a_registry_serves_the_image_with_its_sbom(built, sandbox):
    with Registry() as registry:
        pushed = registry.load_layout(built.layout, "tools/registry")
        assert pushed[0] == f"tools/registry:{__version__}"
        source = f"docker://{registry.host}/tools/registry:{__version__}"
        target = f"oci:{sandbox.home}/pulled:1"
        sandbox.run("skopeo", "copy", *INSECURE, source, target)
        assert json.loads(sandbox.run("skopeo", "inspect", target))["Digest"] == built.digest

        remote = Remote(registry.host)
        (digest,) = remote.referrers("tools/registry", built.digest)
        manifest = remote.manifest("tools/registry", digest).json()
        assert manifest["artifactType"] == CYCLONEDX
        assert manifest["layers"][0]["digest"] == digest_of(SBOM)
        assert remote.blob("tools/registry", digest_of(SBOM)).body == SBOM


def test_oras_copies_the_layout_with_its_sbom(built, sandbox):
    with Registry() as registry:
        target = f"{registry.host}/copied:1"
        layout = f"{built.layout}:{__version__}"
        sandbox.run("oras", "cp", "--from-oci-layout", "-r", "--to-plain-http", layout, target)
        (digest,) = Remote(registry.host).referrers("copied", built.digest)
        sandbox.run("oras", "pull", "--plain-http", f"{registry.host}/copied@{digest}")
    assert (sandbox.home / "sbom.cdx.json").read_bytes() == SBOM


def test_podman_runs_it(built, sandbox, archive):
    """As containers of version 2 were started: with the path of a configuration and no command."""
    assert NAME in sandbox.run("podman", "load", "--input", built.archive)
    address = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((ROOT / "conf/image.yml").read_text())
    config["http"]["addr"] = address
    (sandbox.home / "config.yml").write_text(yaml.safe_dump(config))
    (sandbox.home / "config.yml").chmod(0o644)
    path = "/etc/docker/registry/config.yml"
    mount = f"--volume={sandbox.home}/config.yml:{path}:ro"
    with run_podman(sandbox, f"localhost/{NAME}", path, address=address, options=[mount]) as podman:
        push_and_pull(sandbox, address, archive)
        pid = podman("inspect", "--format={{.State.Pid}}", "registry").strip()
        assert users_of(pid) == {UID}
        collected = podman("exec", "registry", "registry", "garbage-collect", "--dry-run", path)
        assert "0 manifests eligible" in collected


#: The commands of the page are run without a network for containers, and clients without TLS.
SUBSTITUTIONS = {
    "--publish 127.0.0.1:5000:5000": "--network host --env REGISTRY_HTTP_ADDR={address}",
    "registry.example.com": "{address}",
    "oras cp": "oras cp --to-plain-http",
    "skopeo copy": "skopeo copy --dest-tls-verify=false",
    "make image": ":",
}


def test_docker_runs_it_as_the_page_says(built, docker, shared_sandbox, archive, tmp_path):
    """All commands of ``docs/container.rst``; the last one starts ``compose.yml``."""
    for name in ("docker-compose", "oras", "skopeo"):
        program(name)
    address, composed = (f"127.0.0.1:{free_port()}" for _ in range(2))
    (tmp_path / "dist").symlink_to(built.folder)
    (tmp_path / "override.yml").write_text(
        "services:\n  registry:\n    network_mode: host\n    ports: !reset []\n"
        f"    environment:\n      REGISTRY_HTTP_ADDR: {composed}\n"
    )
    environment = {
        **shared_sandbox.environment,
        "DOCKER_HOST": f"unix://{shared_sandbox.home}/docker.sock",
        "COMPOSE_FILE": f"{ROOT}/compose.yml:{tmp_path}/override.yml",
    }

    def run(text):
        for shown, replacement in SUBSTITUTIONS.items():
            text = text.replace(shown, replacement.format(address=address))
        done = subprocess.run(
            ["sh", "-e", "-c", text],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    for block in blocks_in("console"):
        if block.page == "docs/container.rst":
            for command in read_commands(block):
                run(command.text)
                if "docker run" in command.text:
                    wait_until(lambda: answers(address))
    assert len(Remote(address).referrers("twisted-registry", built.digest)) == 1
    assert digest_of(Remote(address).manifest("tools/registry", __version__).body) == built.digest

    wait_until(lambda: answers(composed))
    push_and_pull(shared_sandbox, composed, archive)
    run("docker compose restart")
    wait_until(lambda: answers(composed))
    # The volume has kept the image; what compose.yml sets allows deletes.
    digest = Remote(composed).manifest("app", "1").headers["docker-content-digest"]
    assert Remote(composed).request("DELETE", f"/v2/app/manifests/{digest}").status == 202
    for name in ("registry", "twisted-registry-registry-1"):
        (container,) = json.loads(docker("inspect", name))
        assert users_of(container["State"]["Pid"]) == {UID}
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    run("docker stop registry; docker compose stop")
    for name in ("registry", "twisted-registry-registry-1"):
        (container,) = json.loads(docker("inspect", name))
        assert container["State"]["ExitCode"] == 0


def test_compose_publishes_to_this_machine_only():
    (port,) = yaml.safe_load((ROOT / "compose.yml").read_text())["services"]["registry"]["ports"]
    assert port.startswith("127.0.0.1:"), "the registry has no access control"
