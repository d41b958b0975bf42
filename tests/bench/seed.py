"""The same content for every server: pushed over HTTP, long lists written into its store."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from tests.bench import generator
from tests.bench.content import Blob, BlobMaker, push
from tests.bench.wire import MIB, Connection
from tests.integration.images import blobs_of, index
from tests.support.manifests import OCI_IMAGE, digest_of, image
from twisted_registry.testing.images import all_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from twisted_registry.testing import Index

REPOSITORY = "bench/image"
MANY = "bench/many"
MOUNTABLE = "bench/mountable"
TAGGED = "bench/tagged"
DELETABLE = "bench/deletable"
COPIED = "bench/copied"
TAG = "latest"
KIB = 1024
_REPOSITORIES = "docker/registry/v2/repositories"

#: Parts of the content that only some cases need.
Part = Literal[
    "small", "large", "many", "mountable", "lists", "deletable", "images", "bucket catalog"
]

#: Clients that push and pull the many blobs.
CLIENTS = 8


class SeedError(Exception):
    """A server refused the content; the message names the step."""


@frozen
class Sizes:
    """Sizes and numbers of the content; smaller for a quick run."""

    large: int
    tags: int
    deletable: int
    repositories: int
    page: int
    mounts: int
    images: int
    layer: int
    many: int
    bucket_repositories: int


FULL = Sizes(
    large=256 * MIB,
    tags=10_000,
    deletable=20_000,
    repositories=5_000,
    page=1_000,
    mounts=100,
    images=10,
    layer=MIB,
    many=1_000,
    bucket_repositories=250,
)
QUICK = Sizes(
    large=4 * MIB,
    tags=300,
    deletable=300,
    repositories=200,
    page=50,
    mounts=10,
    images=2,
    layer=20 * KIB,
    many=16,
    bucket_repositories=150,
)


def format_size(size: int) -> str:
    """Format a size, for example ``64 KiB``."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


@frozen
class Content:
    """The content of every server."""

    sizes: Sizes
    config: Blob = field(init=False, factory=lambda: BlobMaker(2 * KIB).make("config"))
    #: By their sizes in bytes, the large one last.
    layers: Mapping[int, Blob] = field(init=False)
    mountable: list[Blob] = field(init=False)
    manifest: bytes = field(init=False)

    @layers.default
    def _layers(self) -> Mapping[int, Blob]:
        sizes = (4 * KIB, 64 * KIB, MIB, self.sizes.large)
        return {size: BlobMaker(size).make("layer") for size in sizes}

    @mountable.default
    def _mountable(self) -> list[Blob]:
        maker = BlobMaker(KIB)
        return [maker.make(f"mountable {number}") for number in range(self.sizes.mounts)]

    @manifest.default
    def _manifest(self) -> bytes:
        return image(b"".join(self.config.parts), b"".join(self.layers[64 * KIB].parts))

    @property
    def manifest_digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def large(self) -> Blob:
        """The large layer."""
        return self.layers[self.sizes.large]

    @property
    def tags(self) -> list[str]:
        """The tags of the repository with many, in order."""
        return _tags(self.sizes.tags)

    @property
    def many(self) -> list[Blob]:
        """Small blobs, labelled as the clients of a push label them."""
        maker = BlobMaker(4 * KIB)
        return [maker.make(f"many {number}") for number in range(self.sizes.many)]

    @property
    def repositories(self) -> list[str]:
        """The repositories that fill the catalog, in order."""
        return [f"catalog/r{number:06}" for number in range(self.sizes.repositories)]

    @property
    def bucket_repositories(self) -> list[str]:
        """The repositories that fill the catalog of a bucket, in order."""
        return self.repositories[: self.sizes.bucket_repositories]

    def images(self, seed: str) -> dict[str, Index]:
        """Return images of two architectures by tag; each seed gives other bytes."""
        return _images(seed, self.sizes.images, self.sizes.layer)

    def blobs(self, part: Part) -> Iterable[Blob]:
        """Return the layers of a part."""
        large = self.sizes.large
        return [blob for size, blob in self.layers.items() if (size == large) == (part == "large")]


def _tags(count: int) -> list[str]:
    return [f"v{number:06}" for number in range(count)]


# All servers of a round get the same images; they are too large to cache more.
@lru_cache(maxsize=2)
def _images(seed: str, count: int, size: int) -> dict[str, Index]:
    return {str(number): index((seed, number), size=size) for number in range(count)}


def fill(server, content: Content, part: Part) -> None:
    """Store a part of the content on a server, unless the server has it.

    :raises SeedError: if the server refuses it.
    """
    if part in server.seeded:
        return
    server.seeded.add(part)
    if server.serves == "files":
        _write_files(server.store, content, part)
    elif server.serves == "registry":
        if part == "lists":
            _write_lists(server.store, content)
        elif part == "bucket catalog":
            server.bucket.put(_repository_links(content))
        elif part == "many":
            _push_many(server, content)
        else:
            if part == "deletable":
                _write_tags(server.store, DELETABLE, _tags(content.sizes.deletable), content)
            _push(server, content, part)


def _write_lists(store: Path, content: Content) -> None:
    _write_tags(store, TAGGED, content.tags, content)
    for name in content.repositories:
        (store / _REPOSITORIES / name / "_layers").mkdir(parents=True)


def _repository_links(content: Content) -> Iterable[tuple[str, bytes]]:
    """Return the links of a layer and a manifest in each repository of the bucket's catalog."""
    digest = content.manifest_digest
    folder = digest.replace(":", "/")
    for name in content.bucket_repositories:
        for links in ("_layers", "_manifests/revisions"):
            yield f"{_REPOSITORIES}/{name}/{links}/{folder}/link", digest.encode()


def _write_tags(store: Path, repository: str, tags: Iterable[str], content: Content) -> None:
    tagged = store / _REPOSITORIES / repository
    (tagged / "_layers").mkdir(parents=True)
    for tag in tags:
        folder = tagged / "_manifests/tags" / tag / "current"
        folder.mkdir(parents=True)
        (folder / "link").write_text(content.manifest_digest)


def _write_files(root: Path, content: Content, part: Part) -> None:
    """Write manifests and blobs as plain files, at the paths of a registry's URLs."""
    manifests, blobs = (root / "v2" / REPOSITORY / name for name in ("manifests", "blobs"))
    if part == "small":
        manifests.mkdir(parents=True)
        for reference in (TAG, content.manifest_digest):
            (manifests / reference).write_bytes(content.manifest)
    if part in {"small", "large"}:
        blobs.mkdir(parents=True, exist_ok=True)
        for blob in content.blobs(part):
            with (blobs / blob.digest).open("wb") as file:
                file.writelines(blob.parts)


def _push_many(server, content: Content) -> None:
    seen = generator.load(
        "pushes", server, repository=MANY, label="many", size=4 * KIB, clients=CLIENTS,
        times=content.sizes.many // CLIENTS,
    )  # fmt: skip
    if seen.errors:
        raise SeedError(seen.fault)


def _push(server, content: Content, part: Part) -> None:
    with Connection(server.url, server.headers) as connection:
        if part == "mountable":
            _push_blobs(connection, MOUNTABLE, content.mountable)
        elif part == "deletable":
            _push_blobs(connection, DELETABLE, [content.config, content.layers[64 * KIB]])
        elif part == "images":
            for tag, made in content.images("pulled").items():
                _push_index(connection, tag, made)
        else:
            _push_blobs(connection, REPOSITORY, content.blobs(part))
        if part == "small":
            _push_blobs(connection, REPOSITORY, [content.config])
            for reference in (TAG, content.manifest_digest):
                push_manifest(connection, REPOSITORY, reference, OCI_IMAGE, content.manifest)


def _push_index(connection: Connection, tag: str, made: Index) -> None:
    blobs = (Blob([blob.read()], blob.digest) for blob in blobs_of(made))
    _push_blobs(connection, COPIED, blobs)
    for each in all_images(made):
        reference = tag if each is made else each.digest
        push_manifest(connection, COPIED, reference, each.media_type, each.manifest.read())


def _push_blobs(connection: Connection, repository: str, blobs: Iterable[Blob]) -> None:
    for blob in blobs:
        if fault := push(connection, repository, blob):
            raise SeedError(fault)


def push_manifest(connection, repository, reference, media_type, manifest: bytes) -> None:
    """Push a manifest whose blobs exist.

    :raises SeedError: if the server refuses it.
    """
    target = f"/v2/{repository}/manifests/{reference}"
    response = connection.request("PUT", target, {"Content-Type": media_type}, [manifest])
    if response.status != 201:
        raise SeedError(f"a push of a manifest was answered {response.status} instead of 201")
