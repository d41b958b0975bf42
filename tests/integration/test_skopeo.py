"""skopeo: copies in both formats and both ways, indexes, zstd, lists, deletes, sync."""

from __future__ import annotations

import json

import pytest

from tests.integration.images import assert_layout_holds, image, index, write_dir
from tests.support.manifests import digest_of
from twisted_registry.oci.manifest import DOCKER_IMAGE
from twisted_registry.testing import read_layout, write_layout
from twisted_registry.testing.layers import OCI_TAR_ZSTD

pytestmark = pytest.mark.integration

COPY = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false")
PLAIN = "--tls-verify=false"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_skopeo_copies_an_image_in_and_out_unchanged(registry, sandbox, tmp_path, docker):
    made = image("skopeo", docker=docker)
    name = f"skopeo/copy-{'docker' if docker else 'oci'}"
    target = "docker://" + registry.image(name)
    # A layout must not hold Docker's types: skopeo would convert them.  Its own "dir" may.
    folder = tmp_path / "dir"
    write_dir(folder, made)

    sandbox.run("skopeo", *COPY, "--preserve-digests", f"dir:{folder}", target)
    registry.remote.assert_holds(name, made, "1")

    sandbox.run("skopeo", *COPY, "--preserve-digests", target, f"dir:{tmp_path / 'back'}")
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_docker_archive_is_pushed_as_schema2(registry, sandbox, tmp_path):
    archive = tmp_path / "saved.tar"
    write_layout(archive, {"saved:1": image("archive")})
    target = "docker://" + registry.image("skopeo/archive")
    sandbox.run("skopeo", *COPY, "--format=v2s2", f"docker-archive:{archive}:saved:1", target)

    pushed = registry.remote.assert_complete("skopeo/archive", "1")
    assert pushed.headers["content-type"] == DOCKER_IMAGE

    back = tmp_path / "back.tar"
    sandbox.run("skopeo", *COPY, target, f"docker-archive:{back}:saved:1")
    config = sandbox.run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{back}:saved:1")
    assert digest_of(config.encode()) == pushed.json()["config"]["digest"]


def test_zstd_layers_are_stored_as_pushed(registry, sandbox, tmp_path):
    layout = tmp_path / "layout"
    write_layout(layout, {"1": image("zstd")})
    target = "docker://" + registry.image("skopeo/zstd")
    sandbox.run(
        "skopeo",
        *COPY,
        "--dest-compress",
        "--dest-compress-format=zstd",
        f"oci:{layout}:1",
        target,
    )
    pushed = registry.remote.assert_complete("skopeo/zstd", "1")
    layers = pushed.json()["layers"]
    assert [layer["mediaType"] for layer in layers] == [OCI_TAR_ZSTD] * 2
    for layer in layers:
        blob = registry.remote.blob("skopeo/zstd", layer["digest"]).body
        assert blob.startswith(ZSTD_MAGIC)

    back = tmp_path / "back"
    sandbox.run("skopeo", *COPY, "--preserve-digests", target, f"oci:{back}:1")
    assert read_layout(back)["1"].manifest.read() == pushed.body


def test_all_images_of_an_index_are_copied(registry, sandbox, tmp_path):
    made = index("skopeo-all", ("amd64", "arm64", "s390x"))
    layout = tmp_path / "layout"
    write_layout(layout, {"1": made})
    target = "docker://" + registry.image("skopeo/index")
    sandbox.run("skopeo", *COPY, "--all", "--preserve-digests", f"oci:{layout}:1", target)
    registry.remote.assert_holds("skopeo/index", made, "1")

    second = "docker://" + registry.image("skopeo/index-second", "2")
    sandbox.run("skopeo", *COPY, "--all", "--preserve-digests", target, second)
    registry.remote.assert_holds("skopeo/index-second", made, "2")

    back = tmp_path / "back"
    sandbox.run("skopeo", *COPY, "--all", "--preserve-digests", second, f"oci:{back}:1")
    assert_layout_holds(back, made)


def test_one_platform_of_an_index_is_copied(registry, sandbox, tmp_path):
    made = index("skopeo-one")
    registry.remote.push("skopeo/one", made, "1")
    source = "docker://" + registry.image("skopeo/one")
    back = tmp_path / "back"
    sandbox.run("skopeo", "--override-arch=arm64", *COPY, source, f"oci:{back}:1")
    assert read_layout(back)["1"].digest == made.images[1].digest


def test_tags_are_listed_and_images_inspected(ours_only, registry, sandbox):
    made = image("skopeo-inspect", architecture="riscv64")
    for tag in ("b", "a", "1.0", "latest"):
        registry.remote.push("skopeo/inspect", made, tag)
    source = f"docker://{registry.address}/skopeo/inspect"

    listed = json.loads(sandbox.run("skopeo", "list-tags", PLAIN, source))
    assert listed["Tags"] == ["1.0", "a", "b", "latest"]
    inspected = json.loads(sandbox.run("skopeo", "inspect", PLAIN, source))
    assert inspected["Digest"] == made.digest
    assert inspected["Architecture"] == "riscv64"
    assert inspected["RepoTags"] == ["1.0", "a", "b", "latest"]
    raw = sandbox.run("skopeo", "inspect", "--raw", PLAIN, f"{source}@{made.digest}")
    assert raw.encode() == made.manifest.read()


def test_deleting_a_tag_deletes_its_manifest(registry, sandbox):
    kept, gone = image("kept"), image("gone")
    registry.remote.push("skopeo/delete", kept, "kept")
    for tag in ("gone", "gone-too"):
        registry.remote.push("skopeo/delete", gone, tag)

    sandbox.run("skopeo", "delete", PLAIN, "docker://" + registry.image("skopeo/delete", "gone"))

    for reference in ("gone", "gone-too", gone.digest):
        assert registry.remote.manifest("skopeo/delete", reference).status == 404
    assert registry.remote.tags("skopeo/delete") == ["kept"]
    registry.remote.assert_holds("skopeo/delete", kept, "kept")
    source = "docker://" + registry.image("skopeo/delete", "gone")
    assert sandbox.attempt("skopeo", "inspect", PLAIN, source).returncode != 0


def test_skopeo_sync_exports_and_imports_a_repository(registry, sandbox, tmp_path):
    made = {tag: image(("sync", tag)) for tag in ("1", "2", "3")}
    for tag, each in made.items():
        registry.remote.push("skopeo/sync", each, tag)
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")

    source = f"{registry.address}/skopeo/sync"
    sandbox.run("skopeo", "sync", *tls, "--src=docker", "--dest=dir", source, tmp_path)
    for tag, each in made.items():
        assert (tmp_path / f"sync:{tag}" / "manifest.json").read_bytes() == each.manifest.read()

    target = f"{registry.address}/skopeo/synced"
    sandbox.run("skopeo", "sync", *tls, "--src=dir", "--dest=docker", tmp_path, target)
    assert set(registry.remote.tags("skopeo/synced/sync")) == set(made)
    for tag, each in made.items():
        registry.remote.assert_holds("skopeo/synced/sync", each, tag)


def test_a_pushed_layer_is_not_sent_twice(registry, sandbox, tmp_path):
    made = image("reuse", size=3_000_000)
    layout = tmp_path / "layout"
    write_layout(layout, {"1": made})
    target = "docker://" + registry.image("skopeo/reuse")
    command = ("skopeo", "--debug", *COPY, f"oci:{layout}:1", target)
    first, again = sandbox.attempt(*command), sandbox.attempt(*command)
    assert first.stderr.count("PATCH http") == 3, first.stderr
    assert again.returncode == 0, again.stderr
    assert "PATCH http" not in again.stderr
    registry.remote.assert_holds("skopeo/reuse", made, "1")
