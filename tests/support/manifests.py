"""Manifests of each kind, as documents to be changed and read."""

from __future__ import annotations

import json

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_ARTIFACT, OCI_IMAGE, parse_manifest

OTHER = "application/vnd.example.thing.v1+json"
CONFIG = "application/vnd.example.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def entry(content=b"x", media_type=LAYER, **fields):
    return {
        "mediaType": media_type,
        "digest": str(Digest.of(content)),
        "size": len(content),
        **fields,
    }


def image(**fields):
    return {
        "schemaVersion": 2,
        "config": entry(b"{}", CONFIG),
        "layers": [entry(b"one"), entry(b"two")],
        **fields,
    }


def index(**fields):
    return {"schemaVersion": 2, "manifests": [entry(b"child", OCI_IMAGE)], **fields}


def artifact(**fields):
    return {"mediaType": OCI_ARTIFACT, "blobs": [entry(b"one")], **fields}


def parse(document, media_type=None):
    return parse_manifest(json.dumps(document).encode(), media_type)


def without(document, key):
    return {name: value for name, value in document.items() if name != key}
