"""Clients push and pull a layer of several parts through a store that demands equal parts."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.integration.images import assert_layout_holds, image, noise
from tests.integration.servers import OURS, Bucket
from tests.support.manifests import digest_of
from tests.support.s3_servers import BUCKET, client
from twisted_registry.testing import write_layout

pytestmark = pytest.mark.integration

LAYER_BYTES = 45 * 1024 * 1024
CHUNK_BYTES = 10 * 1024 * 1024
COPY = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")


@pytest.fixture(scope="module")
def large_image():
    return image("equal parts", layers=1, size=LAYER_BYTES)


@pytest.fixture
def registry(launcher, object_stores):
    return launcher.start(OURS, Bucket(object_stores.get("strict"), uuid4().hex))


def assert_stored_in_parts(registry, digest):
    """Check that a blob is in the bucket, as one object made of parts of ``chunksize``."""
    name = digest.partition(":")[2]
    key = f"{registry.root.prefix}/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
    stored = client(registry.root.store).get_object(Bucket=BUCKET, Key=key)
    assert digest_of(stored["Body"].read()) == digest
    parts = -(-stored["ContentLength"] // CHUNK_BYTES)
    assert stored["ETag"].strip('"').endswith(f"-{parts}")


def test_skopeo(registry, sandbox, tmp_path, large_image):
    layout = tmp_path / "layout"
    write_layout(layout, {"1": large_image})
    target = f"docker://{registry.image('skopeo')}"
    sandbox.run("skopeo", *COPY, f"oci:{layout}:1", target)
    assert_stored_in_parts(registry, large_image.layers[0].digest)
    sandbox.run("skopeo", *COPY, target, f"oci:{tmp_path / 'back'}:1")
    assert_layout_holds(tmp_path / "back", large_image)


def test_oras(registry, sandbox):
    content = noise("oras, equal parts", LAYER_BYTES)
    (sandbox.home / "data.bin").write_bytes(content)
    sandbox.run("oras", "push", "--plain-http", registry.image("oras"), "data.bin")
    assert_stored_in_parts(registry, digest_of(content))
    sandbox.run("oras", "pull", "--plain-http", "-o", "out", registry.image("oras"))
    assert (sandbox.home / "out" / "data.bin").read_bytes() == content


def test_crane(registry, sandbox, tmp_path, large_image):
    layout = tmp_path / "layout"
    write_layout(layout, {"1": large_image})
    sandbox.run("crane", "push", "--insecure", layout, registry.image("crane"))
    assert_stored_in_parts(registry, large_image.layers[0].digest)
    back = tmp_path / "back"
    sandbox.run("crane", "pull", "--insecure", "--format=oci", registry.image("crane"), back)
    assert_layout_holds(back, large_image)
