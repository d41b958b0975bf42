"""Moving into the trash and restoring on a disk that loses power."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.repository.worlds import Body, image
from tests.storage.filesystem.power_loss import at_every_cut
from twisted_registry.maintenance.undelete import Undelete
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.trash import TagChange, Trash, TrashDeleter, TrashReason

LAYER = Digest.of(b"layer")
MANIFEST = Digest.of(image())


async def prepare(driver):
    repository = Registry(driver, Clock()).repository("a/b")
    for content in (b"{}", b"layer"):
        await repository.uploads.store_blob(Digest.of(content), Body(content))
    await repository.manifests.put(MANIFEST, image(), OCI_IMAGE, ["v1"])


async def blob(trash):
    await trash.delete_blob(LAYER, lambda: True)


async def layer(trash):
    await trash.delete_layer("a/b", LAYER, TrashReason.COLLECTED)


async def revision(trash):
    await trash.delete_revision("a/b", MANIFEST, TrashReason.DELETED)


async def tag(trash):
    await trash.delete_tag("a/b", "v1")


async def there_and_back(trash):
    await trash.delete_blob(LAYER, lambda: True)
    await trash.delete_layer("a/b", LAYER, TrashReason.COLLECTED)
    assert await Trash(trash.driver).restore_layer("a/b", LAYER)


#: The operation, the path before, the folder in the trash, and the content of each.
CASES = [
    (blob, layout.blob_data(LAYER), layout.trashed_blob_folder(LAYER), b"layer", b"layer"),
    (
        layer,
        layout.layer_link("a/b", LAYER),
        layout.trashed_layer_folder("a/b", LAYER),
        str(LAYER).encode(),
        str(LAYER).encode(),
    ),
    (
        revision,
        layout.revision_link("a/b", MANIFEST),
        layout.trashed_revision_folder("a/b", MANIFEST),
        str(MANIFEST).encode(),
        b"",
    ),
    (
        tag,
        layout.tag_current_link("a/b", "v1"),
        layout.trashed_tag_folder("a/b", "v1"),
        str(MANIFEST).encode(),
        TagChange(None, MANIFEST).to_bytes(),
    ),
    (
        there_and_back,
        layout.blob_data(LAYER),
        layout.trashed_blob_folder(LAYER),
        b"layer",
        b"layer",
    ),
    (
        there_and_back,
        layout.layer_link("a/b", LAYER),
        layout.trashed_layer_folder("a/b", LAYER),
        str(LAYER).encode(),
        str(LAYER).encode(),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__} {case[1][-12:]}")
def test_power_cut_never_loses_content_between_place_and_trash(case):
    act, place, folder, before, kept = case

    async def scenario(driver, answered):
        await act(TrashDeleter(driver, Clock()))
        answered.append("gone")

    async def check(driver, answered):
        here = [entry.path for entry in await driver.walk(place.rpartition("/")[0])]
        there = [entry.path for entry in await driver.walk(folder)]
        assert here or there
        for path, content in [(path, before) for path in here] + [(path, kept) for path in there]:
            assert await driver.get(path, 10_000) == content
        if answered:
            assert bool(here) == (act is there_and_back)

    assert at_every_cut(scenario, check, prepare) > 3


def test_power_cut_during_a_repository_deletion_is_recoverable():
    """What was deleted can be restored; an acknowledged deletion is complete."""

    def registry(driver, seconds):
        clock = Clock()
        clock.advance(seconds)
        return Registry(driver, clock, deleter=TrashDeleter(driver, clock))

    async def scenario(driver, answered):
        answered.append(await registry(driver, 1).repository("a/b").delete())

    async def check(driver, answered):
        again = registry(driver, 2)
        repository = again.repository("a/b")
        if answered:
            assert [tags async for tags in repository.tags.pages()] == []
            assert await repository.manifests.get_parsed(MANIFEST) is None
        assert await Undelete(again).repository("a/b") == []
        assert (await repository.manifests.get("v1")).digest == MANIFEST
        for content in (b"{}", b"layer"):
            assert await repository.blobs.size(Digest.of(content)) == len(content)

    assert at_every_cut(scenario, check, prepare) > 10
