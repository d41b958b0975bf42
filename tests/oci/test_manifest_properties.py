"""Whatever comes in: a manifest or a refusal comes out."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.manifests import LAYER, OTHER, descriptor
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import (
    KIND_BY_MEDIA_TYPE,
    OCI_IMAGE,
    ManifestInvalid,
    ManifestKind,
    declared_media_type,
    guess_media_type,
    parse_document_type,
    parse_manifest,
    parse_pushed,
    parse_references,
)

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(
            [2, *KIND_BY_MEDIA_TYPE, str(Digest.of(b"x")), 10**30, "https://example.org"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
DESCRIPTOR = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.one_of(st.just(LAYER), JSON),
        "digest": st.one_of(st.just(str(Digest.of(b"x"))), JSON),
        "size": st.one_of(st.integers(0, 9), JSON),
        "urls": JSON,
        "platform": JSON,
    },
)
DESCRIPTORS = st.one_of(st.lists(st.one_of(st.just(descriptor()), DESCRIPTOR), max_size=3), JSON)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.one_of(st.just(2), JSON),
        "mediaType": st.one_of(st.sampled_from([*KIND_BY_MEDIA_TYPE, OTHER]), JSON),
        "config": st.one_of(st.just(descriptor()), DESCRIPTOR, JSON),
        "layers": DESCRIPTORS,
        "blobs": DESCRIPTORS,
        "manifests": DESCRIPTORS,
        "subject": st.one_of(st.just(descriptor()), DESCRIPTOR, JSON),
        "annotations": st.one_of(st.dictionaries(st.text(max_size=3), st.text(max_size=3)), JSON),
        "artifactType": JSON,
        "Layers": DESCRIPTORS,
    },
)
NESTED = [b'{"a":' * 100_000, b"[" * 1_000_000, b'{"config":' * 900 + b"{}" + b"}" * 900]
HOSTILE = st.one_of(
    st.binary(),
    st.one_of(DOCUMENT, JSON).map(lambda document: json.dumps(document).encode()),
    DOCUMENT.map(lambda document: json.dumps(document, ensure_ascii=False)).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ),
    st.sampled_from(
        [
            *NESTED,
            b'{"schemaVersion": 2, "config": {"size": ' + b"9" * 5000 + b"}}",
            b'{"schemaVersion": NaN}',
            b'{"schemaVersion": 2, "manifests": [Infinity]}',
            b'{"mediaType": "\\ud800/x"}',
            b'{"annotations": {"\\udfff": "\\ud800"}}',
        ]
    ),
)


@settings(max_examples=examples(400))
@given(HOSTILE, st.sampled_from([None, *KIND_BY_MEDIA_TYPE, OTHER, "", "\r\n"]))
@example(NESTED[0], OCI_IMAGE)
@example(NESTED[1], None)
@example(NESTED[2], None)
def test_any_document_is_parsed_or_refused(content, media_type):
    try:
        manifest = parse_manifest(content, media_type)
    except ManifestInvalid:
        return
    if media_type is not None:
        assert manifest.media_type == media_type
    manifest.media_type.encode("ascii")
    assert manifest.kind is KIND_BY_MEDIA_TYPE.get(manifest.media_type, ManifestKind.OPAQUE)
    for part in (*manifest.blobs, *manifest.manifests, *filter(None, [manifest.subject])):
        assert 0 <= part.size < 2**63
        assert isinstance(hash(tuple((part.platform or {}).get(key) for key in ("os",))), int)
    json.dumps(manifest.referrer_descriptor(Digest.of(content), len(content))).encode("ascii")


@settings(max_examples=examples(400))
@given(HOSTILE, st.sampled_from([None, *KIND_BY_MEDIA_TYPE, OTHER]))
@example(NESTED[0], OTHER)
def test_what_is_accepted_is_read_in_the_same_way_when_it_is_stored(content, media_type):
    try:
        manifest = parse_pushed(content, media_type)
    except ManifestInvalid:
        return
    assert parse_manifest(content, media_type) == manifest
    assert parse_document_type(content) == manifest.document_type
    if manifest.kind is not ManifestKind.OPAQUE:
        parts = {part.digest for part in (*manifest.blobs, *manifest.manifests)}
        assert parts <= parse_references(content).digests


@given(HOSTILE)
def test_any_stored_document_has_a_media_type_or_none(content):
    for found in (declared_media_type(content), guess_media_type(content)):
        assert found is None or "/" in found
