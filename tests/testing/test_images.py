"""Images and indexes that are built without Docker."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from tests.support.manifests import digest_of
from twisted_registry.oci.manifest import DOCKER_IMAGE, OCI_IMAGE, OCI_INDEX, parse_pushed
from twisted_registry.testing.blobs import SPOOL_BYTES, Blob, Spool
from twisted_registry.testing.images import build_image, build_index
from twisted_registry.testing.layers import File, Folder, Symlink, diff_id_of


def members(layer):
    with tarfile.open(fileobj=io.BytesIO(layer.read()), mode="r:gz") as archive:
        return {
            member.name: (
                member.type,
                member.mode,
                member.linkname or (member.isreg() and archive.extractfile(member).read()),
            )
            for member in archive
        }


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_image_has_one_layer_of_its_files():
    image = build_image(files={"/etc/motd": "hé", "bin/tool": File(b"run", 0o755, 1, 2)})
    (layer,) = image.layers
    assert members(layer) == {
        "bin": (tarfile.DIRTYPE, 0o755, False),
        "bin/tool": (tarfile.REGTYPE, 0o755, b"run"),
        "etc": (tarfile.DIRTYPE, 0o755, False),
        "etc/motd": (tarfile.REGTYPE, 0o644, "hé".encode()),
    }
    assert layer.digest == digest_of(layer.read())
    assert layer.size == len(layer.read())
    assert image.digest == digest_of(image.manifest.read())


def test_links_and_folders():
    image = build_image(files={"a": Symlink("b/c"), "b": None})
    assert members(image.layers[0]) == {
        "a": (tarfile.SYMTYPE, 0o777, "b/c"),
        "b": (tarfile.DIRTYPE, 0o755, False),
    }


def test_owners_and_permissions(tmp_path):
    (tmp_path / "tool").write_bytes(b"run")
    image = build_image(
        files={
            "srv/tool": File(tmp_path / "tool", 0o755, 1, 2),
            "srv": Folder(0o750, 3, 4),
            "tmp": Folder(0o1777),
        }
    )
    with tarfile.open(fileobj=io.BytesIO(image.layers[0].read()), mode="r:gz") as archive:
        assert [(each.name, each.mode, each.uid, each.gid) for each in archive] == [
            ("srv", 0o750, 3, 4),
            ("srv/tool", 0o755, 1, 2),
            ("tmp", 0o1777, 0, 0),
        ]


def test_the_time_of_an_image():
    def times(image):
        return json.loads(image.config.read())["created"]

    assert times(build_image()) == "1970-01-01T00:00:00Z"
    assert times(build_image(created="2026-01-31T12:00:00Z")) == "2026-01-31T12:00:00Z"


def test_the_digest_depends_on_the_content_alone():
    # The digests are those of every version of Python and zlib.
    files = {"b": "2", "a/c": "1" * 70_000}
    image = build_image(files=files, config={"Cmd": ["/a/c"]}, annotations={"k": "v"})
    again = build_image(
        files=dict(reversed(files.items())), config={"Cmd": ["/a/c"]}, annotations={"k": "v"}
    )
    assert image == again
    assert image.layers[0].digest == (
        "sha256:b4a6e0310e9a1324f0c837b8f861b594fb9d62c8f69f70f3d64f5d6f679207c3"
    )
    assert image.digest == "sha256:550de38e490a781091d1c56d5a447fde1d287938ae0f80906fe6ef8e392f46c1"
    assert build_image(files={**files, "b": "3"}).digest != image.digest


def test_the_configuration_names_platform_and_diff_ids():
    image = build_image(
        files={"a": "1"}, layers=[{"b": "2"}], platform="linux/arm64/v8", config={"User": "u"}
    )
    config = image.config
    assert config.media_type == "application/vnd.oci.image.config.v1+json"
    document = json.loads(config.read())
    assert {name: document[name] for name in ("architecture", "os", "variant")} == {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
    }
    assert document["config"] == {"User": "u"}
    assert document["rootfs"]["diff_ids"] == [
        digest_of(gzip.decompress(layer.read())) for layer in image.layers
    ]
    assert [list(members(layer)) for layer in image.layers] == [["b"], ["a"]]


@pytest.mark.parametrize("compress", [False, True])
def test_compressing(compress):
    image = build_image(files={"zeros": bytes(300_000)}, compress=compress)
    assert (image.layers[0].size < 10_000) is compress
    assert members(image.layers[0])["zeros"][2] == bytes(300_000)


def test_finished_layers_keep_their_bytes(tmp_path):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    packed = gzip.compress(plain.getvalue()[:700]) + gzip.compress(plain.getvalue()[700:])
    (tmp_path / "layer").write_bytes(packed)
    image = build_image(layers=[plain.getvalue(), tmp_path / "layer"])
    assert [layer.media_type.rpartition(".")[2] for layer in image.layers] == ["tar", "tar+gzip"]
    assert [layer.read() for layer in image.layers] == [plain.getvalue(), packed]
    assert {diff_id_of(layer) for layer in image.layers} == {digest_of(plain.getvalue())}


def test_a_layer_of_zstd_needs_a_diff_id():
    content = b"\x28\xb5\x2f\xfd rest"
    with pytest.raises(ValueError, match="diff ID"):
        build_image(layers=[content])
    config = Blob.from_bytes(b"{}", "application/vnd.oci.image.config.v1+json")
    image = build_image(layers=[content], config=config)
    assert image.layers[0].media_type.endswith("+zstd")


def test_an_artifact_refers_to_its_subject():
    image = build_image(files={"a": "1"})
    artifact = build_image(
        subject=image,
        artifact_type="application/vnd.example.sbom",
        layers=[Blob.from_bytes(b"[]", "application/json")],
        annotations={"org.example": "x"},
    )
    document = artifact.document
    assert document["subject"] == image.manifest.descriptor
    assert document["artifactType"] == "application/vnd.example.sbom"
    assert document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert [layer["mediaType"] for layer in document["layers"]] == ["application/json"]
    assert artifact.descriptor["artifactType"] == "application/vnd.example.sbom"
    assert "platform" not in artifact.descriptor


def test_an_index_lists_platforms():
    images = [build_image(platform=f"linux/{name}") for name in ("amd64", "arm64")]
    index = build_index(images, annotations={"a": "b"}, subject=images[0])
    assert index.media_type == OCI_INDEX
    assert [each["platform"]["architecture"] for each in index.document["manifests"]] == [
        "amd64",
        "arm64",
    ]
    assert index.images == tuple(images)
    assert index.document["subject"] == images[0].manifest.descriptor


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (build_image(files={"a": "1"}), OCI_IMAGE),
        (build_image(files={"a": "1"}, docker=True), DOCKER_IMAGE),
        (build_image(artifact_type="application/x.y"), OCI_IMAGE),
        (build_index([build_image()]), OCI_INDEX),
        (build_index([build_image(docker=True)], docker=True), None),
    ],
)
def test_the_registry_accepts_what_is_built(made, kind):
    parsed = parse_pushed(made.manifest.read(), made.media_type)
    assert parsed.media_type == made.media_type
    assert kind in {None, parsed.media_type}


def test_docker_media_types():
    image = build_image(files={"a": "1"}, docker=True)
    assert image.layers[0].media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert image.config.media_type == "application/vnd.docker.container.image.v1+json"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"files": {"../etc/passwd": ""}}, ValueError),
        ({"files": {"/": ""}}, ValueError),
        ({"files": {"a": 1}}, TypeError),
        ({"layers": ["layer.tar"]}, TypeError),
        ({"platform": "linux"}, ValueError),
        ({"docker": True, "artifact_type": "a/b"}, ValueError),
        ({"artifact_type": "a/b", "config": {"Cmd": []}}, ValueError),
    ],
)
def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        build_image(**arguments)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises((ValueError, IsADirectoryError)):
        build_image(files={"a": tmp_path})


def test_large_files_are_not_held_in_memory(tmp_path):
    size = 48 * 1024 * 1024
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    before = open_descriptors()
    tracemalloc.start()
    try:
        image = build_image(files={"large": tmp_path / "large"}, layers=[tmp_path / "large"])
        total = sum(len(piece) for layer in image.layers for piece in layer.pieces())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 2 * size
    assert peak < size // 4
    assert list(tmp_path.iterdir()) == [tmp_path / "large"]
    del image
    assert open_descriptors() == before


@pytest.mark.parametrize("size", [0, 1, SPOOL_BYTES, SPOOL_BYTES + 1, 3 * SPOOL_BYTES])
def test_a_spool_returns_what_was_written(size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    spool = Spool()
    for start in range(0, size, 100_000):
        spool.write(content[start : start + 100_000])
    blob = spool.blob("a/b")
    assert (blob.size, blob.digest, blob.read()) == (size, digest_of(content), content)
    with blob.open() as one, blob.open() as two:
        assert one.read(10) == two.read(10) == content[:10]
        assert one.seek(-3, io.SEEK_END) == max(0, size - 3)
        assert one.read() == content[-3:]
    part = blob.section(size // 2, size // 4)
    assert part.read() == content[size // 2 : size // 2 + size // 4]


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    (tmp_path / "layer").write_bytes(b"12345")
    blob = Blob.from_file(tmp_path / "layer")
    (tmp_path / "layer").write_bytes(b"123")
    with pytest.raises(EOFError):
        blob.read()
