"""The contents of a registry, without HTTP."""

from __future__ import annotations

import tracemalloc

import pytest
import pytest_twisted
from twisted.internet import reactor

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.contents import Contents, Reference
from twisted_registry.testing.images import build_image, build_index
from twisted_registry.testing.layouts import read_layout, write_layout

IMAGE = build_image(files={"a": "1" * 300_000})
INDEX = build_index([IMAGE, build_image(files={"b": "2"}, platform="linux/arm64")])


@pytest.fixture
def contents():
    return Contents(Registry(CheckedDriver(MemoryDriver(reactor), reactor), reactor))


@pytest_twisted.ensureDeferred
async def test_an_image_is_pushed_and_pulled(contents):
    assert await contents.push_image("app:1", IMAGE) == IMAGE.digest
    assert await contents.repositories() == ["app"]
    assert await contents.tags("app") == ["1"]
    manifest = await contents.manifest("app:1")
    assert (manifest.digest, manifest.media_type) == (IMAGE.digest, IMAGE.media_type)
    assert manifest.document == IMAGE.document
    for blob in IMAGE.blobs:
        assert await contents.blob("app", blob.digest) == blob.read()
    pulled = await contents.pull_image("app:1")
    assert pulled.platform == IMAGE.platform
    assert [blob.digest for blob in pulled.blobs] == [blob.digest for blob in IMAGE.blobs]
    assert [layer.media_type for layer in pulled.layers] == [
        layer.media_type for layer in IMAGE.layers
    ]


@pytest_twisted.ensureDeferred
async def test_an_index_is_pushed_and_pulled(contents):
    await contents.push_image("team/app", INDEX)
    assert await contents.tags("team/app") == ["latest"]
    pulled = await contents.pull_image("team/app")
    assert [image.digest for image in pulled.images] == [image.digest for image in INDEX.images]
    assert [image.platform for image in pulled.images] == [image.platform for image in INDEX.images]
    child = INDEX.images[1]
    assert (await contents.manifest(f"team/app@{child.digest}")).digest == child.digest


@pytest_twisted.ensureDeferred
async def test_a_push_by_digest_sets_no_tag(contents):
    await contents.push_image(f"app@{IMAGE.digest}", IMAGE)
    assert await contents.tags("app") == []
    with pytest.raises(ValueError, match="the image is"):
        await contents.push_image(f"app@{INDEX.digest}", IMAGE)


@pytest_twisted.ensureDeferred
async def test_what_is_missing(contents):
    assert await contents.repositories() == []
    assert await contents.tags("app") == []
    with pytest.raises(RegistryError) as missing:
        await contents.manifest("app:1")
    assert missing.value.code is ErrorCode.MANIFEST_UNKNOWN
    with pytest.raises(RegistryError) as missing:
        await contents.blob("app", IMAGE.digest)
    assert missing.value.code is ErrorCode.BLOB_UNKNOWN


@pytest_twisted.ensureDeferred
async def test_layouts_are_loaded_and_saved(contents, tmp_path):
    write_layout(tmp_path / "in", {"1": IMAGE, "example.org/team/app:2": INDEX})
    assert await contents.load_layout(tmp_path / "in", "app") == ["app:1", "app:2"]
    await contents.save_layout(tmp_path / "out.tar")
    assert {name: image.digest for name, image in read_layout(tmp_path / "out.tar").items()} == {
        "app:1": IMAGE.digest,
        "app:2": INDEX.digest,
    }
    await contents.save_layout(tmp_path / "one", "app:2")
    assert list(read_layout(tmp_path / "one")) == ["app:2"]
    with pytest.raises(ValueError, match="pass the repository"):
        await contents.load_layout(tmp_path / "in")
    assert await contents.load_layout(tmp_path / "out.tar") == ["app:1", "app:2"]


@pytest_twisted.ensureDeferred
async def test_an_image_without_a_tag_is_loaded_by_digest(contents, tmp_path):
    write_layout(tmp_path / "in", {IMAGE.digest: IMAGE})
    assert await contents.load_layout(tmp_path / "in", "app") == [f"app@{IMAGE.digest}"]
    assert (await contents.manifest(f"app@{IMAGE.digest}")).digest == IMAGE.digest


@pytest_twisted.ensureDeferred
async def test_all_pages_are_read(contents):
    for number in range(1200):
        await contents.registry.repository("app").tags.set(f"t{number:04}", _digest_of(IMAGE))
    assert len(await contents.tags("app")) == 1200


def _digest_of(blob):
    return Digest.parse(blob.digest)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("app", ("app", "latest", None)),
        ("app:1", ("app", "1", None)),
        ("team/app:1", ("team/app", "1", None)),
        ("127.0.0.1:5000/app:1", ("app", "1", None)),
        ("localhost/app", ("app", "latest", None)),
        ("registry.example/team/app:x", ("team/app", "x", None)),
        (f"app@{IMAGE.digest}", ("app", None, IMAGE.digest)),
        (f"app:1@{IMAGE.digest}", ("app", "1", IMAGE.digest)),
    ],
)
def test_references(text, parts):
    found = Reference.parse(text)
    assert (found.repository, found.tag, found.digest) == parts


@pytest.mark.parametrize("text", ["", "App", "app:a b", "app@sha256:1", "a//b", ":1"])
def test_malformed_references(text):
    with pytest.raises(ValueError, match="is not an image such as"):
        Reference.parse(text)


@pytest.fixture(params=["memory", "filesystem"])
def any_contents(request, tmp_path):
    driver = MemoryDriver(reactor)
    if request.param == "filesystem":
        driver = FilesystemDriver(str(tmp_path / "store"), reactor)
    yield Contents(Registry(CheckedDriver(driver, reactor), reactor))
    pytest_twisted.blockon(driver.close())


@pytest_twisted.ensureDeferred
async def test_a_snapshot_is_restored(any_contents):
    contents = any_contents
    large = build_image(files={"a": "1" * 2_000_000})
    await contents.push_image("app:1", large)
    await contents.push_image("team/app:1", INDEX)
    snapshot = await contents.snapshot()
    for _ in range(2):
        await contents.push_image("app:2", build_image(files={"c": "3"}))
        await contents.push_image("app:1", IMAGE)
        await contents.push_image("team/app/other", IMAGE)
        await contents.push_image("another", IMAGE)
        referrer = build_image(subject=large, artifact_type="a/b")
        await contents.push_image(f"app@{referrer.digest}", referrer)
        await contents.registry.repository("team/app").delete()
        await contents.registry.driver.delete(layout.blob_data(_digest_of(large.layers[0])))
        await contents.restore(snapshot)
        assert await contents.repositories() == ["app", "team/app"]
        assert await contents.tags("app") == ["1"]
        pulled = await contents.pull_image("app:1")
        assert [blob.read() for blob in pulled.blobs] == [blob.read() for blob in large.blobs]
        assert (await contents.pull_image("team/app:1")).digest == INDEX.digest
        with pytest.raises(RegistryError):
            await contents.manifest(f"app@{referrer.digest}")


@pytest_twisted.ensureDeferred
async def test_an_empty_registry_is_restored(any_contents):
    snapshot = await any_contents.snapshot()
    await any_contents.push_image("team/app", IMAGE)
    await any_contents.restore(snapshot)
    assert await any_contents.repositories() == []
    await any_contents.push_image("team/app", IMAGE)
    assert (await any_contents.manifest("team/app")).digest == IMAGE.digest


@pytest_twisted.ensureDeferred
async def test_large_layers_are_not_held_in_memory(tmp_path):
    size = 48 * 1024 * 1024
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    image = build_image(layers=[tmp_path / "large"])
    driver = FilesystemDriver(str(tmp_path / "store"), reactor)
    contents = Contents(Registry(CheckedDriver(driver, reactor), reactor))
    tracemalloc.start()
    try:
        await contents.push_image("app:1", image)
        await contents.save_layout(tmp_path / "app.tar")
        await contents.load_layout(tmp_path / "app.tar", "copy")
        snapshot = await contents.snapshot()
        await contents.registry.driver.delete(layout.blob_data(_digest_of(image.layers[0])))
        await contents.restore(snapshot)
        pulled = await contents.pull_image("copy:1")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        await driver.close()
    assert pulled.layers[0].digest == image.layers[0].digest
    assert peak < size // 3
