"""Pushes images over HTTP to a registry that runs as a process."""

from __future__ import annotations

import hashlib
import json

IMAGE = "application/vnd.oci.image.manifest.v1+json"


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push(server, tag, layer):
    """Push an image whose config is its one layer, and return the digest of its manifest."""
    digest = sha256(layer)
    response, _ = server.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", layer)
    assert response.status == 201
    part = {"mediaType": "application/x", "digest": digest, "size": len(layer)}
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": IMAGE, "config": part, "layers": [part]}
    ).encode()
    response, _ = server.ask("PUT", f"/v2/a/manifests/{tag}", manifest, {"Content-Type": IMAGE})
    assert response.status == 201
    return sha256(manifest)
