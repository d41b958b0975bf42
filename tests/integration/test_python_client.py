"""python-dxf: a client library written in Python."""

from __future__ import annotations

import os

import pytest

from tests.integration.images import image, noise
from tests.support.manifests import digest_of

pytestmark = pytest.mark.integration


@pytest.fixture
def dxf(registry):
    """Return a function that opens a repository with python-dxf."""
    if os.environ.get("CI") == "true":
        import dxf as module
    else:
        module = pytest.importorskip("dxf")
    return lambda name: module.DXF(registry.address, name, insecure=True)


def test_dxf_pushes_and_pulls_blobs_and_aliases(registry, dxf, tmp_path):
    repository = dxf("dxf/blobs")
    data = noise("dxf", 2_000_000)
    (tmp_path / "data").write_bytes(data)
    digest = repository.push_blob(str(tmp_path / "data"))
    assert digest == digest_of(data)
    assert repository.blob_size(digest) == len(data)
    assert b"".join(repository.pull_blob(digest)) == data

    repository.set_alias("one", digest)
    assert repository.get_alias("one") == [digest]
    assert list(repository.list_aliases(iterate=True)) == ["one"]
    registry.remote.assert_complete("dxf/blobs", "one")


def test_dxf_reads_an_image_of_another_client(registry, dxf):
    made = image("dxf")
    registry.remote.push("dxf/image", made, "1")
    repository = dxf("dxf/image")
    assert repository.get_manifest("1").encode() == made.manifest.read()
    assert repository.get_digest("1") == made.config.digest


def test_dxf_deletes_a_blob(registry, dxf, tmp_path):
    repository = dxf("dxf/delete")
    (tmp_path / "data").write_bytes(b"short-lived")
    digest = repository.push_blob(str(tmp_path / "data"))
    repository.del_blob(digest)
    assert registry.remote.blob("dxf/delete", digest).status == 404
