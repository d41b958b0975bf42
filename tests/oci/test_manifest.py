"""Manifests: what is read from a document, and that a bad one is refused and no more."""

from __future__ import annotations

import json

import pytest

from tests.support.manifests import (
    CONFIG,
    LAYER,
    OTHER,
    artifact_document,
    descriptor,
    image_document,
    index_document,
    parse_document,
    without_key,
)
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.document import DocumentLimits
from twisted_registry.oci.manifest import (
    DOCKER_IMAGE,
    DOCKER_INDEX,
    KIND_BY_MEDIA_TYPE,
    OCI_ARTIFACT,
    OCI_IMAGE,
    OCI_INDEX,
    Descriptor,
    Manifest,
    ManifestInvalid,
    ManifestKind,
    declared_media_type,
    guess_media_type,
    parse_manifest,
    parse_pushed,
)

# What is read.


@pytest.mark.parametrize("media_type", [OCI_IMAGE, DOCKER_IMAGE])
def test_an_image_is_parsed(media_type):
    manifest = parse_document(image_document(), media_type)
    assert (manifest.media_type, manifest.kind) == (media_type, ManifestKind.IMAGE)
    assert manifest.config == Descriptor(CONFIG, Digest.of(b"{}"), 2)
    assert [layer.digest for layer in manifest.layers] == [Digest.of(b"one"), Digest.of(b"two")]
    assert manifest.blobs == (manifest.config, *manifest.layers)
    assert manifest.manifests == ()
    assert manifest.subject is manifest.artifact_type is manifest.annotations is None


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_is_parsed(media_type):
    platform = {"architecture": "arm", "os": "linux", "variant": "v7"}
    manifest = parse_document(
        index_document(manifests=[descriptor(b"child", OCI_IMAGE, platform=platform)]), media_type
    )
    assert (manifest.media_type, manifest.kind) == (media_type, ManifestKind.INDEX)
    (child,) = manifest.manifests
    assert (child.digest, child.platform) == (Digest.of(b"child"), platform)
    assert manifest.config is None
    assert manifest.blobs == manifest.layers == ()


def test_an_artifact_is_parsed():
    manifest = parse_document(artifact_document(artifactType="a/b", subject=descriptor(b"subject")))
    assert manifest.kind is ManifestKind.ARTIFACT
    assert [blob.digest for blob in manifest.blobs] == [Digest.of(b"one")]
    assert manifest.subject.digest == Digest.of(b"subject")
    assert parse_document({"mediaType": OCI_ARTIFACT}).blobs == ()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_digests_of_every_algorithm(algorithm):
    digest = Digest.of(b"x", algorithm)
    layer = {"mediaType": LAYER, "digest": str(digest), "size": 1}
    assert parse_document(image_document(layers=[layer]), OCI_IMAGE).layers[0].digest == digest


def test_layers_and_manifests_may_be_missing_null_or_empty():
    for layers in ({}, {"layers": None}, {"layers": []}):
        assert (
            parse_document({**without_key(image_document(), "layers"), **layers}, OCI_IMAGE).layers
            == ()
        )
    for manifests in ({}, {"manifests": None}, {"manifests": []}):
        document = {"schemaVersion": 2, **manifests}
        assert parse_document(document, OCI_INDEX).manifests == ()


def test_a_layer_with_urls_or_of_a_foreign_type_is_foreign():
    urls = ["https://example.org/layer"]
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    layers = [
        descriptor(urls=urls),
        descriptor(urls=[]),
        descriptor(b"x", foreign),
        descriptor(b"x", nondistributable),
    ]
    read = parse_document(image_document(layers=layers), OCI_IMAGE).layers
    assert [layer.is_foreign for layer in read] == [True, False, True, True]
    assert read[0].urls == tuple(urls)


# The media type.


def test_the_declared_type_is_used_without_content_type():
    assert parse_document(image_document(mediaType=DOCKER_IMAGE)).media_type == DOCKER_IMAGE
    assert parse_document({"mediaType": OTHER}).media_type == OTHER


def test_the_type_is_guessed_from_the_shape():
    assert parse_document(image_document()).media_type == OCI_IMAGE
    assert parse_document(index_document()).media_type == OCI_INDEX
    assert parse_document(image_document(mediaType="")).media_type == OCI_IMAGE
    assert guess_media_type(json.dumps(image_document()).encode()) == OCI_IMAGE
    assert guess_media_type(json.dumps(index_document()).encode()) == OCI_INDEX
    assert guess_media_type(b'{"config": []}') is None
    assert guess_media_type(b"text") is None


@pytest.mark.parametrize("content", [b"", b"text", b"{}", b"[]", b"5", b'{"config": 1}'])
def test_a_document_without_any_type_is_refused(content):
    with pytest.raises(ManifestInvalid):
        parse_manifest(content, None)


@pytest.mark.parametrize("media_type", [*KIND_BY_MEDIA_TYPE, OTHER])
def test_a_content_type_that_differs_from_the_declared_type_is_refused(media_type):
    with pytest.raises(ManifestInvalid, match="Content-Type"):
        parse_document(
            {**image_document(), "mediaType": "application/vnd.example.other"}, media_type
        )


@pytest.mark.parametrize("declared", [5, None, ["a"], {}, True])
def test_a_declared_type_that_is_not_a_string_is_refused(declared):
    if declared is None:
        assert parse_document(image_document(mediaType=None), OCI_IMAGE).media_type == OCI_IMAGE
        return
    for media_type in (None, OCI_IMAGE, OTHER):
        with pytest.raises(ManifestInvalid, match="mediaType"):
            parse_document({**image_document(), "mediaType": declared}, media_type)


BAD_TYPES = [
    "a/b\r\nSet-Cookie: x=y",
    "a/b\n",
    "a/b ",
    "a/b; charset=utf-8",
    "a",
    "/",
    "a/",
    "/b",
    "a/b/c",
    "\u00e9/\u00e9",
    "\ud800/b",
    "a/" + "b" * 128,
    "a" * 100_000,
]


@pytest.mark.parametrize("media_type", BAD_TYPES)
def test_a_media_type_that_is_invalid_in_a_header_is_refused(media_type):
    # It would be sent as the Content-Type of every later answer.
    content = json.dumps({"mediaType": media_type}).encode()
    for said in (None, media_type):
        with pytest.raises(ManifestInvalid, match="media type") as caught:
            parse_manifest(content, said)
        assert len(str(caught.value)) < 500
    assert declared_media_type(content) is None
    with pytest.raises(ManifestInvalid):
        parse_manifest(b"text", media_type)


def test_the_declared_type_of_a_stored_document():
    assert declared_media_type(json.dumps({"mediaType": OTHER}).encode()) == OTHER
    for content in (b"text", b"{}", b'{"mediaType": ""}', b'{"mediaType": 5}', b"[]"):
        assert declared_media_type(content) is None


# Documents that different clients would read in different ways.


@pytest.mark.parametrize("media_type", [OCI_IMAGE, DOCKER_IMAGE])
@pytest.mark.parametrize("manifests", [None, [], [descriptor(b"child", OCI_IMAGE)], "x"])
def test_an_image_with_manifests_is_refused(media_type, manifests):
    with pytest.raises(ManifestInvalid, match="manifests"):
        parse_document(image_document(manifests=manifests), media_type)


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
@pytest.mark.parametrize("extra", [{"layers": []}, {"config": None}, {"layers": [descriptor()]}])
def test_an_index_with_layers_or_config_is_refused(media_type, extra):
    with pytest.raises(ManifestInvalid, match="index"):
        parse_document(index_document(**extra), media_type)


@pytest.mark.parametrize(
    "text",
    [
        '{"schemaVersion": 2, "config": %s, "layers": [], "layers": [%s]}',
        '{"schemaVersion": 2, "config": %s, "config": %s}',
        '{"schemaVersion": 2, "schemaVersion": 1, "config": %s, "annotations": {"a": "%.0s"}}',
        '{"schemaVersion": 2, "config": %s, "annotations": {"a": "b", "a": "c%.0s"}}',
        '{"schemaVersion": 2, "config": %s, "layers": [%s], "mediaType": "", "mediaType": ""}',
    ],
)
def test_a_duplicate_key_is_refused(text):
    config = json.dumps(descriptor(b"{}", CONFIG))
    content = (text % (config, config)).encode()
    for media_type in (OCI_IMAGE, OTHER):
        with pytest.raises(ManifestInvalid, match="twice"):
            parse_pushed(content, media_type)


def test_a_stored_duplicate_key_is_read_as_clients_read_it():
    text = json.dumps(image_document(layers=[]))
    layers = json.dumps([descriptor(b"one")])
    content = text.replace('"layers": []', f'"layers": [], "layers": {layers}').encode()
    assert [layer.digest for layer in parse_manifest(content, None).layers] == [Digest.of(b"one")]
    with pytest.raises(ManifestInvalid):
        parse_pushed(content, None)


#: Values that take the place of a field for programs that ignore the case of keys.
FOLDED = [
    image_document(Layers=[]),
    image_document(Config=descriptor()),
    image_document(mediatype=OCI_IMAGE),
    image_document(SUBJECT=descriptor()),
    {**image_document(), "\u017fubject": descriptor()},
    image_document(ANNOTATIONS={}),
    image_document(config=descriptor(URLs=["https://x"])),
    image_document(layers=[descriptor(), descriptor(Digest="x")]),
    image_document(layers=[{"Urls": [], **descriptor()}]),
    image_document(subject=descriptor(MEDIATYPE="x")),
    image_document(artifactType="x", ARTIFACTTYPE="y"),
    image_document(extension={"a": 1, "A": 2}),
    image_document(layers=[descriptor(extension=[{"\u212a": 1, "k": 2}])]),
]


@pytest.mark.parametrize("document", FOLDED)
def test_a_key_that_differs_from_a_field_in_case_is_refused(document):
    content = json.dumps(document).encode()
    with pytest.raises(ManifestInvalid, match="case"):
        parse_pushed(content, OCI_IMAGE)
    parse_manifest(content, OCI_IMAGE)


@pytest.mark.parametrize(
    "document",
    [
        index_document(Manifests=[]),
        index_document(manifests=[descriptor(platform={"OS": "linux"})]),
        index_document(manifests=[descriptor(platform={"os": "linux", "O\u017f": "x"})]),
        index_document(manifests=[descriptor(Platform={})]),
    ],
)
def test_a_key_of_an_index_that_differs_from_a_field_in_case_is_refused(document):
    with pytest.raises(ManifestInvalid, match="case"):
        parse_pushed(json.dumps(document).encode(), OCI_INDEX)


def test_keys_of_annotations_and_unknown_types_are_free():
    annotations = {"a": "1", "A": "2", "Layers": "3"}
    layer = descriptor(annotations=annotations)
    document = image_document(annotations=annotations, layers=[layer])
    assert parse_pushed(json.dumps(document).encode(), OCI_IMAGE).annotations == annotations
    free = {"Config": 1, "config": 2, "a": {"b": 1, "B": 2}}
    assert parse_pushed(json.dumps(free).encode(), OTHER).kind is ManifestKind.OPAQUE
    for bad in ({"MediaType": OCI_IMAGE}, {"Subject": descriptor()},
                {"subject": descriptor(Digest="x")}):  # fmt: skip
        with pytest.raises(ManifestInvalid, match="case"):
            parse_pushed(json.dumps({**free, **bad}).encode(), OTHER)


def test_a_document_beyond_the_limits_is_refused():
    limits = DocumentLimits(depth=4, values=60)
    content = json.dumps(image_document()).encode()
    assert len(parse_pushed(content, OCI_IMAGE, limits).layers) == 2
    many = json.dumps(image_document(layers=[descriptor(b"x")] * 20)).encode()
    deep = json.dumps(image_document(extension=[[[[]]]])).encode()
    for bad, reason in ((many, "60 values"), (deep, "4 levels")):
        for media_type in (OCI_IMAGE, OTHER, None):
            with pytest.raises(ManifestInvalid, match=reason):
                parse_pushed(bad, media_type, limits)
        parse_manifest(bad, OCI_IMAGE)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_json_that_is_not_utf_8_is_refused(encoding):
    # RFC 8259 section 8.1. What Python's reader would guess, others refuse.
    content = json.dumps(image_document(annotations={"a": "\u00e9"}), ensure_ascii=False).encode(
        encoding
    )
    with pytest.raises(ManifestInvalid):
        parse_manifest(content, OCI_IMAGE)
    assert declared_media_type(content) is None


def test_a_lone_surrogate_is_refused():
    content = json.dumps(image_document(annotations={"a": "@"})).encode()
    with pytest.raises(ManifestInvalid):
        parse_manifest(content.replace(b"@", b"\xed\xa0\x80"), OCI_IMAGE)


# Shapes.


@pytest.mark.parametrize("version", [None, 1, 3, "2", True, 2.0, [2], 10**400])
def test_another_schema_version_is_refused(version):
    for document, media_type in ((image_document(), OCI_IMAGE), (index_document(), OCI_INDEX)):
        with pytest.raises(ManifestInvalid, match="schemaVersion"):
            parse_document({**document, "schemaVersion": version}, media_type)
    with pytest.raises(ManifestInvalid, match="schemaVersion"):
        parse_document(without_key(image_document(), "schemaVersion"), OCI_IMAGE)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"5", b'"x"', b"{", b"\xff", b"{}x"])
@pytest.mark.parametrize("media_type", KIND_BY_MEDIA_TYPE)
def test_content_that_is_not_a_json_object_is_refused(content, media_type):
    with pytest.raises(ManifestInvalid, match="JSON object"):
        parse_manifest(content, media_type)


BAD_DESCRIPTORS = [
    (None, ""),
    ("x", ""),
    ([], ""),
    (without_key(descriptor(), "mediaType"), ".mediaType"),
    (descriptor(media_type=5), ".mediaType"),
    (without_key(descriptor(), "digest"), ".digest"),
    (descriptor(digest=5), ".digest"),
    (descriptor(digest="sha256:x"), ".digest"),
    (descriptor(digest="md5:" + "a" * 32), ".digest"),
    (without_key(descriptor(), "size"), ".size"),
    (descriptor(size="1"), ".size"),
    (descriptor(size=1.0), ".size"),
    (descriptor(size=-1), ".size"),
    (descriptor(size=True), ".size"),
    (descriptor(size=2**63), ".size"),
    (descriptor(urls="https://x"), ".urls"),
    (descriptor(urls=[5]), ".urls"),
    (descriptor(platform=[]), ".platform"),
    (descriptor(platform={"os": []}), ".platform.os"),
    (descriptor(platform={"architecture": {}}), ".platform.architecture"),
    (descriptor(platform={"os": 5, "architecture": "arm"}), ".platform.os"),
]


@pytest.mark.parametrize(("bad", "where"), BAD_DESCRIPTORS)
def test_an_invalid_descriptor_is_named(bad, where):
    documents = [
        (image_document(layers=[descriptor(), bad]), OCI_IMAGE, "layers[1]"),
        (image_document(config=bad), DOCKER_IMAGE, "config"),
        (index_document(manifests=[descriptor(), bad]), OCI_INDEX, "manifests[1]"),
        (artifact_document(blobs=[descriptor(), bad]), OCI_ARTIFACT, "blobs[1]"),
    ]
    if bad is not None:
        documents.append((image_document(subject=bad), OCI_IMAGE, "subject"))
        documents.append((index_document(subject=bad), OCI_INDEX, "subject"))
    for document, media_type, name in documents:
        with pytest.raises(ManifestInvalid) as caught:
            parse_document(document, media_type)
        assert str(caught.value).startswith(f"{name}{where}:")


@pytest.mark.parametrize("value", ["x", {}, 5, True, ""])
def test_an_invalid_list_of_descriptors_is_refused(value):
    for document, media_type in (
        (image_document(layers=value), OCI_IMAGE),
        (index_document(manifests=value), OCI_INDEX),
        (artifact_document(blobs=value), OCI_ARTIFACT),
    ):
        with pytest.raises(ManifestInvalid, match="list"):
            parse_document(document, media_type)


def test_an_image_without_config_is_refused():
    with pytest.raises(ManifestInvalid, match="config"):
        parse_document(without_key(image_document(), "config"), OCI_IMAGE)


@pytest.mark.parametrize("value", ["x", [], 5, {"a": 5}, {"a": None}, {"a": {}}])
def test_annotations_that_are_not_strings_are_refused(value):
    with pytest.raises(ManifestInvalid, match="annotations"):
        parse_document(image_document(annotations=value), OCI_IMAGE)


@pytest.mark.parametrize("value", [5, [], {}, True])
def test_an_artifact_type_that_is_not_a_string_is_refused(value):
    with pytest.raises(ManifestInvalid, match="artifactType"):
        parse_document(image_document(artifactType=value), OCI_IMAGE)


# Types that nobody here knows.


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\xff\x00", b"[1]", b"[" * 100_000, b"9" * 9999]
)
def test_an_unknown_type_may_have_any_content(content):
    assert parse_manifest(content, OTHER) == Manifest(OTHER, ManifestKind.OPAQUE)


def test_an_unknown_type_may_have_a_subject():
    document = {"subject": descriptor(b"s"), "artifactType": "a/b", "annotations": {"k": "v"}}
    manifest = parse_document(document, OTHER)
    assert manifest.kind is ManifestKind.OPAQUE
    assert manifest.subject.digest == Digest.of(b"s")
    assert (manifest.artifact_type, manifest.annotations) == ("a/b", {"k": "v"})
    assert manifest.blobs == manifest.manifests == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": 5},
        {"subject": descriptor(digest="x")},
        {"annotations": [5]},
        {"artifactType": 5},
    ],
)
def test_invalid_fields_of_an_unknown_type_are_ignored(fields):
    assert parse_document({"layers": 5, "manifests": 5, **fields}, OTHER) == Manifest(
        OTHER, ManifestKind.OPAQUE
    )


# As a referrer (distribution specification, "Listing Referrers").

DIGEST = Digest.of(b"the manifest")


def referrer(document, media_type):
    return parse_document(document, media_type).referrer_descriptor(DIGEST, 12)


def test_a_referrer_descriptor_has_type_digest_and_size():
    assert referrer(index_document(), OCI_INDEX) == {
        "mediaType": OCI_INDEX,
        "digest": str(DIGEST),
        "size": 12,
    }


@pytest.mark.parametrize("fields", [{}, {"artifactType": ""}, {"artifactType": None}])
def test_the_artifact_type_of_an_image_is_that_of_its_config(fields):
    assert referrer(image_document(**fields), OCI_IMAGE)["artifactType"] == CONFIG
    assert referrer(image_document(**fields), DOCKER_IMAGE)["artifactType"] == CONFIG


@pytest.mark.parametrize(
    ("document", "media_type"),
    [(index_document(), OCI_INDEX), (artifact_document(), OCI_ARTIFACT), ({}, OTHER)],
)
def test_other_kinds_have_no_default_artifact_type(document, media_type):
    assert "artifactType" not in referrer(document, media_type)
    assert "artifactType" not in referrer({**document, "artifactType": ""}, media_type)
    assert referrer({**document, "artifactType": "a/b"}, media_type)["artifactType"] == "a/b"


def test_the_artifact_type_of_an_image_overrides_that_of_its_config():
    assert referrer(image_document(artifactType="a/b"), OCI_IMAGE)["artifactType"] == "a/b"


def test_a_referrer_descriptor_has_the_annotations():
    annotations = {"org.example.k": "v", "": "\u00e9\U0001f600"}
    assert (
        referrer(image_document(annotations=annotations), OCI_IMAGE)["annotations"] == annotations
    )
    for none in ({}, None):
        assert "annotations" not in referrer(image_document(annotations=none), OCI_IMAGE)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused(constant):
    text = json.dumps(image_document(annotations={})).replace("{}", f'{{"a": {constant}}}')
    with pytest.raises(ManifestInvalid, match="JSON object"):
        parse_manifest(text.encode(), OCI_IMAGE)
