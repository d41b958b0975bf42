"""OCI image layouts and archives of ``docker save``: reading and writing.

A layout is a folder, or a tar archive of one (OCI image specification, image-layout.md). An archive
that is written here has a ``manifest.json`` as well, for ``docker load`` and ``podman load``.
Content stays in the files: layers are read piece by piece.
"""

from __future__ import annotations

import json
import os
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from attrs import evolve

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.manifest import DOCKER_IMAGE, DOCKER_INDEX, OCI_INDEX
from twisted_registry.testing.blobs import Blob, FileSection, Spool
from twisted_registry.testing.images import (
    DOCKER_CONFIG,
    DOCKER_LAYERS,
    AnyImage,
    Image,
    Index,
    all_images,
    encode,
    platform_of,
)
from twisted_registry.testing.layers import GZIP_MAGIC, decompressed, recognize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REF_NAME = "org.opencontainers.image.ref.name"
#: The full name of an image, in layouts of Docker and containerd.
IMAGE_NAME = "io.containerd.image.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
#: Bytes of a JSON document of a layout that are read, at most.
_MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
#: Indexes inside of each other.
_MAX_DEPTH = 8


class LayoutInvalid(ValueError):
    """The file or folder is not a layout, or it is incomplete; the message has the reason."""


def read_layout(path: str | os.PathLike[str]) -> dict[str, AnyImage]:
    """Read the images of a layout, or of an archive of ``docker save``.

    The files must stay unchanged as long as the images are used.

    :param path: a folder, or a tar archive, which may be compressed with gzip.
    :returns: the images by name: the full name that Docker and containerd give, otherwise the
        ``ref.name``, otherwise the digest.
    :raises LayoutInvalid: if it is not a layout, or content is missing.
    :raises OSError: if it cannot be read.
    """
    found = Path(path)
    store: _Store = _Folder(found) if found.is_dir() else _Archive(found)
    if store.find("index.json") is not None:
        return _read_index(store)
    if store.find("manifest.json") is not None:
        return _read_docker_archive(store)
    raise LayoutInvalid(f"{found} is not an image layout: it has no index.json or manifest.json")


def write_layout(path: str | os.PathLike[str], images: Mapping[str, AnyImage]) -> None:
    """Write a layout.

    :param path: a name that ends with ``.tar`` makes an archive, which replaces an existing one;
        another one a folder, which is made and may have a layout already: the images of these
        names are replaced, others stay.
    :param images: the images by name: a tag, or repository and tag such as ``app:1``.
    :raises OSError: if it cannot be written.
    """
    found = Path(path)
    if found.name.endswith(".tar"):
        _write_archive(found, images)
    else:
        _write_folder(found, images)


class _Store(Protocol):
    """The files of a layout."""

    def find(self, name: str) -> Blob | None:
        """Return a file without its digest, or None."""


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def find(self, name: str) -> Blob | None:
        path = self._root / name
        # Names come from the layout: they must not lead out of it.
        if not path.resolve().is_relative_to(self._root) or not path.is_file():
            return None
        return Blob("", path.stat().st_size, source=FileSection(path))


class _Archive:
    def __init__(self, path: Path) -> None:
        plain = _without_gzip(path)
        self._members: dict[str, Blob] = {}
        links: dict[str, str] = {}
        try:
            with plain.open() as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    name = os.path.normpath(member.name)
                    if member.isreg():
                        self._members[name] = plain.section(member.offset_data, member.size)
                    elif member.islnk():
                        links[name] = os.path.normpath(member.linkname)
                    elif member.issym():
                        # Archives of older versions of Docker name equal layers by links.
                        target = os.path.join(os.path.dirname(name), member.linkname)  # noqa: PTH118, PTH120
                        links[name] = os.path.normpath(target)
        except tarfile.TarError as error:
            raise LayoutInvalid(f"{path} is not a tar archive: {error}") from error
        for name, target in links.items():
            if target in self._members:
                self._members[name] = self._members[target]

    def find(self, name: str) -> Blob | None:
        return self._members.get(os.path.normpath(name))


def _without_gzip(path: Path) -> Blob:
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    whole = Blob("", path.stat().st_size, source=FileSection(path.resolve()))
    if not is_gzip:
        return whole
    spool = Spool()
    for piece in decompressed(whole.pieces()):
        spool.write(piece)
    return spool.blob()


def _read_json(store: _Store, name: str) -> Any:
    found = store.find(name)
    if found is None:
        raise LayoutInvalid(f"the layout has no {name}")
    if found.size > _MAX_DOCUMENT_BYTES:
        raise LayoutInvalid(f"{name} has {found.size} bytes")
    try:
        return json.loads(found.read())
    except ValueError as error:
        raise LayoutInvalid(f"{name} is not JSON: {error}") from error


def _read_index(store: _Store) -> dict[str, AnyImage]:
    index = _read_json(store, "index.json")
    images: dict[str, AnyImage] = {}
    for descriptor in _objects(index, "manifests"):
        images[str(_name_in(descriptor))] = _read_image(store, descriptor, 0)
    return images


def _read_image(store: _Store, descriptor: Mapping[str, Any], depth: int) -> AnyImage:
    if depth > _MAX_DEPTH:
        raise LayoutInvalid(f"more than {_MAX_DEPTH} indexes inside of each other")
    manifest = _read_blob(store, descriptor)
    if manifest is None:
        raise LayoutInvalid(f"the layout has no blob {descriptor.get('digest')}")
    manifest = Blob.from_bytes(manifest.read(), manifest.media_type)
    if manifest.digest != descriptor.get("digest") and descriptor["digest"].startswith("sha256:"):
        raise LayoutInvalid(f"the blob {descriptor['digest']} has the digest {manifest.digest}")
    manifest = evolve(manifest, digest=descriptor["digest"])
    document = json.loads(manifest.read())
    if manifest.media_type in {OCI_INDEX, DOCKER_INDEX}:
        listed = _objects(document, "manifests")
        # An index may list images of platforms that the layout leaves out.
        images = [_read_image(store, each, depth + 1) for each in listed if _is_stored(store, each)]
        return Index(manifest, tuple(images))
    blobs: dict[str, Blob] = {}
    for each in (
        document.get("config"),
        *_objects(document, "layers"),
        *_objects(document, "blobs"),
    ):
        if not isinstance(each, dict):
            continue
        blob = _read_blob(store, each)
        if blob is not None:
            blobs[blob.digest] = blob
        elif not each.get("urls"):
            raise LayoutInvalid(f"the layout has no blob {each.get('digest')}")
    return Image(manifest, tuple(blobs.values()), descriptor.get("platform"))


def _objects(document: Any, name: str) -> list[dict[str, Any]]:
    found = document.get(name) if isinstance(document, dict) else None
    return [each for each in found or () if isinstance(each, dict)]


def _is_stored(store: _Store, descriptor: Mapping[str, Any]) -> bool:
    return store.find(_blob_path(descriptor)) is not None


def _blob_path(descriptor: Mapping[str, Any]) -> str:
    try:
        digest = Digest.parse(str(descriptor.get("digest")))
    except DigestInvalid as error:
        raise LayoutInvalid(f"{descriptor.get('digest')!r} is not a digest: {error}") from error
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _read_blob(store: _Store, descriptor: Mapping[str, Any]) -> Blob | None:
    found = store.find(_blob_path(descriptor))
    if found is None:
        return None
    if found.size != descriptor.get("size"):
        raise LayoutInvalid(
            f"the blob {descriptor['digest']} has {found.size} bytes, its descriptor names"
            f" {descriptor.get('size')}"
        )
    return evolve(
        found,
        digest=descriptor["digest"],
        media_type=descriptor.get("mediaType", ""),
        annotations=descriptor.get("annotations") or {},
    )


def _read_docker_archive(store: _Store) -> dict[str, AnyImage]:
    """Read an archive of ``docker save`` before version 25, which has no index."""
    entries = _read_json(store, "manifest.json")
    images: dict[str, AnyImage] = {}
    for entry in entries if isinstance(entries, list) else ():
        config = Blob.from_bytes(_require(store, entry.get("Config")).read(), DOCKER_CONFIG)
        layers = [_docker_layer(_require(store, name)) for name in entry.get("Layers") or ()]
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_IMAGE,
            "config": config.descriptor,
            "layers": [layer.descriptor for layer in layers],
        }
        manifest = Blob.from_bytes(encode(document), DOCKER_IMAGE)
        blobs = {blob.digest: blob for blob in (config, *layers)}
        platform = platform_of(json.loads(config.read()))
        image = Image(manifest, tuple(blobs.values()), platform)
        for name in entry.get("RepoTags") or (image.digest,):
            images[name] = image
    return images


def _docker_layer(content: Blob) -> Blob:
    layer = recognize(content.hashed())
    return evolve(layer, media_type=DOCKER_LAYERS.get(layer.media_type, layer.media_type))


def _require(store: _Store, name: object) -> Blob:
    found = store.find(name) if isinstance(name, str) else None
    if found is None:
        raise LayoutInvalid(f"manifest.json names {name!r}, which the archive does not have")
    return found


def _write_folder(root: Path, images: Mapping[str, AnyImage]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for blob in _all_blobs(images):
        path = root / _blob_path(blob.descriptor)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        with _replaced(path) as file:
            for piece in blob.pieces():
                file.write(piece)
    (root / "oci-layout").write_bytes(_LAYOUT)
    index = root / "index.json"
    kept = []
    if index.exists():
        listed = _objects(json.loads(index.read_bytes()), "manifests")
        kept = [each for each in listed if _name_in(each) not in images]
    index.write_bytes(_make_index(kept, images))


def _write_archive(path: Path, images: Mapping[str, AnyImage]) -> None:
    # No folders, owners and times: equal images make an equal archive.
    with (
        _replaced(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in (
            ("oci-layout", _LAYOUT),
            ("index.json", _make_index([], images)),
            ("manifest.json", _make_docker_manifest(images)),
        ):
            _add_member(archive, name, Blob.from_bytes(content))
        for blob in _all_blobs(images):
            _add_member(archive, _blob_path(blob.descriptor), blob)


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears when it is complete, and not after an error."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _add_member(archive: tarfile.TarFile, name: str, blob: Blob) -> None:
    member = tarfile.TarInfo(name)
    member.size = blob.size
    with blob.open() as file:
        archive.addfile(member, file)


def _all_blobs(images: Mapping[str, AnyImage]) -> Iterator[Blob]:
    written = set()
    for root in images.values():
        for image in all_images(root):
            blobs = image.blobs if isinstance(image, Image) else ()
            for blob in (*blobs, image.manifest):
                if blob.digest not in written:
                    written.add(blob.digest)
                    yield blob


def _make_index(kept: list[dict[str, Any]], images: Mapping[str, AnyImage]) -> bytes:
    manifests = list(kept)
    for name, image in images.items():
        annotations = {} if name == image.digest else {REF_NAME: name}
        manifests.append(
            {**image.descriptor, **({"annotations": annotations} if annotations else {})}
        )
    return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


def _make_docker_manifest(images: Mapping[str, AnyImage]) -> bytes:
    """Return the ``manifest.json`` of ``docker save``, which lists images but no indexes."""
    entries: dict[str, dict[str, Any]] = {}
    for name, image in images.items():
        if not isinstance(image, Image) or image.platform is None:
            continue
        entry = entries.setdefault(
            image.digest,
            {
                "Config": _blob_path(image.config.descriptor),
                "RepoTags": [],
                "Layers": [_blob_path(layer.descriptor) for layer in image.layers],
            },
        )
        # Docker's names have a tag and no digest.
        if ":" in name and "@" not in name and name != image.digest:
            entry["RepoTags"].append(name)
    return encode(list(entries.values()))


def _name_in(descriptor: Mapping[str, Any]) -> object:
    annotations = descriptor.get("annotations") or {}
    return annotations.get(IMAGE_NAME) or annotations.get(REF_NAME) or descriptor.get("digest")
