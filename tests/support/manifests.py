"""Builders of manifests: bytes to push, and documents to change."""

from __future__ import annotations

import hashlib
import json

from twisted_registry.oci.manifest import (
    DOCKER_IMAGE,
    DOCKER_INDEX,
    OCI_ARTIFACT,
    OCI_IMAGE,
    OCI_INDEX,
    parse_pushed,
)

__all__ = ["DOCKER_IMAGE", "DOCKER_INDEX", "OCI_ARTIFACT", "OCI_IMAGE", "OCI_INDEX"]

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
#: A media type that the registry does not know.
OTHER = "application/vnd.example.thing.v1+json"


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor(
    content: bytes = b"x", media_type: str = LAYER, algorithm: str = "sha256", **more
) -> dict:
    return {
        "mediaType": media_type,
        "digest": digest_of(content, algorithm),
        "size": len(content),
        **more,
    }


def image(config=b"{}", *layers, media_type: str | None = OCI_IMAGE, **more) -> bytes:
    """Return an image manifest over the given blobs."""
    document = {
        "schemaVersion": 2,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    if media_type is not None:
        document["mediaType"] = media_type
    return json.dumps(document).encode()


def index(*manifests, media_type: str | None = OCI_INDEX, **more) -> bytes:
    """Return an image index over the given descriptors."""
    document = {"schemaVersion": 2, "manifests": list(manifests), **more}
    if media_type is not None:
        document["mediaType"] = media_type
    return json.dumps(document).encode()


def image_document(**fields) -> dict:
    """Return an image with two layers, without ``mediaType``; ``fields`` replace its own."""
    return {**json.loads(image(b"{}", b"one", b"two", media_type=None)), **fields}


def index_document(**fields) -> dict:
    """Return an index with one child, without ``mediaType``; ``fields`` replace its own."""
    return {**json.loads(index(descriptor(b"child", OCI_IMAGE), media_type=None)), **fields}


def artifact_document(**fields) -> dict:
    """Return an OCI artifact manifest with one blob; ``fields`` replace its own."""
    return {"mediaType": OCI_ARTIFACT, "blobs": [descriptor(b"one")], **fields}


def parse_document(document: object, media_type: str | None = None):
    return parse_pushed(json.dumps(document).encode(), media_type)


def without_key(document: dict, key: str) -> dict:
    return {name: value for name, value in document.items() if name != key}
