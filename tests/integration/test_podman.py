"""podman and buildah: an image built from nothing, pushed, pulled, and manifest lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.images import index, noise
from tests.support.manifests import digest_of
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX

pytestmark = pytest.mark.integration


@pytest.fixture
def context(sandbox):
    """A folder to build an image from: one file on an empty image, in two layers."""
    folder = sandbox.home / "context"
    folder.mkdir()
    (folder / "data").write_bytes(noise("podman", 300_000))
    (folder / "Containerfile").write_text("FROM scratch\nCOPY data /data\nLABEL made=here\n")
    return folder


def test_podman_pulls_what_it_built_and_pushed(registry, sandbox, context):
    target = registry.image("podman/built")
    sandbox.run("buildah", "build", "--isolation=chroot", f"--tag={target}", context)
    sandbox.run("podman", "push", "--digestfile", sandbox.home / "digest", target)

    pushed = registry.remote.assert_complete("podman/built", "1")
    assert pushed.headers["content-type"] == OCI_IMAGE
    assert digest_of(pushed.body) == (sandbox.home / "digest").read_text()

    (before,) = json.loads(sandbox.run("podman", "image", "inspect", target))
    sandbox.run("podman", "rmi", target)
    sandbox.run("podman", "pull", target)
    (after,) = json.loads(sandbox.run("podman", "image", "inspect", target))
    assert after["Id"] == before["Id"]
    assert after["Digest"] == digest_of(pushed.body)
    assert after["Labels"]["made"] == "here"
    where = sandbox.run("podman", "image", "mount", target).strip()
    assert (Path(where) / "data").read_bytes() == noise("podman", 300_000)
    sandbox.run("podman", "image", "umount", target)


def test_podman_pulls_by_digest(registry, sandbox):
    made = index("podman-digest")
    registry.remote.push("podman/digest", made, "1")
    child = made.images[0]
    source = f"{registry.address}/podman/digest@{child.digest}"
    sandbox.run("podman", "pull", source)
    (pulled,) = json.loads(sandbox.run("podman", "image", "inspect", source))
    assert pulled["Digest"] == child.digest


@pytest.mark.parametrize("format_", ["oci", "docker"])
def test_buildah_commits_to_the_registry(registry, sandbox, context, format_):
    target = registry.image(f"buildah/commit-{format_}")
    container = sandbox.run("buildah", "from", "scratch").strip()
    sandbox.run("buildah", "copy", container, context / "data", "/data")
    sandbox.run(
        "buildah", "commit", "--tls-verify=false", f"--format={format_}", container,
        f"docker://{target}",
    )  # fmt: skip
    kind = "oci.image" if format_ == "oci" else "docker.distribution"
    pushed = registry.remote.assert_complete(f"buildah/commit-{format_}", "1")
    assert kind in pushed.headers["content-type"]
    sandbox.run("buildah", "rm", container)


def test_buildah_pushes_a_manifest_list(registry, sandbox, context):
    target = registry.image("podman/list")
    for architecture in ("amd64", "arm64"):
        sandbox.run(
            "buildah", "build", "--isolation=chroot", f"--arch={architecture}",
            "--manifest=both", context,
        )  # fmt: skip
    sandbox.run("buildah", "manifest", "push", "--all", "both", f"docker://{target}")

    pushed = registry.remote.assert_complete("podman/list", "1")
    assert pushed.headers["content-type"] == OCI_INDEX
    shown = json.loads(sandbox.run("podman", "manifest", "inspect", target))
    assert shown == pushed.json()
    assert {entry["platform"]["architecture"] for entry in shown["manifests"]} == {
        "amd64",
        "arm64",
    }

    for entry in shown["manifests"]:
        architecture = entry["platform"]["architecture"]
        sandbox.run("podman", "pull", f"--arch={architecture}", target)
        (pulled,) = json.loads(sandbox.run("podman", "image", "inspect", target))
        assert pulled["Architecture"] == architecture


def test_zstd_chunked_layers_are_pushed_and_pulled(registry, sandbox, context):
    target = registry.image("podman/zstd")
    sandbox.run("buildah", "build", "--isolation=chroot", f"--tag={target}", context)
    sandbox.run("podman", "push", "--compression-format=zstd:chunked", target)
    layers = registry.remote.assert_complete("podman/zstd", "1").json()["layers"]
    assert all(layer["mediaType"].endswith("+zstd") for layer in layers)
    sandbox.run("podman", "rmi", target)
    sandbox.run("podman", "pull", target)


def test_search_lists_tags(ours_only, registry, sandbox):
    for tag in ("2", "1", "10"):
        registry.remote.push("podman/tags", index("podman-tags"), tag)
    name = f"{registry.address}/podman/tags"
    listed = json.loads(sandbox.run("podman", "search", "--list-tags", "--format=json", name))
    assert listed[0]["Tags"] == ["1", "10", "2"]
