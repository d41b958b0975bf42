"""What a stored document refers to, for the collector."""

from __future__ import annotations

import json

import pytest

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX, References, parse_references

A, B, C, D = (Digest.of(name) for name in (b"a", b"b", b"c", b"d"))
LONG = Digest.of(b"long", "sha512")


def part(digest, media_type="application/x"):
    return {"mediaType": media_type, "digest": str(digest), "size": 1}


def references(**document):
    return parse_references(json.dumps({"schemaVersion": 2, **document}).encode())


def test_references_of_an_image():
    found = references(
        mediaType=OCI_IMAGE,
        config=part(A),
        layers=[part(B), part(LONG)],
        subject=part(C, OCI_IMAGE),
        annotations={"built from": str(D)},
    )
    assert found == References(frozenset([A, B, LONG]), frozenset(), C)


def test_references_of_an_index():
    found = references(
        mediaType=OCI_INDEX, manifests=[part(A, OCI_IMAGE), part(B, OCI_INDEX), part(C)]
    )
    assert found == References(frozenset([A, B, C]), frozenset([A, B]), None)


def test_an_unknown_type_references_everything_that_looks_like_a_digest():
    found = references(
        mediaType="application/vnd.unknown+json", subject=part(A), a=[{"b": f"see {LONG}, {C}"}]
    )
    assert found == References(frozenset([A, C, LONG]), frozenset(), A)


@pytest.mark.parametrize("key", ["layers", "Layers", "LAYERS"])
def test_a_document_with_two_readings_references_everything(key):
    text = json.dumps({
        "schemaVersion": 2, "mediaType": OCI_IMAGE, "config": part(A), "layers": [part(B)],
        "subject": part(C, OCI_IMAGE), "@": [part(D)],
    })  # fmt: skip
    found = parse_references(text.replace('"@"', f'"{key}"').encode())
    assert found == References(frozenset([A, B, C, D]), frozenset(), C)


@pytest.mark.parametrize(
    "content",
    [
        f"\x00 {B} sha256:12 {B.hex} sha1:{B.hex}".encode(),
        json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": str(B)}]}).encode(),
        json.dumps({"schemaVersion": 3, "mediaType": OCI_IMAGE, "x": str(B)}).encode(),
    ],
)
def test_an_invalid_manifest_references_everything_that_looks_like_a_digest(content):
    assert parse_references(content) == References(frozenset([B]))
