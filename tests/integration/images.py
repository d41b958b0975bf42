"""Small reproducible images.

No base image is downloaded: a layer is a gzip'ed tar of a few files with fixed times. An image is
its manifest, as bytes, with the blobs and child images that it references.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "2001-02-03T04:05:06Z"


def sha256(data: bytes) -> str:
    """Return the digest of ``data``, in the format of the specification."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def noise(seed: object, size: int) -> bytes:
    """Return ``size`` incompressible bytes, equal for equal seeds."""
    return random.Random(str(seed)).randbytes(size)


def encode(document: object) -> bytes:
    """Encode a JSON document reproducibly."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


@frozen
class Image:
    """A manifest with all that it references; an index has ``children`` and no blobs."""

    media_type: str
    manifest: bytes
    blobs: Mapping[str, bytes] = field(factory=dict)
    children: Sequence[Image] = ()

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return sha256(self.manifest)

    @property
    def descriptor(self) -> dict[str, object]:
        """The descriptor of this image in an index or a layout."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.manifest),
        }

    def walk(self) -> Iterator[Image]:
        """Yield the children, then the image: the order of a push."""
        for child in self.children:
            yield from child.walk()
        yield self


def tarball(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed layer with these files, with fixed times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mtime = 981173106
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def image(
    seed: object,
    *,
    architecture: str = "amd64",
    layers: int = 2,
    size: int = 2000,
    docker: bool = False,
) -> Image:
    """Return an image of ``layers`` layers, each with ``size`` incompressible bytes."""
    tars = [tarball({f"file-{n}": noise((seed, n), size)}) for n in range(layers)]
    config = encode(
        {
            "architecture": architecture,
            "os": "linux",
            "created": CREATED,
            "config": {"Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
            "history": [{"created": CREATED, "created_by": f"layer {n}"} for n in range(layers)],
        }
    )
    packed = [gzip.compress(tar, mtime=0) for tar in tars]
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {
                "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
                "digest": sha256(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": DOCKER_LAYER if docker else OCI_LAYER,
                    "digest": sha256(layer),
                    "size": len(layer),
                }
                for layer in packed
            ],
        }
    )
    return Image(media_type, manifest, {sha256(blob): blob for blob in (config, *packed)})


def index(
    seed: object,
    architectures: Sequence[str] = ("amd64", "arm64"),
    *,
    size: int = 2000,
    docker: bool = False,
) -> Image:
    """Return an index of images for several architectures, each with two layers of ``size``."""
    children = [
        image((seed, architecture), architecture=architecture, size=size, docker=docker)
        for architecture in architectures
    ]
    media_type = DOCKER_LIST if docker else OCI_INDEX
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [
                {
                    **child.descriptor,
                    "platform": {"architecture": architecture, "os": "linux"},
                }
                for architecture, child in zip(architectures, children, strict=True)
            ],
        }
    )
    return Image(media_type, manifest, children=children)


def referrer(subject: Image, text: str, artifact_type: str = "application/x-note") -> Image:
    """Return an artifact with content ``text`` that refers to ``subject``."""
    blob = text.encode()
    empty = b"{}"
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": sha256(empty),
                "size": len(empty),
            },
            "layers": [{"mediaType": "text/plain", "digest": sha256(blob), "size": len(blob)}],
            "subject": subject.descriptor,
            "annotations": {"note": text},
        }
    )
    return Image(OCI_MANIFEST, manifest, {sha256(empty): empty, sha256(blob): blob})


def write_layout(folder: Path, images: Mapping[str, Image]) -> Path:
    """Write an OCI image layout with ``images`` under their names; return ``folder``."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for top in images.values():
        for each in top.walk():
            for data in (each.manifest, *each.blobs.values()):
                (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entries = [{**top.descriptor, "annotations": {REF_NAME: name}} for name, top in images.items()]
    (folder / "index.json").write_bytes(encode({"schemaVersion": 2, "manifests": entries}))
    return folder


def read_layout(folder: Path, name: str) -> tuple[str, bytes]:
    """Return the media type and the bytes of the manifest ``name`` in a layout."""
    entries = json.loads((folder / "index.json").read_bytes())["manifests"]
    (entry,) = [e for e in entries if e.get("annotations", {}).get(REF_NAME) == name]
    return entry["mediaType"], layout_blob(folder, entry["digest"])


def layout_blob(folder: Path, digest: str) -> bytes:
    """Return a blob of a layout.

    :raises FileNotFoundError: if the layout does not have it.
    """
    return folder.joinpath("blobs", *digest.split(":")).read_bytes()


def assert_layout_holds(folder: Path, top: Image) -> None:
    """Check that the layout contains all of ``top``, unchanged."""
    for each in top.walk():
        assert layout_blob(folder, each.digest) == each.manifest
        for digest, blob in each.blobs.items():
            assert layout_blob(folder, digest) == blob


def write_archive(path: Path, name: str, *, seed: object, layers: int = 2) -> Path:
    """Write a ``docker save`` archive with one image, ``name``; return its path."""
    tars = [tarball({f"file-{n}": noise((seed, n), 2000)}) for n in range(layers)]
    config = encode(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
            "history": [{"created": CREATED} for _ in tars],
        }
    )
    files = {f"{n}/layer.tar": tar for n, tar in enumerate(tars)}
    files["config.json"] = config
    files["manifest.json"] = encode(
        [
            {
                "Config": "config.json",
                "RepoTags": [name],
                "Layers": [f"{n}/layer.tar" for n in range(layers)],
            }
        ]
    )
    path.write_bytes(tarball(files))
    return path
