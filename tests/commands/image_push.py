"""Pushes images over HTTP to a registry that runs as a process."""

from __future__ import annotations

from twisted_registry.testing import Blob, Image, build_image


def image_of(layer: bytes) -> Image:
    """Return an image whose config is its one layer."""
    blob = Blob.from_bytes(layer, "application/x")
    return build_image(layers=[blob], config=blob)


def push(server, tag, layer):
    """Push an image whose config is its one layer, and return the digest of its manifest."""
    made = image_of(layer)
    target = f"/v2/a/blobs/uploads/?digest={made.config.digest}"
    response, _ = server.ask("POST", target, layer)
    assert response.status == 201
    headers = {"Content-Type": made.media_type}
    response, _ = server.ask("PUT", f"/v2/a/manifests/{tag}", made.manifest.read(), headers)
    assert response.status == 201
    return made.digest
