"""Images of incompressible content to push, and checks of copies of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from twisted_registry.testing import Blob, Image, Index, build_image, build_index, read_layout
from twisted_registry.testing.images import AnyImage, all_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def noise(seed: object, size: int) -> bytes:
    """Return ``size`` incompressible bytes, equal for equal seeds."""
    return random.Random(str(seed)).randbytes(size)


def image(
    seed: object,
    *,
    architecture: str = "amd64",
    layers: int = 2,
    size: int = 2000,
    docker: bool = False,
) -> Image:
    """Return an image of ``layers`` layers, each with ``size`` incompressible bytes."""
    return build_image(
        layers=[{f"file-{n}": noise((seed, n), size)} for n in range(layers)],
        platform=f"linux/{architecture}",
        config={"Labels": {"seed": str(seed)}},
        docker=docker,
    )


def index(
    seed: object,
    architectures: Sequence[str] = ("amd64", "arm64"),
    *,
    size: int = 2000,
    docker: bool = False,
) -> Index:
    """Return an index of images for several architectures, each with two layers of ``size``."""
    images = [
        image((seed, architecture), architecture=architecture, size=size, docker=docker)
        for architecture in architectures
    ]
    return build_index(images, docker=docker)


def referrer(subject: AnyImage, text: str) -> Image:
    """Return an artifact with content ``text`` that refers to ``subject``."""
    return build_image(
        layers=[Blob.from_bytes(text.encode(), "text/plain")],
        subject=subject,
        artifact_type="application/x-note",
        annotations={"note": text},
    )


def blobs_of(top: AnyImage) -> Iterator[Blob]:
    """Yield the configurations and layers of an image, or of all images of an index."""
    for each in all_images(top):
        if isinstance(each, Image):
            yield from each.blobs


def write_dir(folder: Path, made: Image) -> None:
    """Write an image as skopeo's ``dir`` does, which keeps the media types of Docker."""
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(made.manifest.read())
    for blob in made.blobs:
        (folder / blob.digest.partition(":")[2]).write_bytes(blob.read())


def assert_layout_holds(folder: Path, top: AnyImage) -> None:
    """Check that the layout lists ``top``, and contains all of it, unchanged.

    :raises LayoutInvalid: if a manifest or a blob is missing.
    """
    found = {each.digest: each for each in read_layout(folder).values()}
    assert top.digest in found
    stored = list(blobs_of(found[top.digest]))
    assert {blob.digest for blob in stored} == {blob.digest for blob in blobs_of(top)}
    for blob in stored:
        assert blob.hashed() == blob, blob.digest
