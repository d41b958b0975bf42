"""Images and indexes, built without Docker and without a base image.

::

    image = build_image(files={"/etc/motd": "hello"}, config={"Cmd": ["/bin/sh"]})
    both = build_index([image, build_image(platform="linux/arm64")])

Equal arguments make equal digests, on every machine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Factory, evolve, field, frozen

from twisted_registry.oci.manifest import DOCKER_IMAGE, DOCKER_INDEX, OCI_IMAGE, OCI_INDEX
from twisted_registry.testing.blobs import Blob
from twisted_registry.testing.layers import (
    OCI_TAR,
    OCI_TAR_GZIP,
    Entry,
    LayerSource,
    diff_id_of,
    make_layer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYERS = {
    OCI_TAR: "application/vnd.docker.image.rootfs.diff.tar",
    OCI_TAR_GZIP: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
_EPOCH = "1970-01-01T00:00:00Z"


@frozen
class Image:
    """An image or an artifact: its manifest, and the blobs that it refers to.

    :ivar manifest: the manifest, with its media type.
    :ivar blobs: the configuration and the layers, in the order of the manifest. Layers that clients
        download from elsewhere are left out.
    :ivar platform: the platform in the descriptor of an index; None for an artifact.
    """

    manifest: Blob
    blobs: tuple[Blob, ...] = ()
    platform: Mapping[str, str] | None = None

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return self.manifest.digest

    @property
    def media_type(self) -> str:
        """The media type of the manifest."""
        return self.manifest.media_type

    @property
    def document(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        found: dict[str, Any] = json.loads(self.manifest.read())
        return found

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor of the manifest."""
        found = self.manifest.descriptor
        if artifact_type := self.document.get("artifactType"):
            found["artifactType"] = artifact_type
        if self.platform is not None:
            found["platform"] = dict(self.platform)
        return found

    @property
    def config(self) -> Blob:
        """The configuration.

        :raises LookupError: if the manifest has none.
        """
        digest = self.document.get("config", {}).get("digest")
        for blob in self.blobs:
            if blob.digest == digest:
                return blob
        raise LookupError("the manifest has no configuration")

    @property
    def layers(self) -> tuple[Blob, ...]:
        """The layers."""
        wanted = [layer["digest"] for layer in self.document.get("layers", ())]
        known = {blob.digest: blob for blob in self.blobs}
        return tuple(known[digest] for digest in wanted if digest in known)


@frozen
class Index:
    """An index: its manifest, and the images that it lists.

    :ivar manifest: the index, with its media type.
    :ivar images: the listed images and indexes, as far as they are known.
    """

    manifest: Blob
    images: tuple[Image | Index, ...] = field(default=Factory(tuple))

    @property
    def digest(self) -> str:
        """The digest of the index."""
        return self.manifest.digest

    @property
    def media_type(self) -> str:
        """The media type of the index."""
        return self.manifest.media_type

    @property
    def document(self) -> dict[str, Any]:
        """The index as JSON values."""
        found: dict[str, Any] = json.loads(self.manifest.read())
        return found

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor of the index."""
        found = self.manifest.descriptor
        if artifact_type := self.document.get("artifactType"):
            found["artifactType"] = artifact_type
        return found


#: What can be pushed under a tag.
AnyImage: TypeAlias = "Image | Index"


def build_image(
    files: Mapping[str, Entry] | None = None,
    layers: Iterable[LayerSource] = (),
    *,
    platform: str = "linux/amd64",
    config: Mapping[str, Any] | Blob | None = None,
    subject: AnyImage | Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    artifact_type: str | None = None,
    compress: bool = False,
    docker: bool = False,
    created: str = _EPOCH,
) -> Image:
    """Build an image, or an artifact.

    :param files: the content of one layer, above ``layers``: for each path text, bytes, the
        ``pathlib.Path`` of a file, a ``File`` with permissions, a ``Symlink``, a ``Folder`` with
        permissions, or None for a folder. Folders above a path are added.
    :param layers: further layers, the lowest first: the files of one by path, bytes or the
        ``pathlib.Path`` of a finished layer, or a ``Blob``.
    :param platform: ``os/architecture`` or ``os/architecture/variant``.
    :param config: the execution parameters, such as ``Cmd``, ``Env`` and ``Labels`` (OCI image
        specification, config.md, property ``config``); a ``Blob`` is the whole configuration.
    :param subject: the image that this one refers to, or its descriptor.
    :param annotations: annotations of the manifest.
    :param artifact_type: makes an artifact: its configuration is empty unless ``config`` is a blob.
    :param compress: compress the layers of files with zlib; the digest then depends on its version.
        Otherwise they are gzip files of stored blocks.
    :param docker: use the media types of Docker (image manifest version 2, schema 2).
    :param created: the time in the configuration of an image, as in RFC 3339.
    :raises ValueError: if the arguments contradict each other, or a path is not inside of a layer.
    :raises OSError: if a file cannot be read.
    """
    sources = [*layers, *(() if files is None else (files,))]
    made = [make_layer(source, compress=compress) for source in sources]
    if docker:
        if subject is not None or artifact_type is not None:
            raise ValueError("docker=True: manifests of Docker have no subject and artifact type")
        made = [
            evolve(
                layer,
                diff_id=diff_id_of(layer),
                media_type=DOCKER_LAYERS.get(layer.media_type, layer.media_type),
            )
            for layer in made
        ]
    where = _parse_platform(platform)
    if isinstance(config, Blob):
        configuration = config
    elif artifact_type is not None:
        if config is not None:
            raise ValueError("artifact_type: pass config as a Blob with the media type it has")
        configuration = Blob.from_bytes(b"{}", OCI_EMPTY)
        made = made or [configuration]
    else:
        configuration = _make_config(made, where, config or {}, created, docker=docker)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_IMAGE if docker else OCI_IMAGE,
    }
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    document["config"] = configuration.descriptor
    document["layers"] = [layer.descriptor for layer in made]
    _add_common(document, subject, annotations)
    blobs = {blob.digest: blob for blob in (configuration, *made)}
    return Image(
        Blob.from_bytes(encode(document), document["mediaType"]),
        tuple(blobs.values()),
        None if artifact_type is not None else where,
    )


def build_index(
    images: Sequence[AnyImage],
    *,
    subject: AnyImage | Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    artifact_type: str | None = None,
    docker: bool = False,
) -> Index:
    """Build an index (a manifest list) of images.

    :param images: images and indexes, in this order.
    :param subject: the image that the index refers to, or its descriptor.
    :param annotations: annotations of the index.
    :param artifact_type: the type of an artifact.
    :param docker: use the media type of Docker.
    """
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_INDEX if docker else OCI_INDEX,
    }
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    document["manifests"] = [image.descriptor for image in images]
    _add_common(document, subject, annotations)
    return Index(Blob.from_bytes(encode(document), document["mediaType"]), tuple(images))


def all_images(image: AnyImage) -> Iterator[AnyImage]:
    """Yield what an index lists, at any depth, and the image itself last."""
    if isinstance(image, Index):
        for child in image.images:
            yield from all_images(child)
    yield image


def encode(document: object) -> bytes:
    """Encode a JSON document, always in the same way."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def platform_of(config: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the platform that the configuration of an image names, or None."""
    names = {"architecture": "architecture", "os": "os", "variant": "variant"}
    found = {key: config[name] for name, key in names.items() if isinstance(config.get(name), str)}
    return found if "os" in found and "architecture" in found else None


def _parse_platform(text: str) -> dict[str, str]:
    system, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    if not (system and architecture):
        raise ValueError(f"platform {text!r} is not os/architecture or os/architecture/variant")
    found = {"architecture": architecture, "os": system}
    if variant:
        found["variant"] = variant
    return found


def _make_config(
    layers: Sequence[Blob],
    platform: Mapping[str, str],
    parameters: Mapping[str, Any],
    created: str,
    *,
    docker: bool,
) -> Blob:
    diff_ids = [diff_id_of(layer) for layer in layers]
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        if diff_id is None:
            raise ValueError(
                f"the diff ID of the zstd layer {layer.digest} cannot be computed here: pass it as"
                " a Blob with diff_id, or pass the whole configuration as a Blob"
            )
    document = {
        "created": created,
        **platform,
        "config": dict(parameters),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return Blob.from_bytes(encode(document), DOCKER_CONFIG if docker else OCI_CONFIG)


def _add_common(
    document: dict[str, Any],
    subject: AnyImage | Mapping[str, Any] | None,
    annotations: Mapping[str, str] | None,
) -> None:
    if subject is not None:
        found = subject.descriptor if isinstance(subject, Image | Index) else dict(subject)
        found.pop("platform", None)
        document["subject"] = found
    if annotations:
        document["annotations"] = dict(annotations)
