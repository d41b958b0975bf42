"""The same content for every server: pushed over HTTP, long lists written into its store."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from attrs import field, frozen
from content import Blob, Maker, push
from wire import Connection

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = "bench/image"
MOUNTABLE = "bench/mountable"
TAGGED = "bench/tagged"
TAG = "latest"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
KIB = 1024


class SeedError(Exception):
    """A server did not take the content; says which step."""


@frozen
class Sizes:
    """How much of everything: less for a smoke run."""

    large: int
    tags: int
    repositories: int
    page: int
    mounts: int


FULL = Sizes(large=256 * KIB * KIB, tags=10_000, repositories=5_000, page=1_000, mounts=100)
QUICK = Sizes(large=4 * KIB * KIB, tags=300, repositories=200, page=50, mounts=10)


@frozen
class Content:
    """What every server holds."""

    sizes: Sizes
    config: Blob = field(init=False, factory=lambda: Maker(2 * KIB).make("config"))
    layer: Blob = field(init=False, factory=lambda: Maker(64 * KIB).make("layer"))
    large: Blob = field(init=False)
    mountable: list[Blob] = field(init=False)
    manifest: bytes = field(init=False)

    @large.default
    def _large(self) -> Blob:
        return Maker(self.sizes.large).make("large")

    @mountable.default
    def _mountable(self) -> list[Blob]:
        maker = Maker(KIB)
        return [maker.make(f"mountable {number}") for number in range(self.sizes.mounts)]

    @manifest.default
    def _manifest(self) -> bytes:
        layer = {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": self.layer.digest,
            "size": self.layer.size,
        }
        config = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": self.config.digest,
            "size": self.config.size,
        }
        image = {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer],
        }  # fmt: skip
        return json.dumps(image, indent=1).encode()

    @property
    def manifest_digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @property
    def tags(self) -> list[str]:
        """The tags of the repository with many, in order."""
        return [f"v{number:06}" for number in range(self.sizes.tags)]

    @property
    def repositories(self) -> list[str]:
        """The repositories that fill the catalog, in order."""
        return [f"catalog/r{number:06}" for number in range(self.sizes.repositories)]


def write_links(store: Path, content: Content) -> None:
    """Write the long lists into the store of a server that does not run yet."""
    repositories = store / "docker/registry/v2/repositories"
    tagged = repositories / TAGGED
    (tagged / "_layers").mkdir(parents=True)
    for tag in content.tags:
        folder = tagged / "_manifests/tags" / tag / "current"
        folder.mkdir(parents=True)
        (folder / "link").write_text(content.manifest_digest)
    for name in content.repositories:
        (repositories / name / "_layers").mkdir(parents=True)


def write_files(root: Path, content: Content, *, large: bool) -> None:
    """Write what is downloaded as plain files, at the paths of a registry's URLs."""
    folder = root / "v2" / REPOSITORY
    for name in ("manifests", "blobs"):
        (folder / name).mkdir(parents=True)
    for reference in (TAG, content.manifest_digest):
        (folder / "manifests" / reference).write_bytes(content.manifest)
    for blob in (content.layer, content.large) if large else (content.layer,):
        with (folder / "blobs" / blob.digest).open("wb") as file:
            file.writelines(blob.parts)


def push_content(url: str, content: Content, *, large: bool) -> None:
    """Push the images and blobs.

    :param large: whether a case needs the large blob.
    """
    with Connection(url) as connection:
        blobs = [(REPOSITORY, content.config), (REPOSITORY, content.layer)]
        blobs += [(MOUNTABLE, blob) for blob in content.mountable]
        if large:
            blobs.append((REPOSITORY, content.large))
        for repository, blob in blobs:
            if fault := push(connection, repository, blob):
                raise SeedError(f"{url}: {fault}")
        for reference in (TAG, content.manifest_digest):
            target = f"/v2/{REPOSITORY}/manifests/{reference}"
            answer = connection.ask(
                "PUT", target, {"Content-Type": MANIFEST_TYPE}, [content.manifest]
            )
            if answer.status != 201:
                raise SeedError(f"{url}: a manifest was answered {answer.status}, not 201")
