"""Parser of manifests: their kind, and the content that they reference.

A pushed document is refused if clients could read it in another way (:func:`parse_pushed`). A
stored one is read as clients read it (:func:`parse_manifest`).

Supported are manifest.md and image-index.md of the OCI image specification, and Docker image
manifests version 2, schema 2. A manifest is stored and served byte for byte, so nothing here writes
one. Manifests of unknown types are accepted as opaque, as the distribution specification requires.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.oci.document import (
    DocumentInvalid,
    DocumentLimits,
    check_keys,
    check_known_keys,
    fold_keys,
    load_object,
    load_pushed_object,
)
from twisted_registry.oci.media_types import is_media_type

if TYPE_CHECKING:
    from collections.abc import Mapping

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_PLUGIN_CONFIG = "application/vnd.docker.plugin.v1+json"

#: Media types of layers that are downloaded from their ``urls``; a registry need not store them.
FOREIGN_LAYER_PREFIXES = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.",
)

_DIGEST_RE = re.compile(
    "|".join(f"{name}:[0-9a-f]{{{length}}}" for name, length in ALGORITHMS.items()).encode()
)

#: Go programs read sizes as signed 64-bit numbers.
_SIZE_LIMIT_BYTES = 2**63

#: The fields of a document of any type, of a manifest, a descriptor and a platform.
_COMMON_FIELDS = fold_keys("mediaType", "artifactType", "subject", "annotations")
_MANIFEST_FIELDS = fold_keys(
    *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs"),
    *("subject", "annotations"),
)
_DESCRIPTOR_FIELDS = fold_keys(
    *("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")
)
_PLATFORM_FIELDS = fold_keys(
    *("architecture", "os", "os.version", "os.features", "variant", "features")
)
_NO_LIMITS = DocumentLimits(depth=2**63, values=2**63)


class ManifestKind(Enum):
    """The kind of a manifest, independent of its vendor."""

    IMAGE = "image"
    INDEX = "index"
    ARTIFACT = "artifact"
    OPAQUE = "opaque"


KIND_BY_MEDIA_TYPE = {
    OCI_IMAGE: ManifestKind.IMAGE,
    DOCKER_IMAGE: ManifestKind.IMAGE,
    OCI_INDEX: ManifestKind.INDEX,
    DOCKER_INDEX: ManifestKind.INDEX,
    OCI_ARTIFACT: ManifestKind.ARTIFACT,
}


class ManifestInvalid(ValueError):
    """The document does not match its media type, or exceeds a limit.

    :ivar limit: the limit that it exceeds, as in ``RegistryError``; empty for another reason.
    """

    def __init__(self, reason: str, limit: str = "") -> None:
        super().__init__(reason)
        self.limit = limit


@frozen
class DocumentType:
    """What a document says about its media type.

    :ivar declared: its ``mediaType``; None without a valid one: it may be pushed as any type.
    :ivar guessed: the OCI type that it looks like, or None.
    """

    declared: str | None = None
    guessed: str | None = None

    @property
    def fallback(self) -> str:
        """The type of a document that declares none, unless the repository has stored one.

        As CNCF Distribution reads it.
        """
        return self.guessed or OCI_IMAGE


@frozen
class Descriptor:
    """A reference to content (OCI image specification, descriptor.md).

    :ivar size: bytes.
    :ivar platform: the raw ``platform`` object of an index entry, or None.
    """

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Mapping[str, Any] | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether a registry need not store this layer."""
        return bool(self.urls) or self.media_type.startswith(FOREIGN_LAYER_PREFIXES)


@frozen
class Manifest:
    """A parsed manifest.

    :ivar media_type: as pushed.
    :ivar layers: the layers of an image, or the blobs of an artifact.
    :ivar manifests: the children of an index.
    :ivar annotations: top-level annotations, or None if there are none.
    :ivar document_type: what the document itself says of its type.
    """

    media_type: str
    kind: ManifestKind
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None
    document_type: DocumentType = field(default=DocumentType(), eq=False)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Configuration and layers, which are stored as blobs."""
        return self.layers if self.config is None else (self.config, *self.layers)

    def referrer_descriptor(self, digest: Digest, size: int) -> dict[str, object]:
        """Return the descriptor of this manifest for the referrers list of its subject.

        Distribution specification, "Listing Referrers": the artifact type of an image without one
        is the media type of its configuration; an index without one has none.

        :param size: of the manifest in bytes.
        """
        descriptor: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(digest),
            "size": size,
        }
        artifact_type = self.artifact_type
        if not artifact_type and self.kind is ManifestKind.IMAGE and self.config is not None:
            artifact_type = self.config.media_type
        if artifact_type:
            descriptor["artifactType"] = artifact_type
        if self.annotations:
            descriptor["annotations"] = dict(self.annotations)
        return descriptor


@frozen
class References:
    """The references of a stored document, for garbage collection.

    :ivar digests: all referenced content; for a document of unknown type, everything in it that
        looks like a digest.
    :ivar manifests: those of ``digests`` that are manifests with references of their own.
    """

    digests: frozenset[Digest]
    manifests: frozenset[Digest] = frozenset()
    subject: Digest | None = None


def parse_references(content: bytes) -> References:
    """Parse the references of a stored document; in doubt, return too many.

    A document that clients may read in another way counts as one of unknown type.
    """
    try:
        manifest = parse_pushed(content, None, _NO_LIMITS)
    except ManifestInvalid:
        return References(_find_digests(content), subject=parse_subject(content))
    subject = None if manifest.subject is None else manifest.subject.digest
    if manifest.kind is ManifestKind.OPAQUE:
        return References(_find_digests(content), subject=subject)
    return References(
        frozenset(part.digest for part in (*manifest.blobs, *manifest.manifests)),
        frozenset(
            child.digest for child in manifest.manifests if child.media_type in KIND_BY_MEDIA_TYPE
        ),
        subject,
    )


def _find_digests(content: bytes) -> frozenset[Digest]:
    found = (match.decode("ascii").split(":") for match in _DIGEST_RE.findall(content))
    return frozenset(Digest(algorithm, hexadecimal) for algorithm, hexadecimal in found)


def parse_manifest(content: bytes, media_type: str | None) -> Manifest:
    """Parse a stored manifest.

    :param media_type: the type that it was pushed with; None for the type that it declares.
    :raises ManifestInvalid: if the document does not match its type.
    """
    return _parse_document(load_object(content), media_type)


def parse_pushed(
    content: bytes, media_type: str | None, limits: DocumentLimits | None = None
) -> Manifest:
    """Parse a manifest that a client pushes.

    :param content: the bytes as pushed.
    :param media_type: the Content-Type without parameters; None for the type that the document
        declares.
    :param limits: of its structure; None for the defaults.
    :raises ManifestInvalid: if the document does not match its type, exceeds a limit, or could be
        read in more than one way.
    """
    try:
        document = load_pushed_object(content, limits or DocumentLimits())
        manifest = _parse_document(document, media_type)
        if document is not None:
            _check_field_names(document, manifest.kind)
    except DocumentInvalid as error:
        raise ManifestInvalid(str(error), error.limit) from error
    return manifest


def _parse_document(document: dict[str, Any] | None, media_type: str | None) -> Manifest:
    document_type = _type_of(document)
    declared = document.get("mediaType") if document is not None else None
    if declared == "":
        # Go programs write an empty string for a missing value.
        declared = None
    if declared is not None and not is_media_type(declared):
        raise ManifestInvalid("mediaType: a media type is expected")
    if media_type is None:
        media_type = declared or document_type.guessed
        if media_type is None:
            raise ManifestInvalid("neither Content-Type nor mediaType is set")
    elif not is_media_type(media_type):
        raise ManifestInvalid("the Content-Type is not a media type")
    elif declared and declared != media_type:
        raise ManifestInvalid(f"mediaType is {declared}, but the Content-Type says {media_type}")
    kind = KIND_BY_MEDIA_TYPE.get(media_type, ManifestKind.OPAQUE)
    if kind is ManifestKind.OPAQUE:
        return evolve(_parse_opaque(document, media_type), document_type=document_type)
    if document is None:
        raise ManifestInvalid("not a JSON object in UTF-8")
    _check_shape(document, kind)
    return Manifest(
        media_type,
        kind,
        config=_parse_descriptor(document["config"], "config")
        if kind is ManifestKind.IMAGE
        else None,
        layers=_parse_layers(document, kind),
        manifests=_parse_descriptors(document, "manifests") if kind is ManifestKind.INDEX else (),
        subject=_parse_subject(document),
        artifact_type=_parse_optional_string(document, "artifactType"),
        annotations=_parse_annotations(document),
        document_type=document_type,
    )


def parse_document_type(content: bytes) -> DocumentType:
    """Return what a stored document says about its media type."""
    return _type_of(load_object(content))


def parse_subject(content: bytes) -> Digest | None:
    """Return the digest of the subject of a stored document, or None."""
    try:
        subject = parse_manifest(content, None).subject
    except ManifestInvalid:
        return None
    return None if subject is None else subject.digest


def declared_media_type(content: bytes) -> str | None:
    """Return the media type that a stored document declares; see :class:`DocumentType`."""
    return parse_document_type(content).declared


def guess_media_type(content: bytes) -> str | None:
    """Return the OCI type that a document without ``mediaType`` looks like, or None."""
    return parse_document_type(content).guessed


def _type_of(document: dict[str, Any] | None) -> DocumentType:
    declared = document.get("mediaType") if document is not None else None
    return DocumentType(declared if is_media_type(declared) else None, _guess_media_type(document))


def _check_field_names(document: dict[str, Any], kind: ManifestKind) -> None:
    """Check that Go programs, which ignore the case of keys, read the same fields.

    In a document of unknown type, other objects may be maps of free keys.

    :raises DocumentInvalid: naming the keys.
    """
    names = ["subject"]
    if kind is ManifestKind.OPAQUE:
        check_known_keys(document, _COMMON_FIELDS, "the document")
    else:
        check_known_keys(document, _MANIFEST_FIELDS, "the manifest")
        check_keys(document)
        names += ["config", "layers", "manifests", "blobs"]
    for name in names:
        value = document.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                check_known_keys(item, _DESCRIPTOR_FIELDS, name)
                platform = item.get("platform")
                if isinstance(platform, dict):
                    check_known_keys(platform, _PLATFORM_FIELDS, f"{name}: platform")


def _guess_media_type(document: dict[str, Any] | None) -> str | None:
    if document is None:
        return None
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if isinstance(document.get("config"), dict):
        return OCI_IMAGE
    return None


def _parse_opaque(document: dict[str, Any] | None, media_type: str) -> Manifest:
    if document is None:
        return Manifest(media_type, ManifestKind.OPAQUE)
    try:
        subject = _parse_subject(document)
        annotations = _parse_annotations(document)
    except ManifestInvalid:
        # An unknown type may define these fields in another way.
        subject = annotations = None
    artifact_type = document.get("artifactType")
    return Manifest(
        media_type,
        ManifestKind.OPAQUE,
        subject=subject,
        artifact_type=artifact_type if isinstance(artifact_type, str) else None,
        annotations=annotations,
    )


def _check_shape(document: dict[str, Any], kind: ManifestKind) -> None:
    if kind is not ManifestKind.ARTIFACT:
        version = document.get("schemaVersion")
        if type(version) is not int or version != 2:
            raise ManifestInvalid("schemaVersion: 2 is expected")
    # Clients interpret a document that is both an image and an index in different ways
    # (CVE-2021-41190).
    if kind is ManifestKind.INDEX and ("layers" in document or "config" in document):
        raise ManifestInvalid("an index has neither config nor layers")
    if kind is ManifestKind.IMAGE:
        if "manifests" in document:
            raise ManifestInvalid("an image has no manifests")
        if "config" not in document:
            raise ManifestInvalid("config: a descriptor is expected")


def _parse_layers(document: dict[str, Any], kind: ManifestKind) -> tuple[Descriptor, ...]:
    if kind is ManifestKind.INDEX:
        return ()
    return _parse_descriptors(document, "layers" if kind is ManifestKind.IMAGE else "blobs")


def _parse_descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    items = document.get(key)
    if items is None:
        return ()
    if not isinstance(items, list):
        raise ManifestInvalid(f"{key}: a list is expected")
    return tuple(_parse_descriptor(item, f"{key}[{index}]") for index, item in enumerate(items))


def _parse_descriptor(item: object, where: str) -> Descriptor:
    if not isinstance(item, dict):
        raise ManifestInvalid(f"{where}: a descriptor is expected")
    media_type, text, size = item.get("mediaType"), item.get("digest"), item.get("size")
    if not isinstance(media_type, str):
        raise ManifestInvalid(f"{where}.mediaType: a string is expected")
    if not isinstance(text, str):
        raise ManifestInvalid(f"{where}.digest: a string is expected")
    try:
        digest = Digest.parse(text)
    except DigestInvalid as error:
        raise ManifestInvalid(f"{where}.digest: {error}") from error
    if type(size) is not int or not 0 <= size < _SIZE_LIMIT_BYTES:
        raise ManifestInvalid(f"{where}.size: a number of bytes is expected")
    urls = item.get("urls")
    if urls is None:
        urls = []
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise ManifestInvalid(f"{where}.urls: a list of strings is expected")
    return Descriptor(media_type, digest, size, tuple(urls), _parse_platform(item, where))


def _parse_platform(item: dict[str, Any], where: str) -> Mapping[str, Any] | None:
    platform = item.get("platform")
    if platform is None:
        return None
    if not isinstance(platform, dict):
        raise ManifestInvalid(f"{where}.platform: an object is expected")
    for key in ("architecture", "os"):
        value = platform.get(key)
        if value is not None and not isinstance(value, str):
            raise ManifestInvalid(f"{where}.platform.{key}: a string is expected")
    return platform


def _parse_subject(document: dict[str, Any]) -> Descriptor | None:
    subject = document.get("subject")
    return None if subject is None else _parse_descriptor(subject, "subject")


def _parse_optional_string(document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise ManifestInvalid(f"{key}: a string is expected")
    return value


def _parse_annotations(document: dict[str, Any]) -> Mapping[str, str] | None:
    annotations = document.get("annotations")
    if annotations is None:
        return None
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise ManifestInvalid("annotations: an object of strings is expected")
    return annotations
