"""Content for pushes to failing disks, and checks of the store afterwards."""

from __future__ import annotations

from tests.repository.worlds import CONFIG, LAYER, descriptor, image
from twisted_registry.oci.digest import Digest

FIRST, SECOND = b"first" * 700, b"second" * 700
BLOB, SETTINGS = FIRST + SECOND, b'{"os":"linux"}'
MANIFEST = image(
    config=descriptor(SETTINGS, CONFIG),
    layers=[descriptor(BLOB, LAYER)],
    subject=descriptor(b"subject"),
)
MOVED = image(config=descriptor(SETTINGS, CONFIG), layers=[])
#: Tags, in the order in which they are set.
TAGGED = (("v1", MANIFEST), ("latest", MANIFEST), ("latest", MOVED))


async def has_blob(repository, blob):
    assert await repository.blobs.size(Digest.of(blob)) == len(blob)


async def blobs_are_whole(driver):
    """Check that the bytes at the path of each digest have that digest."""
    for entry in await driver.walk("docker/registry/v2/blobs"):
        *_, algorithm, _, encoded, _ = entry.path.split("/")
        assert Digest(algorithm, encoded).matches(await driver.get(entry.path, 10**6))
