"""Image layouts and archives of ``docker save``, read and written."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc

import pytest

from twisted_registry.testing.blobs import Blob
from twisted_registry.testing.images import build_image, build_index
from twisted_registry.testing.layouts import LayoutInvalid, read_layout, write_layout

IMAGE = build_image(files={"a": "1"})
INDEX = build_index([IMAGE, build_image(files={"b": "2"}, platform="linux/arm64")])


def content(image):
    found = {blob.digest: blob.read() for blob in getattr(image, "blobs", ())}
    for child in getattr(image, "images", ()):
        found |= content(child)
    return {**found, image.digest: image.manifest.read()}


@pytest.fixture(params=["folder", "layout.tar"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_what_was_written_is_read(path):
    write_layout(path, {"app:1": IMAGE, "all": INDEX})
    images = read_layout(path)
    assert {name: image.digest for name, image in images.items()} == {
        "app:1": IMAGE.digest,
        "all": INDEX.digest,
    }
    for name, image in {"app:1": IMAGE, "all": INDEX}.items():
        assert content(images[name]) == content(image)
    assert images["app:1"].platform == IMAGE.platform
    assert images["app:1"].layers[0].media_type == IMAGE.layers[0].media_type
    assert [each.platform for each in images["all"].images] == [
        each.platform for each in INDEX.images
    ]


def test_an_image_without_a_name_has_its_digest(path):
    write_layout(path, {IMAGE.digest: IMAGE})
    assert list(read_layout(path)) == [IMAGE.digest]


def test_equal_images_make_an_equal_archive(tmp_path):
    for name in ("one.tar", "two.tar"):
        write_layout(tmp_path / name, {"1": IMAGE})
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_gets_further_images(tmp_path):
    write_layout(tmp_path, {"1": IMAGE, "2": IMAGE})
    write_layout(tmp_path, {"2": INDEX})
    images = read_layout(tmp_path)
    assert {name: image.digest for name, image in images.items()} == {
        "1": IMAGE.digest,
        "2": INDEX.digest,
    }


def test_a_compressed_archive(tmp_path):
    write_layout(tmp_path / "a.tar", {"1": IMAGE})
    packed = tmp_path / "a.tgz"
    packed.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    assert content(read_layout(packed)["1"]) == content(IMAGE)


def test_an_archive_of_docker_save(tmp_path):
    """The form before Docker 25: plain layers, an equal layer is a link, no index."""
    layer = gzip.decompress(IMAGE.layers[0].read())
    with tarfile.open(tmp_path / "saved.tar", "w") as archive:
        for name, data in {
            "abc.json": IMAGE.config.read(),
            "1/layer.tar": layer,
            "manifest.json": json.dumps(
                [
                    {
                        "Config": "abc.json",
                        "RepoTags": ["app:1", "app:2"],
                        "Layers": ["1/layer.tar", "2/layer.tar"],
                    }
                ]
            ).encode(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("2/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../1/layer.tar"
        archive.addfile(link)
    images = read_layout(tmp_path / "saved.tar")
    assert list(images) == ["app:1", "app:2"]
    image = images["app:1"]
    assert image.platform == IMAGE.platform
    assert image.config.digest == IMAGE.config.digest
    assert [each.read() for each in image.layers] == [layer, layer]
    assert image.layers[0].media_type == "application/vnd.docker.image.rootfs.diff.tar"


def test_the_manifest_of_docker_save_names_images_with_a_repository(tmp_path):
    write_layout(tmp_path / "a.tar", {"app:1": IMAGE, "app:2": IMAGE, "3": INDEX})
    with tarfile.open(tmp_path / "a.tar") as archive:
        (entry,) = json.loads(archive.extractfile("manifest.json").read())
        assert entry["RepoTags"] == ["app:1", "app:2"]
        assert archive.extractfile(entry["Config"]).read() == IMAGE.config.read()
        assert [archive.extractfile(name).read() for name in entry["Layers"]] == [
            layer.read() for layer in IMAGE.layers
        ]


def test_an_index_may_leave_out_platforms(tmp_path):
    write_layout(tmp_path, {"1": INDEX})
    missing = INDEX.images[1].digest.partition(":")[2]
    (tmp_path / "blobs/sha256" / missing).unlink()
    (image,) = read_layout(tmp_path)["1"].images
    assert image.digest == IMAGE.digest


def _damage(tmp_path, how):
    write_layout(tmp_path, {"1": IMAGE})
    layer = tmp_path / "blobs/sha256" / IMAGE.layers[0].digest.partition(":")[2]
    manifest = tmp_path / "blobs/sha256" / IMAGE.digest.partition(":")[2]
    if how == "no layer":
        layer.unlink()
    elif how == "short layer":
        layer.write_bytes(b"x")
    elif how == "no manifest":
        manifest.unlink()
    elif how == "other manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b"sha256:", b"sha257:", 1))
    elif how == "no index":
        (tmp_path / "index.json").unlink()
    elif how == "no json":
        (tmp_path / "index.json").write_bytes(b"{")
    else:
        index = json.loads((tmp_path / "index.json").read_bytes())
        index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
        (tmp_path / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "how",
    [
        *("no layer", "short layer", "no manifest", "other manifest", "no index", "no json"),
        "no digest",
    ],
)
def test_damaged_layouts(tmp_path, how):
    _damage(tmp_path, how)
    with pytest.raises(LayoutInvalid):
        read_layout(tmp_path)


def test_a_layout_does_not_lead_out_of_its_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "index.json").symlink_to(tmp_path / "secret")
    with pytest.raises(LayoutInvalid, match=r"no index\.json"):
        read_layout(layout)


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(LayoutInvalid, match="tar"):
        read_layout(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["folder", "a.tar"])
def test_large_layers_are_not_held_in_memory(tmp_path, name):
    size = 48 * 1024 * 1024
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    image = build_image(layers=[tmp_path / "large"])
    tracemalloc.start()
    try:
        write_layout(tmp_path / name, {"1": image})
        (layer,) = read_layout(tmp_path / name)["1"].layers
        assert sum(map(len, layer.pieces())) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size // 4


def test_foreign_layers_may_be_missing(tmp_path):
    config = Blob.from_bytes(b"{}", "application/vnd.oci.image.config.v1+json")
    image = build_image(config=config)
    document = image.document
    digest = f"sha256:{'0' * 64}"
    document["layers"] = [
        {"mediaType": "a/b", "digest": digest, "size": 3, "urls": ["https://example.org/x"]}
    ]
    manifest = Blob.from_bytes(json.dumps(document).encode(), image.media_type)
    write_layout(tmp_path, {"1": type(image)(manifest, image.blobs)})
    assert read_layout(tmp_path)["1"].layers == ()


@pytest.mark.parametrize("name", ["folder", "a.tar"])
def test_a_failed_write_leaves_no_part(tmp_path, name):
    (tmp_path / "layer").write_bytes(b"12345")
    image = build_image(layers=[tmp_path / "layer"])
    (tmp_path / "layer").write_bytes(b"123")
    with pytest.raises(EOFError):
        write_layout(tmp_path / name, {"1": image})
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "a.tar").exists()


def test_an_image_by_digest_has_no_tag_for_docker(tmp_path):
    write_layout(tmp_path / "a.tar", {f"app@{IMAGE.digest}": IMAGE})
    with tarfile.open(tmp_path / "a.tar") as archive:
        (entry,) = json.loads(archive.extractfile("manifest.json").read())
    assert entry["RepoTags"] == []
